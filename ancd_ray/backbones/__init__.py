"""Frozen trunks: what detectors take patch features from and what the mask-guided classifier is built on."""
