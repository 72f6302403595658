"""Rows of the paper's tables as jobs, beside the published figures."""
