"""Training: optimizer and schedules, the step, the loop, checkpoints, logs."""
