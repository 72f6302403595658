"""Detectors: from an image to a raw, float anomaly map. One file each; a job file names them, never an import path."""
