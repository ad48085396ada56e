"""mode=cost: a configuration, its network with global average pooling and with SRP, measured in turns."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from srp_exp.config.failures.explain import nearest
from srp_exp.config.identity import names_a_run, output_folder, plain_values, run_id
from srp_exp.config.visible import visible
from srp_exp.errors import UserError
from srp_exp.evaluation.cost import Contender, Cost, compare_costs
from srp_exp.files import write_atomically
from srp_exp.runs.build import build_data, build_model
from srp_exp.runs.device import build_device, choose_kernels
from srp_exp.runs.folder.provenance import device_name
from srp_exp.training.activation_checkpointing import checkpoint_activations
from srp_exp.training.autocast import autocast
from srp_exp.training.processes.distributed import refuse_several
from srp_exp.training.reporting.logs import Terminal

_GAP = {"name": "gap", "_target_": None}
_WIDTH = 120  # characters of the table


def execute(config: DictConfig) -> None:
    """Measure the network of `config` with GAP, with GAP again, and with each choice of config.cost.srp and its own.

    Prints a table and writes <output_dir>/reports/cost/<run id>.json. The batch is the first one of the training.
    Raises UserError where the network can't be built, or the memory does not suffice.
    """
    if names_a_run(config):
        raise UserError("mode=cost measures a configuration; for what a run trained: mode=eval evaluators=[cost]")
    refuse_several("mode=cost")
    choices = {choice: _schedule(choice) for choice in config.cost.srp}
    name = run_id(config)
    config = OmegaConf.create(plain_values(config))
    if config.srp._target_ is not None:
        choices[config.srp.name] = config.srp
    choose_kernels(config)
    device = build_device(config.device)
    try:
        costs, title = _measure(config, {"gap": _GAP, "gap again": _GAP, **choices}, device)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory on {device} with recipe.batch_size={config.recipe.batch_size} and {len(choices) + 2} "
            "networks side by side: lower it, or shorten cost.srp"
        ) from error
    Terminal(width=_WIDTH).print(_table(title, costs))
    content = {
        "network": f"{config.backbone.name}-{config.attention.name}",
        "measured": title,
        "device": device_name(device),
        "rounds": config.cost.rounds,
        "choices": {name: dict(choice) for name, choice in choices.items()},
        "costs": {name: asdict(cost) for name, cost in costs.items()},
    }
    path = output_folder(config) / "reports" / "cost" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1).encode())
    print(visible(f"measured  {path}"))


def _schedule(name: str) -> DictConfig:
    """The settings of srp=`name`, of a folder given by --config-dir too; UserError where there is no such choice."""
    names = GlobalHydra.instance().config_loader().get_group_options("srp")
    if name not in names:
        raise UserError(f"cost.srp={name}: there is no srp={name}{nearest(name, names)}")
    choice: DictConfig = OmegaConf.create(plain_values(compose(f"srp/{name}"))["srp"])
    return choice


def _measure(
    config: DictConfig, variants: Mapping[str, Mapping[str, Any]], device: torch.device
) -> tuple[dict[str, Cost], str]:
    data = build_data(config, device)
    batch = next(data.training_batches(config.recipe.batch_size, config.seed).epoch(0))
    contenders = {}
    for name, srp in variants.items():
        own = config.copy()
        own.srp = OmegaConf.create(dict(srp))
        model, _ = build_model(own, data.dataset, device)
        if config.activation_checkpointing:
            checkpoint_activations(model, config.checkpoint_every_block)
        contenders[name] = Contender(model, batch, autocast(device, config.precision))
        if config.compile:
            model.compile(mode=config.compile_mode)
    torch.manual_seed(config.seed)
    size = " x ".join(str(side) for side in batch.images.shape)
    title = (
        f"{config.backbone.name}-{config.attention.name}, {size}, {config.precision}, "
        f"{'compiled' if config.compile else 'eager'}; torch {torch.__version__}, {device_name(device)}, "
        f"{torch.get_num_threads()} threads"
    )
    return compare_costs(contenders, config.cost.rounds), title


def _table(title: str, costs: Mapping[str, Cost]) -> Table:
    table = Table(title=title)
    for heading in ("srp", "parameters", "MACs", "in training", "training step", "evaluation", "memory"):
        table.add_column(heading, justify="left" if heading == "srp" else "right")
    for name, cost in costs.items():
        counts = (name, f"{cost.parameters:,}", f"{cost.macs / 1e6:.3f} M", f"{cost.train_macs / 1e6:.3f} M")
        if name == "gap":
            seconds = (f"{1e3 * value:.1f} ms" for value in (cost.train_seconds, cost.eval_seconds))
            table.add_row(*counts, *seconds, f"{cost.memory_mib:.0f} MiB")
        else:
            table.add_row(*counts, f"x {cost.train_ratio}", f"x {cost.eval_ratio}", f"x {cost.memory_ratio:.3f}")
    return table
