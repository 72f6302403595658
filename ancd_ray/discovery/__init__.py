"""Finds the classes of regions: features, clusterings, and the training of AnomalyNCD."""
