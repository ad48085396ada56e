"""Put a study's report into docs/results, with all that it needs of its finished runs.

    python scripts/publish_report.py study=NAME [the overrides of its grid]

Writes report.md with its forest plot to docs/results/NAME/, and runs.parquet, from which `srp-report docs/results/NAME`
gives the same bytes where the runs are gone. What was published before is replaced, if it came of the same command and
none of its runs is missing now.
"""

import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from srp_exp.commands.report.command import plan_study
from srp_exp.commands.report.kept import KEPT, keep_runs, read_kept
from srp_exp.config.failures.faults import ending_in_one_line
from srp_exp.config.identity import output_folder
from srp_exp.errors import UserError
from srp_exp.studies.grid import Grid
from srp_exp.studies.reports.report import Contents, contents, write_report
from srp_exp.studies.results import StudyResults, collect

PUBLISHED = Path(__file__).parent.parent / "docs" / "results"


def finished(results: StudyResults) -> set[str]:
    """The names of the folders of the finished runs."""
    return {run.folder.name for entry in results.entries for run in entry.finished}


def refuse_to_lose(published: Path, made: Contents) -> None:
    """Raise UserError where `published` is of another grid, or of runs that aren't finished now."""
    report = published / "report.md"
    if not report.is_file():
        return
    if not all(f"    {command}\n" in report.read_text() for command in made.commands):
        raise UserError(f"{report}: is of another command (How to reproduce); give that one, or remove the folder")
    now = finished(made.results)
    lost = finished(read_kept(published / KEPT)) - now if (published / KEPT).is_file() else set()
    if lost:
        raise UserError(
            f"{published}: {len(lost)} of its runs aren't among the finished, such as {min(lost)}; finish them"
        )
    told = re.search(r"^- data: .*$", report.read_text(), re.MULTILINE)
    before = sum(map(int, re.findall(r"\((\d+) runs?\)", told[0]))) if told else 0
    if len(now) < before:
        raise UserError(f"{report}: was made from {before} runs, and {len(now)} are finished; finish the others")


def publish(published: Path, made: Contents, grid: Grid) -> None:
    """Put the report and what its runs say into the folder `published`."""
    with TemporaryDirectory() as written:
        write_report(made, Path(written))
        report = Path(written, "report.md").read_text()
        shutil.rmtree(published, ignore_errors=True)
        published.mkdir(parents=True)
        for name in ("report.md", *re.findall(r"^!\[.*\]\((.*)\)$", report, re.MULTILINE)):
            shutil.copyfile(Path(written, name), published / name)
    keep_runs(made.results, grid, published / KEPT)


def main() -> None:
    config, grid = plan_study(sys.argv[1:])
    made = contents(collect(grid, config.study))
    if not finished(made.results):
        raise UserError(f"study={config.study.name}: none of its runs is finished in {output_folder(config)}")
    published = PUBLISHED / config.study.name
    refuse_to_lose(published, made)
    publish(published, made, grid)
    print(f"wrote {published}: {len(finished(made.results))} runs, {made.outcome}")


if __name__ == "__main__":
    with ending_in_one_line("publish_report"):
        main()
