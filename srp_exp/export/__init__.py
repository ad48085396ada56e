"""Export of a trained network for use without srp_exp."""

from srp_exp.export.checked import check_possible, export
from srp_exp.export.network import Network

__all__ = ["Network", "check_possible", "export"]
