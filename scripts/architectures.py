"""SRP in every architecture of timm and torchvision, checked one by one; writes docs/architectures.md.

    python scripts/architectures.py [--jobs 2] [--gibibytes 16] [--only 'seresnet*'] [--fresh]

The document says what is checked; survey_architecture.py does it. What is done is kept in outputs/architectures.jsonl,
so the same command goes on where it stopped; --fresh begins anew. The document is written once all are done. Most take
a second; maxvit_large_tf_512 takes 13 GiB and swinv2_cr_giant_384 20: --jobs 1 --gibibytes 21 for what is left by then.
"""

import argparse
import json
import multiprocessing
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import timm
import torch
import torchvision
from survey_architecture import Row, survey

HEADER = """# SRP in every architecture

Written by `python scripts/architectures.py`; not to be edited. {versions}.
Every classification architecture of both libraries is searched for channel attention with average pooling. Up to 100 M
parameters, SRP of scale 0.5 is put into the real network, with random weights, on two images of the smallest size that
it takes, without dropout and stochastic depth, and these are checked:

- evaluation: bit-identical before and after;
- keys: the same state_dict keys and parameters before and after, and after removal;
- trains: the modules are those found on the meta device; the training output differs from the plain network's, which
  comes back bit by bit at scale 1, as do the gradient, the buffers and the next random number; every parameter that had
  a gradient beyond rounding has one with SRP.

Networks over 100 M parameters are converted on the meta device, which has no values: it shows the keys.
"""
MISSED = """## Attention by name, but not found

Modules whose class is known as channel attention but has no average pooling that gates its own map: GlobalContext and
BatNonLocalAttn pool with weights that the map decides, coordinate and strip attention along one axis.
"""
CHECKS = {"evaluation": {"evaluation", "finite"}, "keys": {"keys", "removal"}}
CHECKS["trains"] = {
    "same modules on meta", "output differs", "output at scale 1", "gradients at scale 1", "buffers at scale 1",
    "gradients",
}  # fmt: skip

ROOT = Path(__file__).parent.parent
CACHE, DOCUMENT = ROOT / "outputs" / "architectures.jsonl", ROOT / "docs" / "architectures.md"


def architectures() -> Iterator[tuple[str, str]]:
    """(library, name) of every classification network of both libraries."""
    yield from (("timm", name) for name in timm.list_models())
    yield from (("torchvision", name) for name in torchvision.models.list_models(module=torchvision.models))


def versions() -> str:
    libraries = (timm, torchvision, torch)
    return ", ".join(f"{library.__name__} {library.__version__.partition('+')[0]}" for library in libraries)


def page(rows: list[Row]) -> str:
    """The document: counts, the classes found, what wasn't met, and a line for every architecture with attention."""
    found = [row for row in rows if row.attention]
    failures = [[_name(row), row.error or ", ".join(row.failed)] for row in rows if row.error or row.failed]
    missed = [[_name(row), _modules(row.missed)] for row in rows if row.missed]
    parts = [
        HEADER.format(versions=versions()),
        _table(["", "architectures", "with attention", "with values", "on meta", "all checks met"], _counts(rows)),
        "## Classes that were found\n",
        _table(["class", "architectures", "modules"], _classes(found)),
        "## Failures\n",
        _table(["architecture", "what"], failures),
        MISSED,
        _table(["architecture", "modules"], missed),
        "## Architectures with attention\n",
        _table(["architecture", "M", "input", "attention", *CHECKS], [table_row(row) for row in found]),
    ]
    return "\n".join(parts)


def table_row(row: Row) -> list[str]:
    """One architecture with attention, as the document has it."""
    size = " x ".join(str(side) for side in row.shape[1:])
    checks = [
        "no" if row.error or names & set(row.failed) else "yes" if row.with_values or name == "keys" else "meta"
        for name, names in CHECKS.items()
    ]
    return [_name(row), f"{row.parameters / 1e6:.1f}", size, _modules(row.attention), *checks]


def _name(row: Row) -> str:
    return row.name if row.library == "timm" else f"{row.name} (torchvision)"


def _modules(count: dict[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in count.items())


def _counts(rows: list[Row]) -> list[list[str]]:
    lines = []
    for library in ("timm", "torchvision"):
        of = [row for row in rows if row.library == library]
        found = [row for row in of if row.attention]
        met = [row for row in found if not row.failed and not row.error]
        with_values = sum(row.with_values for row in found)
        counts = (len(of), len(found), with_values, len(found) - with_values, len(met))
        lines.append([library, *(str(count) for count in counts)])
    return lines


def _classes(found: list[Row]) -> list[list[str]]:
    architectures, modules = Counter[str](), Counter[str]()
    for row in found:
        architectures.update(row.attention.keys())
        modules.update(row.attention)
    return [[kind, str(count), str(modules[kind])] for kind, count in architectures.most_common()]


def _table(headings: list[str], lines: list[list[str]]) -> str:
    if not lines:
        return "None.\n"
    rows = [headings, ["---"] * len(headings), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _one_thread(gibibytes: int) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (gibibytes * 2**30,) * 2)


def _run(todo: list[tuple[str, str]], jobs: int, gibibytes: int, done: Callable[[Row], None]) -> None:
    """Survey `todo`, in new processes for every hundred: what foreign code leaves in memory goes with them."""
    context = multiprocessing.get_context("spawn")
    for start in range(0, len(todo), 100):
        with ProcessPoolExecutor(jobs, context, _one_thread, (gibibytes,)) as pool:
            for future in as_completed(
                [pool.submit(survey, *architecture) for architecture in todo[start : start + 100]]
            ):
                done(future.result())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--gibibytes", type=int, default=16, help="of data that a process may hold")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="architectures of this name; no document then")
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()

    if arguments.fresh:
        CACHE.unlink(missing_ok=True)
    rows = {}
    if CACHE.exists():
        for line in CACHE.read_text().splitlines():
            row = Row(**json.loads(line))
            rows[row.library, row.name] = row
    wanted = [key for key in architectures() if fnmatchcase(key[1], arguments.only)]

    def done(row: Row) -> None:
        rows[row.library, row.name] = row
        with CACHE.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        print(
            f"{len(rows)}/{len(wanted)}", row.library, row.name, row.attention, row.failed or "", row.error, flush=True
        )

    _run([key for key in wanted if key not in rows], arguments.jobs, arguments.gibibytes, done)
    text = page([rows[key] for key in wanted])
    print(text)
    if arguments.only == "*":
        DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
