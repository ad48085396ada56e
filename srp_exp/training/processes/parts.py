"""Whether several processes can divide the batches of one."""

from srp_exp.errors import UserError


def check_parts(batch_size: int, accumulate_steps: int, processes: int, mixes: bool) -> None:
    """Raise ValueError where N processes can't divide batches of `batch_size` as one process does."""
    own, rest = divmod(batch_size, processes)
    shares = f"recipe.batch_size={batch_size} on {processes} processes"
    if not rest and own % accumulate_steps:
        raise UserError(
            f"{shares} leaves each {own} images, which recipe.accumulate_steps={accumulate_steps} does not divide: "
            f"choose a multiple of {processes * accumulate_steps} images"
        )
    if not rest and processes > 1 and mixes and own % 2:
        raise UserError(
            f"{shares} leaves each {own} images, which mixing can't pair as one process does: choose a multiple of "
            f"{2 * processes} images, or mixing=none"
        )
