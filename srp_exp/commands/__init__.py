"""What each mode does: train, evaluate, export, compare, cost; and report, the command srp-report."""
