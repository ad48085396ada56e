"""docs/settings.md is what its script writes of the schemas and choices as they are."""

from scripts.settings_page import COMMAND, PAGE, page


def test_the_page_is_in_step() -> None:
    assert PAGE.read_text() == page(), f"docs/settings.md is stale: {COMMAND}"


def test_the_page_has_each_setting_with_range_default_and_choices() -> None:
    lines = page().splitlines()
    assert "| `recipe.epochs` | integer | [1, inf) | *required* | passes over the training part |" in lines
    assert "| `srp.scale` | number | (0, 1] | `0.5` | side of the region over the side of the map |" in lines
    scale = lines.index("| `srp.scale` | number | (0, 1] | `0.5` | side of the region over the side of the map |")
    assert lines[scale - 4] == "`fixed`:"
    assert "- `srp=fixed`: SRP with the same region scale at every depth." in lines
    assert len({line for line in lines if line.startswith("| `")}) > 150
