"""srp_exp: Stochastic Region Pooling for channel attention.

The library, which needs torch alone:

    from srp_exp import apply_srp
    apply_srp(timm.create_model("seresnet50"))

a trained network, ready to use:

    run = srp_exp.load_run("outputs/runs/RUN")

and the experiments around it: `srp-exp --help`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srp_exp.runs.load import load_run
    from srp_exp.srp import Cosine, Fixed, Linear, SrpRecord, Stages, apply_srp, remove_srp

__all__ = ["Cosine", "Fixed", "Linear", "SrpRecord", "Stages", "apply_srp", "load_run", "remove_srp"]


def __getattr__(name: str) -> Any:
    """Import the library on first use: the command line needs no torch to compose a configuration."""
    if name == "load_run":
        from srp_exp.runs.load import load_run

        return load_run
    if name in __all__:
        from srp_exp import srp

        return getattr(srp, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
