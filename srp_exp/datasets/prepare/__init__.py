"""From archives to a checked folder, and from that to a copy of a file for each split."""
