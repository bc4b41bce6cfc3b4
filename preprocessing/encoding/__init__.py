"""Encoding: an image or a mask written in the grid of the CT that it was made from."""
