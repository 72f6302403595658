"""Names and explanations of the metrics in the report, for readers who do not know the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ancd_ray.jobs.report.model import ProductReport

NEEDS_LABELS = "needs labels"
NOT_MEASURED = "not measured"
NO_NORMAL = "does not apply: no normal class or no normal image"

# Terms of the training loss (eqs. 5 to 9) by the names that training logs.
LOSS_HINTS = {
    "total": "The weighted sum of the others: what training makes small.",
    "cls_u": "Two views of a region should be put into the same class.",
    "cls_l": "Regions of the labelled base set should get their known class.",
    "rep_u": "Two views of a region should look more alike than views of different regions.",
    "rep_s": "Base regions that share a label should look alike.",
    "reg": "Holds the classes in balance, so that not everything lands in one.",
}


@dataclass(frozen=True)
class Figure:
    """A metric on a card.

    Parameters
    ----------
    name, hint
        Name and explanation.
    missing
        Text if there is no value.
    values
        Pairs (level, value).
    """

    name: str
    hint: str
    missing: str
    values: tuple[tuple[str, float | None], ...]

    @property
    def known(self) -> bool:
        """Whether there is a value at any level."""
        return any(value is not None for _, value in self.values)


def figures_of(product: ProductReport) -> list[Figure]:
    """List all metrics of a product, those that need labels first."""
    image, region = product.image_level, product.region_level
    normal_missing = NEEDS_LABELS if image.nmi is None else NO_NORMAL

    def clustering(name: str, hint: str, key: str) -> Figure:
        return Figure(name, hint, NEEDS_LABELS, (("images", getattr(image, key)), ("regions", getattr(region, key))))

    def single(name: str, hint: str, missing: str, level: str, value: float | None) -> Figure:
        return Figure(name, hint, missing, ((level, value),))

    found = [
        clustering("NMI", "How much a class tells about the label: 0 nothing, 1 everything.", "nmi"),
        clustering("ARI", "How often pairs are rightly put together or apart: 0 by chance, 1 always.", "ari"),
        clustering("F1", "Share that is in the right class, once each class is matched with a label.", "f1"),
        single(
            "Normal precision",
            "Of the images called normal, the share that really is.",
            normal_missing,
            "images",
            product.normal_precision,
        ),
        single(
            "Normal recall",
            "Of the images that are normal, the share that was called so.",
            normal_missing,
            "images",
            product.normal_recall,
        ),
        single(
            "Silhouette",
            "How far apart the classes lie in frozen features: −1 mixed up, 0 touching, 1 well apart. Uses no labels.",
            NOT_MEASURED,
            "regions",
            product.silhouette,
        ),
        single(
            "Confidence",
            "Mean probability of the class that was chosen. Uses no labels.",
            NOT_MEASURED,
            "regions",
            product.mean_confidence,
        ),
    ]
    if losses_of(product):  # it was trained, and has heads
        hint = "How alike the classifier's parallel heads sort: 0 by chance, 1 always. Uses no labels."
        found.append(single("Head agreement", hint, NOT_MEASURED, "regions", product.head_agreement))
    return found


def sections_of(product: ProductReport) -> list[tuple[str, str]]:
    """List anchor and title of the sections that a product has."""
    parts = [
        ("figures", "Figures", True),
        ("classes", "Discovered classes", True),
        ("tree", "Tree of classes", product.tree is not None),
        ("number", "Number of classes", product.estimated is not None),
        ("confusion", "Classes against labels", product.confusion is not None),
        ("map", "Map of regions", product.token_map is not None),
        ("detector", "Detector", product.detector is not None and len(product.detector.scores.values) > 0),
        ("training", "Training", bool(losses_of(product))),
    ]
    return [(key, title) for key, title, shown in parts if shown]


def losses_of(product: ProductReport) -> list[tuple[str, Sequence[float]]]:
    """List the loss terms with values, the total first."""
    return sorted(
        ((name, values) for name, values in product.losses.items() if len(values)), key=lambda x: x[0] != "total"
    )
