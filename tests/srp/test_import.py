"""The library as another project imports it: torch alone, and typed."""

import doctest
import subprocess
import sys
from importlib.resources import files

import pytest

from srp_exp.srp import inject, schedule

CODE = """
import sys
import torch
before = set(sys.modules)
from srp_exp import apply_srp
new = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
assert new <= {"srp_exp", "torch"}, new
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))
try:
    apply_srp(net, 0.5)
except ValueError as error:
    print(error)
"""


def test_importing_takes_torch_only() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Sequential has no channel attention with average pooling; looked for ")


@pytest.mark.parametrize(("module", "names"), [(inject, ["apply_srp", "remove_srp"]), (schedule, ["Linear", "Stages"])])
def test_the_examples_of_the_docstrings(module: object, names: list[str]) -> None:
    examples = {test.name.rpartition(".")[2]: test for test in doctest.DocTestFinder().find(module) if test.examples}
    assert set(names) <= set(examples)
    runner = doctest.DocTestRunner(verbose=False)
    assert [name for name, test in examples.items() if runner.run(test).failed] == []


def test_it_is_typed() -> None:
    assert (files("srp_exp") / "py.typed").is_file()
