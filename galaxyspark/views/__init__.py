"""Pixels: one image in, its 16 views out. Nothing here knows of Spark or torch."""
