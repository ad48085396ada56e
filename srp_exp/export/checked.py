"""Writing an export: a file appears complete and checked, or not at all."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from srp_exp.errors import UserError
from srp_exp.export.formats import FORMATS, Format
from srp_exp.export.network import Network
from srp_exp.files import TEMPORARY, remove


def check_possible(name: str, backbone: str, timm_model: str | None) -> None:
    """Raise UserError where a package is missing, or timm does not have the network `backbone` (`timm_model` None)."""
    if missing := [package for package in FORMATS[name].packages if find_spec(package) is None]:
        raise UserError(f"format={name} needs {', '.join(missing)}: pip install 'srp-exp[export]'")
    if name == "timm" and timm_model is None:
        others = ", ".join(other for other in FORMATS if other != "timm")
        raise UserError(f"format=timm: timm has no network like backbone={backbone}; take one of {others}")


@torch.no_grad()
def export(network: Network, name: str, folder: Path, expected: list[Tensor]) -> tuple[Path, float]:
    """Write `network` in the format `name` into `folder`, with its facts as JSON beside it.

    `expected` holds the logits (B, classes) of the run, for each of them on the first B of the network's images. The
    file is read again and must compute them before it gets its name. Returns the file and the largest difference.
    Raises ValueError where the network can't be written in this format, or the file does not compute the same.
    """
    form = FORMATS[name]
    existed = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=folder, prefix=f".{name}.", suffix=TEMPORARY) as scratch:
            file = Path(scratch) / form.file_name
            with _quiet():
                facts, difference = _write(network, name, file, expected)
            description = file.with_name(f"{file.name}.json")
            description.write_text(json.dumps(facts, indent=1))
            (folder / description.name).unlink(missing_ok=True)  # where it exists, it is that of the file beside it
            for finished in (file, description):
                if finished.is_dir():
                    remove(folder / finished.name)
                finished.replace(folder / finished.name)
    except BaseException:
        if not existed:
            folder.rmdir()
        raise
    return folder / form.file_name, difference


def _write(network: Network, name: str, file: Path, expected: list[Tensor]) -> tuple[dict[str, object], float]:
    form = FORMATS[name]
    try:
        facts = form.write(network, file)
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever torch raises at a network that it can't trace
        raise UserError(f"format={name}: this network can't be written so ({_line(error)})") from error
    try:
        logits = form.read(network, file, facts)
        found = [logits(network.images[: len(wanted)]) for wanted in expected]
    except Exception as error:  # whatever the reader of a format raises at a damaged file
        raise UserError(f"format={name}: refused, the file written can't be used ({_line(error)})") from error
    difference = max(_difference(form, name, *pair) for pair in zip(found, expected, strict=True))
    checked = {"batch_sizes": [len(wanted) for wanted in expected], "largest_difference": difference}
    return {**network.facts, **facts, "torch": torch.__version__, "checked": checked}, difference


def _difference(form: Format, name: str, found: Tensor, wanted: Tensor) -> float:
    """The largest difference of a logit; raises ValueError where it is more than the format allows."""
    difference = (found - wanted).abs().max().item() if found.shape == wanted.shape else float("inf")
    allowed = form.tolerance * max(1.0, wanted.abs().max().item())
    if not difference <= allowed:  # NaN is refused too
        raise UserError(
            f"format={name}: refused, on a batch of {len(wanted)} its logits differ from the run's by up to "
            f"{difference:.2g}, and {allowed:.2g} is allowed"
        )
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nobody log: torch would tell, over many lines, what the messages here say in one."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
