"""Where the curves and pictures of a run go besides its own files: one class each, chosen by logger=NAME."""
