"""Whole jobs: plan, run, report, tracking, sweeps, benchmarks, submission to clusters."""
