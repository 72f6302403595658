"""The plane that tokens are drawn on, and what the figures hold."""

from __future__ import annotations

import numpy as np
import pytest

from ancd_ray.jobs.report import TokenMap, embedding_2d
from ancd_ray.jobs.report.figures import _principal_components, class_colour, loss_curve, token_map


def groups(sizes: tuple[int, ...], dim: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Well separated groups of tokens, and the group of each."""
    rng = np.random.default_rng(0)
    cls = np.repeat(np.arange(len(sizes)), sizes)
    return rng.standard_normal((len(cls), dim)) + 12 * np.eye(len(sizes), dim)[cls], cls


@pytest.mark.parametrize("n", [0, 1, 2, 9, 10, 60])
@pytest.mark.parametrize("dim", [1, 2, 80])
def test_any_number_of_tokens_has_a_place(n: int, dim: int) -> None:
    xy = embedding_2d(np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32))
    assert xy.shape == (n, 2)
    assert np.isfinite(xy).all()


def test_few_tokens_keep_their_distances() -> None:
    tokens = np.array([[0.0, 0, 1], [3, 0, 1], [0, 4, 1]])
    xy = embedding_2d(tokens)
    assert np.hypot(*(xy[1] - xy[2])) == pytest.approx(5)
    assert np.hypot(*(xy[0] - xy[1])) == pytest.approx(3)


def test_groups_stay_apart_and_the_plane_is_the_same_every_time() -> None:
    tokens, cls = groups((40, 40, 40))
    xy = embedding_2d(tokens, seed=3)
    np.testing.assert_array_equal(xy, embedding_2d(tokens, seed=3))
    centres = np.stack([xy[cls == k].mean(0) for k in range(3)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, cls)


def test_equal_tokens_fall_on_one_point() -> None:
    assert not embedding_2d(np.ones((50, 8))).any()


@pytest.mark.parametrize(("n", "dim"), [(12, 40), (40, 12), (12, 12)])
def test_components_are_those_of_the_singular_values(n: int, dim: int) -> None:
    """Of few tokens they come from the matrix of their products, of many from that of the features."""
    tokens = np.random.default_rng(0).standard_normal((n, dim)) * np.linspace(1, 5, dim)
    left, values, _ = np.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
    found = _principal_components(tokens, 50)
    assert found.shape == (n, min(50, dim))
    kept = min(n - 1, dim)
    np.testing.assert_allclose(np.abs(found[:, :kept]), np.abs(left * values)[:, :kept], atol=1e-9)
    np.testing.assert_allclose(found[:, kept:], 0, atol=1e-6)


def test_more_tokens_than_a_map_holds_are_placed_by_pca() -> None:
    tokens = np.zeros((3001, 5))
    tokens[:, 3] = np.linspace(-1, 1, 3001)
    xy = embedding_2d(tokens)
    np.testing.assert_allclose(np.abs(xy[:, 0]), np.abs(tokens[:, 3]), atol=1e-12)


def tokens(n: int, classes: int, labels: list[str | None] | None = None) -> TokenMap:
    cls = np.arange(n) % classes
    return TokenMap(np.random.default_rng(0).random((n, 2)), cls, [f"<{i}>&\n.9" for i in range(n)], labels)


def test_a_map_has_a_trace_a_class_in_its_colour() -> None:
    traces = token_map(tokens(30, 3), {0: "normal", 1: 'a<b>"{x}'}).data
    assert [t.name for t in traces] == ["normal", 'a&lt;b&gt;"{x}', "class 2"]
    assert [t.marker.color for t in traces] == [class_colour(i) for i in range(3)]
    assert traces[0].text[0] == "&lt;0&gt;&amp;<br>.9"
    assert "{x}" not in traces[1].hovertemplate  # Plotly would look for a variable of that name
    assert all(t.visible and t.showlegend for t in traces)


def test_a_map_can_be_coloured_by_label_too() -> None:
    traces = token_map(tokens(4, 2, ["crack", None, "crack", "hole"]), {}).data
    by_label = [t for t in traces if t.meta == "label"]
    assert [(t.name, len(t.x), t.visible) for t in by_label] == [
        ("crack", 2, False),
        ("hole", 1, False),
        ("no label", 1, False),
    ]


@pytest.mark.parametrize(("n", "drawn"), [(1, 1), (100, 100), (101, 100), (5000, 100)])
def test_a_map_draws_a_limited_number_of_tokens(n: int, drawn: int) -> None:
    traces = token_map(tokens(n, 2), {}, max_points=100).data
    assert sum(len(t.x) for t in traces) == drawn


def test_two_hundred_classes_have_no_legend_and_their_own_colours() -> None:
    traces = token_map(tokens(400, 200), {}).data
    assert not any(t.showlegend for t in traces)
    assert len({t.marker.color for t in traces}) == 200


def test_a_loss_runs_over_epochs_from_one() -> None:
    (curve,) = loss_curve("total", [3.0, 2.0]).data
    assert list(curve.x) == [1, 2]
    assert list(curve.y) == [3.0, 2.0]
    assert loss_curve("total", [3.0]).data[0].mode == "markers"  # a line of one point would not be seen
