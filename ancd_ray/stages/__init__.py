"""Stages of a job, one module each; they exchange artifacts and do not import each other.

The modules import torch, scipy and scikit-learn inside functions, so that planning does not load them.
"""
