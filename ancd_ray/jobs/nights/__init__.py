"""Nights: what a job of `mode: classify` has found that is new, whether it is usual, and whom to tell."""
