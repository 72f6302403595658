"""A realistic run, built from demo images: what the tests render and look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

import cv2
import numpy as np

from ancd_ray.data.demo.defects import TILE_KINDS
from ancd_ray.data.demo.generate import draw
from ancd_ray.jobs.report import (
    ClassReport,
    ClusterScores,
    Confusion,
    Counts,
    DetectorReport,
    GalleryItem,
    ImageScores,
    ProductReport,
    RunReport,
    StageTime,
    TokenMap,
    UsualScores,
    WorstImage,
    embedding_2d,
    group_quarantine,
)

KINDS = ("good", *TILE_KINDS)
EPOCHS = 50
CONFIG = """\
name: quickstart
data:
  products:
    - {name: tile, layout: mvtec, path: demo/tile}
train: {epochs: 50, lambda: 0.3}
"""


def png(image: np.ndarray) -> bytes:
    """The image as the bytes of a PNG file."""
    return cv2.imencode(".png", image)[1].tobytes()


def region(kind: str, index: int, confidence: float, uri: str | None = None) -> GalleryItem:
    """A square crop around the defect of a demo image."""
    sample = draw("tile", "test", kind, index)
    size = len(sample.mask)
    rows, columns = np.nonzero(sample.mask) if sample.mask.any() else np.mgrid[64:192, 64:192].reshape(2, -1)
    side = min(size, round(1.2 * max(np.ptp(rows), np.ptp(columns)) + 20))
    y, x = (int(np.clip((c.min() + c.max() - side) // 2, 0, size - side)) for c in (rows, columns))
    crop = np.s_[y : y + side, x : x + side]
    uri = uri or f"/archive/tile/test/{kind}/{index:03d}.png"
    box = (x, y, x + side, y + side)
    return GalleryItem(png(sample.image[crop]), png(sample.mask[crop]), confidence, uri, kind, box)


def worst(kind: str, index: int, score: float) -> WorstImage:
    """A demo image in which something else than its defect was marked."""
    sample = draw("tile", "test", kind, index)
    found = np.roll(sample.mask, 30, axis=1) if sample.mask.any() else sample.mask.copy()
    found[100:130, 60:90] = 255
    drawn = png(sample.mask) if sample.mask.any() else None
    return WorstImage(png(sample.image), png(found), drawn, score, f"/archive/tile/test/{kind}/{index:03d}.png", kind)


def detected(scores: np.ndarray, anomalous: np.ndarray) -> DetectorReport:
    """What labels and masks say about a detector that has normal images to compare with."""
    fpr = np.linspace(0, 0.3, 40)
    return DetectorReport(
        scores=ImageScores(scores, anomalous),
        usual=UsualScores(np.random.default_rng(2).normal(0.3, 0.06, 64), are_normal=True),
        image_auroc=0.987,
        pixel_auroc=0.961,
        aupro=0.874,
        pro_curve=(fpr.tolist(), (1 - np.exp(-30 * fpr)).tolist()),
        compared=84,
        iou=(0.31, 0.45, 0.62),
        area_ratio=(1.1, 1.6, 2.4),
        missed=[worst(kind, i, 0.31 + 0.02 * i) for i, kind in enumerate(KINDS[1:])],
        alarms=[worst("good", i, 0.44 - 0.02 * i) for i in range(3)],
    )


def discovered(index: int, kind: str, regions: int = 24) -> ClassReport:
    """A class of one kind of defect, with a stray member among its least certain regions."""
    sure = [region(kind, i, 0.99 - 0.01 * i) for i in range(min(regions, 8))]
    other = KINDS[(KINDS.index(kind) + 1) % len(KINDS)]
    unsure = [region(other if i == 0 else kind, 20 + i, 0.31 + 0.06 * i) for i in range(min(regions - len(sure), 4))]
    name = "normal" if index == 0 else f"class {index}"
    return ClassReport(index, name, f"tile-c{index:04d}", regions - 3, regions, kind, 0.93, sure, unsure)


def losses() -> dict[str, list[float]]:
    """Curves that fall as in a run that went well."""
    rng, t = np.random.default_rng(0), np.arange(EPOCHS)
    spans = {"rep_u": (3.6, 2.9), "rep_s": (3.1, 1.2), "cls_u": (2.2, 0.7), "cls_l": (1.5, 0.2), "reg": (0.3, 0.05)}
    curves = {
        name: (end + (start - end) * np.exp(-t / 12) + 0.01 * rng.standard_normal(EPOCHS)).tolist()
        for name, (start, end) in spans.items()
    }
    return {**curves, "total": np.sum(list(curves.values()), axis=0).tolist()}


def labelled_product(name: str = "tile", members: Sequence[int] = (41, 30, 24, 19, 11, 0)) -> ProductReport:
    """Five classes that have members, one that has none, and labels for all images."""
    rng = np.random.default_rng(1)
    cls = np.repeat(np.arange(len(members)), members)
    tokens = rng.standard_normal((len(cls), 32)) + 3 * rng.standard_normal((len(members), 32))[cls]
    true = np.where(rng.random(len(cls)) < 0.9, cls, rng.integers(0, 5, len(cls)))
    matrix = np.zeros((5, 5), int)
    np.add.at(matrix, (true, cls), 1)
    anomalous = cls > 0
    classes = [discovered(i, KINDS[i], n) for i, n in enumerate(members) if n]
    return ProductReport(
        name=name,
        image_level=ClusterScores(112, 0.8123, 0.7456, 0.8912),
        region_level=ClusterScores(len(cls), 0.7811, 0.7012, 0.8604),
        classes=[*classes, ClassReport(5, "class 5", "tile-c0005", 0, 0)],
        detector=detected(rng.normal(0.3, 0.06, len(cls)) + 0.3 * anomalous, anomalous),
        normal_precision=0.912,
        normal_recall=0.875,
        silhouette=0.412,
        mean_confidence=0.874,
        head_agreement=0.935,
        losses=losses(),
        confusion=Confusion(matrix, list(KINDS), [c.name for c in classes]),
        token_map=TokenMap(embedding_2d(tokens), cls, [f"{i:03d}.png · 0.91" for i in cls], [KINDS[i] for i in true]),
    )


def without_labels(product: ProductReport, name: str) -> ProductReport:
    """The same product as nobody has labelled it."""
    assert product.token_map is not None
    assert product.detector is not None
    return replace(
        product,
        name=name,
        image_level=ClusterScores(product.image_level.n),
        region_level=ClusterScores(product.region_level.n),
        classes=[
            replace(
                cls,
                majority_label=None,
                purity=None,
                most_certain=[replace(item, label=None) for item in cls.most_certain],
                least_certain=[replace(item, label=None) for item in cls.least_certain],
            )
            for cls in product.classes
        ],
        detector=DetectorReport(ImageScores(product.detector.scores.values), product.detector.usual),
        normal_precision=None,
        normal_recall=None,
        confusion=None,
        token_map=replace(product.token_map, labels=None),
    )


def run_of(*products: ProductReport) -> RunReport:
    """A run over the products, with two reasons in its quarantine."""
    names = ("catalog", "detect", "regions", "train", "classify", "merge", "evaluate")
    seconds = (0.8, 41.2, 3.1, 95.6, 2.2, 0.3, 0.4)
    stages = [
        StageTime(name, product.name, cached=i < 2, seconds=s, rows=125)
        for product in products
        for i, (name, s) in enumerate(zip(names, seconds, strict=True))
    ]
    broken = [(f"/archive/tile/test/hole/{i:03d}.png", "catalog", "the file is cut short") for i in range(30)]
    return RunReport(
        job="quickstart",
        created_at=datetime(2026, 3, 4, 5, 6, tzinfo=timezone.utc),
        version="0.1.0",
        libraries={"torch": "2.12.0", "ray": "2.60.0"},
        config=CONFIG,
        counts=Counts(images=1234, regions=1871, quarantined=31, base_regions=75),
        stages=stages,
        quarantine=group_quarantine([*broken, ("/archive/huge.png", "catalog", "40,000 × 40,000 pixels")]),
        products=products,
    )
