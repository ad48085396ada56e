"""What a training says while it runs: console, run.log, metrics.jsonl, a profile."""
