"""From archives to a checked folder, and from that to a copy in few large files."""
