"""Does a network lose by batch norm statistics that were gathered while SRP pooled regions?

    python scripts/batch_norms_again.py RUN ...

For each finished run: its test accuracy as it is, and after the statistics of all its batch norms were gathered again
from one epoch of its training batches, once with its regions and once without. Prints a Markdown table. An epoch of
forward passes each, on the CPU or the GPU that the run is set to.
"""

import argparse
from pathlib import Path

from omegaconf import DictConfig
from torch import nn
from torch.optim.swa_utils import update_bn

from srp_exp.config import CONF_DIR
from srp_exp.config.failures.faults import ending_in_one_line
from srp_exp.config.register import register
from srp_exp.errors import UserError
from srp_exp.runs.build import Data, build_data, build_model
from srp_exp.runs.device import build_device, choose_kernels
from srp_exp.runs.evaluate import load_trained, score_on
from srp_exp.runs.folder.digests import digests_of_data, refuse_other_data
from srp_exp.runs.folder.layout import CONFIG
from srp_exp.runs.read_back.read import leave_out_weights, load_of_run
from srp_exp.runs.read_back.trust import stored_config
from srp_exp.srp import remove_srp
from srp_exp.training.autocast import autocast
from srp_exp.training.checkpoints import FINAL
from srp_exp.training.processes.distributed import SINGLE


def top1(config: DictConfig, model: nn.Module, data: Data) -> str:
    return f"{100 * score_on(config, model, data, 'test', SINGLE).summary()['top1']:.2f}"


def gather_again(config: DictConfig, model: nn.Module, data: Data) -> None:
    batches = data.training_batches(config.recipe.batch_size, config.seed)
    with autocast(data.device, config.precision):
        update_bn((batch.images for batch in batches.epoch(0)), model)


def row(folder: Path) -> list[str]:
    """The accuracies of the run in `folder` as trained, and with statistics gathered with regions and without."""
    checkpoint = folder / "checkpoints" / FINAL
    if not checkpoint.is_file():
        raise UserError(f"{folder}: not a finished run (no {checkpoint})")
    config = stored_config((folder / CONFIG).read_text(), folder / CONFIG, [CONF_DIR], trust_targets=False)
    leave_out_weights(config)
    choose_kernels(config)
    data = build_data(config, build_device(config.device))
    refuse_other_data(folder, digests_of_data(config, data.dataset))
    model, _ = build_model(config, data.dataset, data.device)
    load_trained(model, load_of_run(checkpoint), checkpoint)
    trained = top1(config, model, data)
    gather_again(config, model, data)
    with_regions = top1(config, model, data)
    remove_srp(model)
    gather_again(config, model, data)
    return [trained, with_regions, top1(config, model, data)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    register()
    print("| run | as trained | gathered again, with regions | without |\n|---|---:|---:|---:|")
    for folder in parser.parse_args().runs:
        print(f"| {folder.name} | {' | '.join(row(folder))} |", flush=True)


if __name__ == "__main__":
    with ending_in_one_line("batch_norms_again"):
        main()
