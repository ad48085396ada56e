"""Typed schemas of everything in conf/, with the default, the range and the meaning of each setting."""
