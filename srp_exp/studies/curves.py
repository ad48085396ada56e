"""The curves of a grid under names that a person knows: method, what it was run with, seed."""

import os
import re
from contextlib import suppress
from pathlib import Path

from srp_exp.studies.grid import Grid


def name_curves(grid: Grid, folder: Path) -> bool:
    """Let `folder` have a link to each run folder of `grid`, named by the run's label, so that TensorBoard shows that.

    Links of an earlier grid there are removed. Returns whether all could be made; some file systems have none.
    """
    wanted = {re.sub(r"[^\w.,=+ -]", "_", planned.label): planned.run.folder for planned in grid.runs}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            if entry.is_symlink() and entry.name not in wanted:
                entry.unlink(missing_ok=True)
        for name, run in wanted.items():
            target = Path(os.path.relpath(run, folder))
            if (folder / name).is_symlink() and (folder / name).readlink() == target:
                continue
            (folder / name).unlink(missing_ok=True)
            with suppress(FileExistsError):  # of the same command, started twice
                (folder / name).symlink_to(target, target_is_directory=True)
    except OSError:
        return False
    return True
