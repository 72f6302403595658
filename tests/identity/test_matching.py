"""Classes of a discovery matched with known ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ancd_ray.discovery.matching import match_by_prototypes, match_by_regions, measure_spread


def _regions(pairs: list[tuple[int, str | None]]) -> tuple[dict[str, int], dict[str, str]]:
    found = {f"r{i}": index for i, (index, _) in enumerate(pairs)}
    return found, {f"r{i}": own for i, (_, own) in enumerate(pairs) if own}


def test_a_permutation_keeps_ids() -> None:
    found, known = _regions([(2, "a")] * 5 + [(0, "b")] * 4 + [(1, "c")] * 3)
    assert match_by_regions(found, known, ["a", "b", "c"], 3) == {2: "a", 0: "b", 1: "c"}


def test_of_a_divided_class_the_larger_part_keeps_the_id() -> None:
    found, known = _regions([(0, "a")] * 6 + [(1, "a")] * 4)
    assert match_by_regions(found, known, ["a"], 2) == {0: "a"}


def test_of_joined_classes_the_larger_one_stays() -> None:
    found, known = _regions([(0, "a")] * 6 + [(0, "b")] * 4)
    assert match_by_regions(found, known, ["a", "b"], 1) == {0: "a"}


def test_a_few_strays_make_no_match() -> None:
    found, known = _regions([(0, "a")] * 20 + [(1, "a")] * 2 + [(1, "b")] * 30)
    assert match_by_regions(found, known, ["a"], 2) == {0: "a"}


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["a", "b", "c", None])), max_size=60))
def test_it_is_one_to_one(pairs: list[tuple[int, str | None]]) -> None:
    matched = match_by_regions(*_regions(pairs), ["a", "b", "c"], 5)
    assert len(set(matched.values())) == len(matched)


def test_prototypes_match_where_they_are_near() -> None:
    known = np.eye(3) * 10
    found = known[[2, 0]] + 0.1
    matched = match_by_prototypes(
        np.concatenate([found, [[50, 50, 50]]]), known, ["a", "b", "c"], measure_spread(known)
    )
    assert matched == {0: "c", 1: "a"}
    assert match_by_prototypes(np.full((1, 3), np.nan), known, ["a", "b", "c"], 10.0) == {}
