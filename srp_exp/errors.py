"""Errors that a user can mend: shown in one line."""

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)
