"""Frozen features of regions, their calibration, and shape cues."""
