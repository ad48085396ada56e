"""A run: its folder and lock, where it comes from, its objects, and the way from its configuration to its results."""
