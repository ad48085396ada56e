"""What ends a training before its last epoch: a signal, no better epoch to expect, a search that gives it up."""
