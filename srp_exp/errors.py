"""How a command ends before its work is done: errors that a user can mend, shown in one line, and Ctrl-C."""

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""
