"""Sweeps over settings of products; a trial is one training, and trials share their common steps."""
