"""A run folder: its files, its lock, its state, where it comes from, and the data that it has read."""
