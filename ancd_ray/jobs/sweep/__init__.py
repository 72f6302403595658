"""Sweeps: settings tried on products; a trial is one training, and what trials have in common is done once."""
