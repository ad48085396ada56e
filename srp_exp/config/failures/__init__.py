"""What went wrong, in one line: whose error it is, its cause, and the nearest valid choice."""
