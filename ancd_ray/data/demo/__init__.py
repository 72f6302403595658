"""Synthetic demo archives: textured metal tiles with four kinds of defect, and a labeled base set."""
