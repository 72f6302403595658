"""Frozen features of regions, and what makes them comparable."""
