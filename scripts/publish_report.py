"""Put a study's report into docs/results, with the finished runs that it was made from.

    python scripts/publish_report.py study=NAME [the overrides of its grid]

Copies report.md with its forest plot, as srp-report writes them, to docs/results/NAME/. Of each finished run it keeps
in runs/ what a report reads, about 10 KB: no checkpoints, predictions, TensorBoard events. From these srp-report gives
the same bytes, and copied to outputs/runs they aren't trained again. What was published before is replaced, if it came
of the same command and none of its runs is missing now.
"""

import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from srp_exp.commands.report import plan_study
from srp_exp.config.faults import ending_in_one_line
from srp_exp.config.identity import output_folder
from srp_exp.errors import UserError
from srp_exp.runs.folder import CONFIG, DATA, EVALUATION, PROVENANCE, RESULTS
from srp_exp.runs.store import Run
from srp_exp.studies.report import Contents, contents, write_report
from srp_exp.studies.results import collect

PUBLISHED = Path(__file__).parent.parent / "docs" / "results"
KEPT = (CONFIG, PROVENANCE, DATA, "metrics.jsonl", RESULTS, f"{EVALUATION}/*.json")


def refuse_to_lose(published: Path, made: Contents, finished: list[Run]) -> None:
    """Raise UserError where `published` is of another grid, or of more runs, or of some that aren't `finished` now."""
    report = published / "report.md"
    if report.is_file() and not all(f"    {command}\n" in report.read_text() for command in made.commands):
        raise UserError(f"{report}: is of another command (How to reproduce); give that one, or remove the folder")
    lost = {folder.name for folder in published.glob("runs/*")} - {run.folder.name for run in finished}
    if lost:
        raise UserError(
            f"{published}: {len(lost)} of its runs aren't among the finished, such as {min(lost)}; copy what is in "
            f"{published / 'runs'} to outputs/runs"
        )
    told = re.search(r"^- data: .*$", report.read_text(), re.MULTILINE) if report.is_file() else None
    before = sum(map(int, re.findall(r"\((\d+) runs?\)", told[0]))) if told else 0
    if len(finished) < before:
        raise UserError(f"{report}: was made from {before} runs, and {len(finished)} are finished; finish the others")


def publish(published: Path, made: Contents, finished: list[Run]) -> None:
    """Put the report and what `finished` runs say into the folder `published`."""
    with TemporaryDirectory() as written:
        write_report(made, Path(written))
        report = Path(written, "report.md").read_text()
        shutil.rmtree(published, ignore_errors=True)
        published.mkdir(parents=True)
        for name in ("report.md", *re.findall(r"^!\[.*\]\((.*)\)$", report, re.MULTILINE)):
            shutil.copyfile(Path(written, name), published / name)
    for run in finished:
        for file in (file for pattern in KEPT for file in run.folder.glob(pattern)):
            kept = published / "runs" / run.folder.name / file.relative_to(run.folder)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, kept)


def main() -> None:
    config, grid = plan_study(sys.argv[1:])
    made = contents(collect(grid, config.study))
    runs = {run.folder: run for *_, run in made.runs if run.is_finished}
    if not runs:
        raise UserError(f"study={config.study.name}: none of its runs is finished in {output_folder(config)}")
    published, finished = PUBLISHED / config.study.name, list(runs.values())
    refuse_to_lose(published, made, finished)
    publish(published, made, finished)
    print(f"wrote {published}: {len(finished)} runs, {made.outcome}")


if __name__ == "__main__":
    with ending_in_one_line("publish_report"):
        main()
