"""Encoding: results on a user's own CT, written in the grid and the format of its files."""
