"""Publishing a report: from the runs that were kept comes what is committed, and nothing published is lost."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STUDY = ["study=mixup_quick", "dataset=parquet", "dataset.root=../shared/data/cifar10_jpeg", "speed=fast"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_committed_comes_out_again_and_no_run_is_dropped(tmp_path) -> None:
    script = tmp_path / "scripts" / "publish_report.py"  # which publishes beside the folder that it lies in
    script.parent.mkdir()
    shutil.copyfile(ROOT / "scripts" / script.name, script)
    committed, published = (root / "docs" / "results" / "mixup_quick" for root in (ROOT, tmp_path))
    shutil.copytree(committed / "runs", tmp_path / "outputs" / "runs")

    def publish(*overrides: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *STUDY, *overrides]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert publish().returncode == 0
    first, expected = contents(published), contents(committed)
    assert first.keys() == expected.keys()
    assert all(first[name] == expected[name] for name in expected if not name.endswith(".png"))

    assert "is of another command" in publish("seed=range(3)").stderr
    lost = max((tmp_path / "outputs" / "runs").iterdir())
    shutil.rmtree(lost)
    refused = publish()
    assert refused.returncode == 1
    assert f"1 of its runs aren't among the finished, such as {lost.name}" in refused.stderr
    assert contents(published) == first
    shutil.rmtree(published / "runs")  # as reports that were published before runs were kept
    runs = len(list((committed / "runs").iterdir()))
    assert f"was made from {runs} runs, and {runs - 1} are finished" in publish().stderr
    assert "none of its runs is finished" in publish("recipe.epochs=3").stderr
