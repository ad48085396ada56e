"""Data sets held in memory as uint8, and their batches."""
