"""srp-exp --help: the choices, and the settings of what is chosen, within the width of the terminal."""

import pytest


@pytest.mark.parametrize("columns", [80, 120])
def test_help_has_choices_and_settings_within_the_terminal(command_line, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    outcome = command_line("--help")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    text = " ".join(outcome.out.split())
    assert " lr_schedule cosine, one_cycle, step " in text
    assert "recipe.epochs=10 passes over the training part; [1, inf)" in text
    assert "srp.placement=corner inside the map, or around its edge: every position alike; corner | wrap" in text
    assert "optimizer.lr=${recipe.lr} peak learning rate; (0, inf)" in text
    long = [line for line in lines if len(line) > columns]
    assert all("=${" in line for line in long)  # a name and its value stay together
    assert not any(line.rstrip().endswith(("[1,", "(0,", "[0,")) for line in lines)


def test_help_is_of_the_choices_that_are_made(command_line, tmp_path) -> None:
    (tmp_path / "srp").mkdir()
    (tmp_path / "srp" / "mine.yaml").write_text("defaults: [/hydra/schema/srp/fixed@_here_, _self_]\nname: mine\n")
    outcome = command_line("--config-dir", str(tmp_path), "--help", "dataset=folder", "srp=mine", "srp.scale=0.25")
    assert outcome.code == 0, outcome.err
    assert {"dataset=${folder_name:${.root}}", "srp=mine", "  srp.scale=0.25"} <= {
        line.partition("   ")[0] for line in outcome.out.splitlines()
    }
    assert "dataset.test_fraction=0.0" in outcome.out
    assert "fixed, gap, mine," in outcome.out


def test_help_of_a_wrong_choice_is_one_line(command_line) -> None:
    outcome = command_line("--help", "srp=fixd")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.count("\n") == 1 and "did you mean fixed" in outcome.err
