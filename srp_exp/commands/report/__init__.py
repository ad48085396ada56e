"""srp-report: what the runs say, without running any."""
