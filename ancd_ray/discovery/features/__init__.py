"""Frozen features of regions, their calibration, and shape cues."""

FEATURES = ("masked", "centred", "top", "shape")  # columns of the table `features`
VIEW_FEATURES = ("ringed", "views")  # its columns that only methods on averaged views need
