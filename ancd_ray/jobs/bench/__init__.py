"""Reproduction of the paper's tables: their rows as jobs, compared with the published results."""
