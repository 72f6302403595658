"""What `quality.py` says of anomaly maps, and methods that tell normal images in other ways than the product."""

from __future__ import annotations

from collections.abc import Sequence

from quality_methods import Method
from quality_sets import Set, read_samples

from ancd_ray.data.roles import GOOD
from ancd_ray.method.metrics import auroc

ABLATION_OF_MAPS: dict[str, Method] = {}


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
