"""Put a study's report into docs/results, with the finished runs that it was made from.

    python scripts/publish_report.py study=NAME [the overrides of its grid]

Writes the report as srp-report does, and copies report.md with its forest plot to docs/results/NAME/. Of each finished
run it keeps in runs/ what a report reads, about 10 KB: no checkpoints, predictions, TensorBoard events. From these the
same srp-report gives the same bytes, and copied to outputs/runs they aren't trained again.
"""

import re
import shutil
import sys
from pathlib import Path

from srp_exp.commands.report import plan_study
from srp_exp.config.faults import describe, is_one_line
from srp_exp.config.identity import output_folder
from srp_exp.errors import UserError
from srp_exp.runs.folder import CONFIG, DATA, PROVENANCE, RESULTS
from srp_exp.runs.store import State
from srp_exp.studies.report import contents, write_report
from srp_exp.studies.results import collect

PUBLISHED = Path(__file__).parent.parent / "docs" / "results"
KEPT = (CONFIG, PROVENANCE, DATA, "metrics.jsonl", RESULTS)


def main() -> None:
    config, grid = plan_study(sys.argv[1:])
    made = contents(collect(grid, config.study))
    finished = {run.folder for *_, run in made.runs if run.state == State.finished}
    if not finished:
        raise UserError(f"study={config.study.name}: none of its runs is finished in {output_folder(config)}")
    written = output_folder(config) / "reports" / f"{config.study.name}{grid.variant}"
    write_report(made, written)
    published = PUBLISHED / config.study.name
    shutil.rmtree(published, ignore_errors=True)
    published.mkdir(parents=True)
    report = (written / "report.md").read_text()
    for name in ("report.md", *re.findall(r"^!\[.*\]\((.*)\)$", report, re.MULTILINE)):
        shutil.copyfile(written / name, published / name)
    for folder in sorted(finished):
        kept = published / "runs" / folder.name
        kept.mkdir(parents=True)
        for name in KEPT:
            shutil.copyfile(folder / name, kept / name)
    print(f"wrote {published}: {len(finished)} runs, {made.outcome}")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        if not is_one_line(error):
            raise
        sys.exit(f"publish_report: {describe(error)}")
