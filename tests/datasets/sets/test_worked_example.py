"""The worked example of docs/datasets.md: its class and YAML file, as they stand there, with a setting of its own."""

import re
import sys
from pathlib import Path

import pytest
from official_copies import put

DOCUMENT = Path(__file__).parents[3] / "docs" / "datasets.md"


@pytest.fixture
def example(tmp_path, monkeypatch) -> Path:
    text = DOCUMENT.read_text()
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (yaml,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "birds.py").write_text(python)
    (tmp_path / "my_conf" / "dataset").mkdir(parents=True)
    (tmp_path / "my_conf" / "dataset" / "birds.yaml").write_text(yaml)
    home = tmp_path / "data" / "birds"
    lines = ["file,species,year,part"]
    for number in range(24):
        put(home / f"{number}.jpg", number)
        lines.append(
            f"{number}.jpg,{'tit' if number % 2 else 'owl'},{1990 + number},{'test' if number % 3 else 'train'}"
        )
    (home / "birds.csv").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("birds", None)


def test_it_trains_with_its_own_setting(command_line, example) -> None:
    command = ["--config-dir", str(example / "my_conf"), "dataset=birds", f"data_root={example / 'data'}", "device=cpu"]
    command += ["backbone=resnet20", "backbone.depth=8", "recipe.epochs=1", "recipe.batch_size=2", "workers=0"]
    command += ["recipe.warmup_epochs=0", "dataset.augmentation.crop_size=32", f"output_dir={example / 'out'}"]
    outcome = command_line(*command, "dataset.own.since=1999")
    assert outcome.code == 0, outcome.err
    (run,) = (example / "out" / "runs").iterdir()
    assert run.name.startswith("birds-")
    assert '"train": 5' in (run / "results.json").read_text()  # of 8 the three before 1999 are left out
    outcome = command_line("mode=eval", f"run={run}", f"data_root={example / 'data'}", "device=cpu", "workers=0")
    assert outcome.code == 0, outcome.err  # its class is the user's own, of a known kind
    assert "test  top1" in outcome.out
    code = example / "birds.py"
    code.write_text(code.read_text().replace('names.index(row["species"])', '1 - names.index(row["species"])'))
    sys.modules.pop("birds")
    outcome = command_line(*command, "dataset.own.since=1999")  # neither the index nor the run counts any more
    assert outcome.code == 1 and "was trained on other data (training labels, test labels differ)" in outcome.err
    outcome = command_line(*command, "dataset.own.until=1999")
    assert outcome.code == 1 and "until" in outcome.err
