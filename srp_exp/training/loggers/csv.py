"""logger=csv: curves.csv in the run folder."""

import csv
from collections.abc import Mapping
from typing import TextIO

from srp_exp.files import write_atomically
from srp_exp.training.loggers.logger import LoggedRun, Logger

FILE = "curves.csv"
_HEADER = "step,name,value\n"


class CurvesCsv(Logger):
    """A row for each value: step, name, value. `pandas.read_csv(FILE).pivot(...)` makes a column for each name."""

    def begin(self, run: LoggedRun, step: int) -> None:
        """What an earlier start wrote of later steps is dropped, as is a last line that was cut short."""
        file, kept = run.folder / FILE, ""
        if step and file.exists():
            lines = file.read_text().splitlines(keepends=True)[1:]
            kept = "".join(line for line in lines if line.endswith("\n") and int(line.partition(",")[0]) <= step)
        write_atomically(file, (_HEADER + kept).encode())
        self._file: TextIO = file.open("a", encoding="utf-8", newline="")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        csv.writer(self._file, lineterminator="\n").writerows((step, name, value) for name, value in values.items())

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
