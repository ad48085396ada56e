"""How many small faults, put into one module, its tests notice.

    python scripts/mutants.py srp_exp/srp/region.py tests/srp/test_region.py [more tests] [--most 30] [--seed 0]

A mutant is the module with one change: a comparison, an operator, a constant or the truth of a flag, `and` for `or`, a
`not` left out, a branch that returns, raises or continues left out, a call left out whose result nobody takes. `--most`
of them are drawn by `--seed`. The files that git knows are copied to a temporary folder; the mutants are written and
the tests run there, so the working tree stays as it is. Run it from the root of a checkout. To compare two versions of
tests, run it in a checkout of each with the same seed. Some mutants change nothing that a test could see: they survive.
"""

import argparse
import ast
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra  # noqa: F401  imported once, for the processes that run the tests
import pytest
import timm  # noqa: F401
import torch  # noqa: F401

OTHERS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
LEAVES = (ast.Return, ast.Raise, ast.Continue)
IMPORTED = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
NOT_RUN = ("annotation", "returns", "decorator_list", "type_params")
"""Fields of nodes that say something of the code and do nothing, mostly."""


@dataclass(frozen=True)
class Mutation:
    """`field` of `owner`, or its `index`-th element, becomes `new`."""

    owner: ast.AST
    field: str
    index: int | None
    old: ast.AST
    new: ast.AST

    def __str__(self) -> str:
        before, after = (" ".join(ast.unparse(node).split()) for node in (self.old, self.new))
        return f"line {getattr(self.old, 'lineno', 0)}: {before[:70]}  ->  {after[:70]}"

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.owner, self.field, node)
        else:
            getattr(self.owner, self.field)[self.index] = node


def changed(owner: ast.AST, node: ast.AST) -> Iterator[ast.AST]:
    """What to put in the place of `node`."""
    match node:
        case ast.Compare(left, operators, values):
            for index, one in enumerate(operators):
                yield ast.Compare(left, [*operators[:index], OTHERS[type(one)](), *operators[index + 1 :]], values)
        case ast.BinOp(left, operator, right) if type(operator) in OTHERS and not (is_text(left) or is_text(right)):
            yield ast.BinOp(left, OTHERS[type(operator)](), right)
        case ast.AugAssign(target, operator, value) if type(operator) in OTHERS and not is_text(value):
            yield ast.AugAssign(target, OTHERS[type(operator)](), value)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(OTHERS[type(operator)](), values)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.IfExp(_, one, other):
            yield from (one, other)
        case ast.Expr(ast.Call()):
            yield ast.Pass()
    if isinstance(owner, ast.If) and node is owner.test and isinstance(owner.body[-1], LEAVES):
        yield ast.Constant(False)


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def mutations(owner: ast.AST) -> Iterator[Mutation]:
    """All mutations below `owner`, in the order of the file; the words of messages stay."""
    for field, value in ast.iter_fields(owner):
        elements: list[tuple[int | None, Any]] = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, node in elements:
            if field not in NOT_RUN and isinstance(node, ast.AST) and not is_text(node):
                yield from (Mutation(owner, field, index, node, new) for new in changed(owner, node))
                yield from mutations(node)


def run_tests(folder: Path, tests: list[str]) -> None:
    """Run by a process of its own: what pytest prints goes to output.txt of the folder."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)  # of processes that tests start
    output = os.open("output.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.exit(pytest.main(["-x", "-n", "0", "-q", "-p", "no:cacheprovider", "--tb=no", *IMPORTED, *tests]))


def first_failure(folder: Path, tests: list[str], limit_s: float | None = None) -> str | None:
    """The first test that fails there, or the reason why pytest ended; None where all pass."""
    sys.dont_write_bytecode = limit_s is not None  # what a mutant left could be taken for the next one
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(folder, tests))
    process.start()
    process.join(limit_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        return f"still running after {limit_s:.0f} s"
    if process.exitcode == 0:
        return None
    lines = (folder / "output.txt").read_text().splitlines()
    failed = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return failed[0] if failed else f"pytest ended with {process.exitcode}: {lines[-1:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", nargs="+", help="files or tests, as pytest takes them")
    parser.add_argument("--most", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    tree = ast.parse(arguments.module.read_text())
    found = list(mutations(tree))
    chosen = sorted(random.Random(arguments.seed).sample(range(len(found)), min(arguments.most, len(found))))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in filter(os.path.isfile, files):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, folder / name)
        start = time.perf_counter()
        if failure := first_failure(folder, arguments.tests):
            sys.exit(f"without a mutation: {failure}")
        seconds = time.perf_counter() - start
        killed = 0
        for number in chosen:
            mutation = found[number]
            mutation.put(mutation.new)
            (folder / arguments.module).write_text(ast.unparse(tree))
            mutation.put(mutation.old)
            failure = first_failure(folder, arguments.tests, 3 * seconds + 60)
            killed += failure is not None
            print(f"{'survived' if failure is None else 'killed  '} {mutation}  {failure or ''}", flush=True)
    name, spent = arguments.module, f"the tests take {seconds:.0f} s"
    print(f"{name}: {killed} of {len(chosen)} mutants killed, of {len(found)} possible; {spent}")


if __name__ == "__main__":
    main()
