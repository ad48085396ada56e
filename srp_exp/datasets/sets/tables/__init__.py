"""Tables, read: their files, their splits, and what their columns hold."""
