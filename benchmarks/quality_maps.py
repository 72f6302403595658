"""What `quality.py` says of anomaly maps, and `spectral` with other ways to tell which images are normal.

Shape suffixes: I images, F figures of a score, R images that are not called normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from quality_methods import VIEWS, Method, Sample
from quality_sets import Set, read_samples

from ancd_ray.data.roles import GOOD
from ancd_ray.discovery.classifiers import REJECT
from ancd_ray.discovery.clusterings.spectral import cluster_by_diffusion, link_neighbors
from ancd_ray.discovery.features.calibration import Floats
from ancd_ray.discovery.normal_curve import NormalCurve
from ancd_ray.method.metrics import auroc

BY_LABELS = "labels:"  # rows that nobody can have without labels
Tell = Callable[[Sample], NDArray[np.bool_]]  # whether each image is normal


def _tell(figures: Sequence[int] = (0, 1), *, known: bool = True, spread: float = 0.0) -> Tell:
    """Tell normal images by some figures of their scores.

    Parameters
    ----------
    figures
        Indices of the figures: the highest value of the map, and the mean of its top.
    known
        Whether normal images are known.
    spread
        Share of the probability that comes from the images whose regions look alike: it spreads over their links.
    """

    def tell(sample: Sample) -> NDArray[np.bool_]:
        assert sample.scores
        assert sample.scores.reference_MF is not None
        figures_IF, known_MF = sample.scores.images_IF[:, figures], sample.scores.reference_MF[:, figures]
        probability_I = NormalCurve.fit(figures_IF, known_MF if known else None).predict(figures_IF)
        if spread:
            links_II = link_neighbors(_whiten(sample, np.arange(len(probability_I))))
            degree_I = links_II.sum(axis=1)
            system_II = np.eye(len(links_II)) - spread * links_II / np.sqrt(degree_I[:, None] * degree_I)
            both_I2 = np.linalg.solve(system_II, np.stack([probability_I, 1 - probability_I], axis=1))
            probability_I = both_I2[:, 0] / both_I2.sum(axis=1)
        return probability_I >= REJECT

    return tell


def _tell_below(quantile: float) -> Tell:
    """Tell normal images by a quantile of the scores of known ones."""

    def tell(sample: Sample) -> NDArray[np.bool_]:
        assert sample.scores
        assert sample.scores.reference_MF is not None
        return sample.scores.images_IF[:, 0] <= np.quantile(sample.scores.reference_MF[:, 0], quantile)

    return tell


def _discover(tell: Tell | None, *, weight: float = 0.0, labelled: bool = False) -> Method:
    """Make `spectral` on the images that are not told to be normal.

    Parameters
    ----------
    tell
        Tells normal images; None: they are a cluster.
    weight
        That of the standardized logarithm of the score beside the features, which have length 1.
    labelled
        Whether the classes of the others are their labels.
    """

    def find(sample: Sample) -> NDArray[np.int64]:
        assert sample.scores
        is_normal_I = tell(sample) if tell else np.zeros(len(sample.label_I), bool)
        cls_I, rest_R = np.zeros(len(is_normal_I), np.int64), np.flatnonzero(~is_normal_I)
        n_classes = sample.n_classes - (tell is not None)
        if labelled:
            cls_I[rest_R] = 1 + np.unique(sample.label_I[rest_R], return_inverse=True)[1]
        elif len(rest_R) > n_classes:
            features_RD = _whiten(sample, rest_R)
            logs_I = np.log(np.maximum(sample.scores.images_IF[:, 0], 1e-6))
            beside_R = weight * (logs_I[rest_R] - logs_I.mean()) / logs_I.std()
            features_RD = np.concatenate([features_RD, beside_R[:, None]], axis=1)
            cls_I[rest_R] = 1 + cluster_by_diffusion(link_neighbors(features_RD)).cut(n_classes)
            if tell is None:  # the class of the lowest scores is the normal one
                lowest = min(set(cls_I.tolist()), key=lambda k: logs_I[cls_I == k].mean())
                cls_I[cls_I == lowest] = 0
        return cls_I

    return find


def _whiten(sample: Sample, images_R: NDArray[np.int64]) -> Floats:
    some = sample.regions.take(sample.main[images_R])
    assert some.views_NV2D is not None
    return replace(some, views_NV2D=some.views_NV2D[:, VIEWS]).whitened_ND


ABLATION_OF_MAPS: dict[str, Method] = {
    "spectral": _discover(_tell()),
    "normal by the peak alone": _discover(_tell([0])),
    "normal by the top mean alone": _discover(_tell([1])),
    "no normal image known": _discover(_tell([0], known=False)),
    "normal below the highest known score": _discover(_tell_below(1.0)),
    "normal below 95 % of the known scores": _discover(_tell_below(0.95)),
    "normal spread over links, .5": _discover(_tell(spread=0.5)),
    "normal spread over links, .8": _discover(_tell(spread=0.8)),
    "score beside features, .3": _discover(_tell(), weight=0.3),
    "score beside features, .6": _discover(_tell(), weight=0.6),
    "normal is a cluster": _discover(None),
    "normal is a cluster, score beside features, .6": _discover(None, weight=0.6),
    f"{BY_LABELS} normal": _discover(lambda sample: sample.label_I == GOOD),
    f"{BY_LABELS} classes of the rest": _discover(_tell(), labelled=True),
}


def describe_maps(sets: Sequence[Set]) -> str:
    """Write the table of the maps, and of what binarization marks in images with masks."""
    figures = "image AUROC | pixel AUROC | AUPRO | median IoU | marked / drawn area | s an image"
    lines = [f"| regions | set | {figures} |", f"|---|---|{'---|' * 6}"]
    for each in sets:
        sample = next(read_samples(each, maps=True))
        assert sample.scores
        maps, regions = each.read_values("map_scores"), each.read_values("region_scores")
        values = [
            auroc(sample.label_I != GOOD, sample.scores.images_IF[:, 0]),
            *(maps["pixel_auroc"], maps["aupro"], regions["iou"][1], regions["area_ratio"][1]),
            each.seconds / len(sample.label_I),
        ]
        cells = " | ".join(f"{value:.3f}".removeprefix("0") for value in values)
        lines.append(f"| {each.settings or 'default'} | {each.name} | {cells} |")
    return "\n".join(lines)
