"""The operations of a study's trainings: from published counts of a network, and those that docs/studies.md names."""

from pathlib import Path

import pytest

from scripts.study_costs import cost_of, line

DOCUMENT = Path(__file__).parents[2] / "docs" / "studies.md"


def test_operations_are_those_of_the_network_its_epochs_and_images() -> None:
    # ResNet-20 by hand, arXiv:1512.03385, section 4.2: 3 x 3 convolutions on maps of 32, 16 and 8 pixels, ten outputs;
    # SE adds less than a hundredth.
    multiply_adds = 9 * 32**2 * (3 * 16 + 6 * 16 * 16) + 640
    for side, channels in ((16, 32), (8, 64)):
        multiply_adds += 9 * side**2 * channels * (channels // 2 + 5 * channels)
    runs, operations = cost_of("low_data")
    assert runs == 84
    assert operations == pytest.approx(84 * 6 * multiply_adds * 5_000 * 60, rel=0.01)


@pytest.mark.parametrize("name", ["demo", "low_data_small_vs_large", "diversity"])
def test_the_document_names_what_the_script_prints(name: str) -> None:
    assert line(name, 10.0) in DOCUMENT.read_text().splitlines()
