"""Execution of stages: shards, outputs, fingerprints. Does not depend on particular stages."""
