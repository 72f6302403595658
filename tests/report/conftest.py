"""Fixtures of the report's tests."""

from __future__ import annotations

import pytest
from sample_report import labelled_product

from ancd_ray.jobs.report import ProductReport


@pytest.fixture(scope="session")
def tile() -> ProductReport:
    """A product with labels, of five classes that have members and one that has none."""
    return labelled_product()
