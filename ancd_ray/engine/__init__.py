"""Runs stages: shards, outputs, fingerprints, executors. Knows no particular stage."""
