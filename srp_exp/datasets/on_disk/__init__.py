"""A data set of pictures on disk: found, listed, checked and looked at once, and remembered."""
