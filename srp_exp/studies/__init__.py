"""Studies: a grid of runs, and the table with its verdict that they make."""
