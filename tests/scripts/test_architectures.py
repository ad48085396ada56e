"""The survey of all architectures, on some of every family, and the document that it wrote."""

import re
import sys
from pathlib import Path

import pytest
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from architectures import architectures, page, table_row, versions  # noqa: E402
from survey_architecture import Row, check, survey  # noqa: E402

DOCUMENT = (ROOT / "docs" / "architectures.md").read_text()
FAMILIES = {
    "timm": {
        "ecaresnet26t": {"EcaModule": 8},
        "skresnet18": {"SelectiveKernelAttn": 8},
        "resnest14d": {"SplitAttn": 4},
        "ese_vovnet19b_dw": {"EffectiveSEModule": 4},
        "mobilenetv3_small_050": {"SqueezeExcite": 9},
        "senet154": {"SEModule": 50},
    },
    "torchvision": {
        "mobilenet_v3_small": {"SqueezeExcitation": 9},
        "efficientnet_b0": {"SqueezeExcitation": 16},
        "regnet_y_400mf": {"SqueezeExcitation": 16},
    },
}
CASES = [(library, name) for library, names in FAMILIES.items() for name in names]


@pytest.mark.parametrize(("library", "name"), CASES)
def test_architecture_passes_and_the_document_says_so(library: str, name: str) -> None:
    row = survey(library, name)
    assert (row.error, row.failed, row.missed) == ("", [], {})
    assert row.attention == FAMILIES[library][name]
    assert row.with_values == (name != "senet154")
    assert f"| {' | '.join(table_row(row))} |\n" in DOCUMENT


def test_document_is_of_all_architectures_and_none_failed() -> None:
    of_versions = versions().rpartition(", torch ")[0]
    if of_versions not in DOCUMENT:
        pytest.skip(f"the document is of other versions than {of_versions}")
    for library in FAMILIES:
        count = sum(of == library for of, _ in architectures())
        (line,) = re.findall(rf"^\| {library} \| {count} \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", DOCUMENT, re.M)
        with_attention, with_values, on_meta, met = map(int, line)
        assert with_attention == met == with_values + on_meta > 0


@pytest.mark.parametrize(("name", "missed"), [("resnet18", {}), ("gcresnet33ts", {"GlobalContext": 10})])
def test_architecture_without_average_pooling(name: str, missed: dict[str, int]) -> None:
    row = survey("timm", name)
    assert (row.attention, row.missed, row.failed, row.error) == ({}, missed, [], "")


def test_a_broken_architecture_is_a_line() -> None:
    row = survey("timm", "resnet18000")
    assert row.error.startswith("RuntimeError: Unknown model")
    assert "| resnet18000 | RuntimeError: Unknown model" in page([row])


class Drifting(nn.Module):
    """Attention whose evaluation depends on the calls before."""

    def __init__(self, drift: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.drift, self.calls = drift, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += not self.training
        return x * self.conv(x.mean((2, 3), keepdim=True)) + self.calls * self.drift


def test_checks_can_fail() -> None:
    assert check(nn.Sequential(Drifting(0.0)), (2, 3, 8, 8), ["0"]) == []
    assert "evaluation" in check(nn.Sequential(Drifting(1.0)), (2, 3, 8, 8), ["0"])
    assert check(nn.Sequential(Drifting(0.0)), (2, 3, 8, 8), ["1"]) == ["same modules on meta"]
    assert check(nn.Sequential(Drifting(0.0)), (2, 3, 1, 1), ["0"]) == ["output differs"]


def test_row_with_a_failed_check_says_no() -> None:
    row = Row("timm", "net", 1_000_000, (2, 3, 64, 64), {"SEModule": 2}, with_values=True, failed=["gradients"])
    assert table_row(row) == ["net", "1.0", "3 x 64 x 64", "2 SEModule", "yes", "yes", "no"]
    assert "| net | gradients |" in page([row])
