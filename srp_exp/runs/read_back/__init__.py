"""A configuration read back from a run folder or a checkpoint file, and what it may build."""
