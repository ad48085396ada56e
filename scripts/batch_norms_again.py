"""Does a network lose by batch norm statistics that were gathered while SRP pooled regions?

    python scripts/batch_norms_again.py RUN ...

For each finished run: its test accuracy as it is, and after the statistics of all its batch norms were gathered again
from one epoch of its training batches, once with its regions and once without. Prints a Markdown table. An epoch of
forward passes each, on the CPU or the GPU that the run is set to.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from srp_exp.config.register import register
from srp_exp.runs.build import Data, build_data, build_model
from srp_exp.runs.device import build_device, choose_kernels
from srp_exp.runs.evaluate import evaluate_on
from srp_exp.runs.folder import CONFIG
from srp_exp.srp import remove_srp
from srp_exp.training.checkpoints import FINAL, load, model_state
from srp_exp.training.distributed import SINGLE
from srp_exp.training.learner import autocast


def top1(config: DictConfig, model: nn.Module, data: Data) -> str:
    return f"{100 * evaluate_on(config, model, data, 'test', SINGLE).summary()['top1']:.2f}"


def gather_again(config: DictConfig, model: nn.Module, data: Data) -> None:
    batches = data.training_batches(config.recipe.batch_size, config.seed)

    def images() -> Iterator[Tensor]:
        yield from (batch.images for batch in batches.epoch(0))

    with autocast(data.device, config.precision):
        update_bn(images(), model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    register()
    print("| run | as trained | gathered again, with regions | without |\n|---|---:|---:|---:|")
    for folder in parser.parse_args().runs:
        config = OmegaConf.load(folder / CONFIG)
        assert isinstance(config, DictConfig)
        choose_kernels(config)
        device = build_device(config.device)
        data = build_data(config, device)
        row = []
        for again, regions in ((False, True), (True, True), (True, False)):
            model, _ = build_model(config, data.dataset, device)
            model.load_state_dict(model_state(load(folder / "checkpoints" / FINAL)))
            if not regions:
                remove_srp(model)
            if again:
                gather_again(config, model, data)
            row.append(top1(config, model, data))
        print(f"| {folder.name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
