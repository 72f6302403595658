"""The rows of the paper's tables as overrides of a job, and the published results.

Published results are NMI, ARI and F1 with ViT-B/8 (DINO) and base set AeBAD-S: on MTD if the paper has them, else the
mean over MVTec AD. Anomaly maps are by MuSc unless stated otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

Figures = tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """A row: its name, its overrides of the job (as on the command line), and the published result."""

    name: str
    overrides: tuple[str, ...]
    published: Figures | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    `source` names the data set and the anomaly maps of the published results; `overrides` are of all rows, and come
    before those of the command line.
    """

    title: str
    source: str
    rows: tuple[Row, ...]
    overrides: tuple[str, ...] = ()


_MVTEC, _MTD = "MVTec AD, MuSc", "MTD, MuSc"
_TRAINED = ("discovery.method=anomalyncd", "train.start=random")  # as in the paper
_ONE_HEAD = ("train.heads=1",)
_SUBHEADS = ("train.heads=5", "train.head=loss", "train.batch_size=128")  # of IIC and UNO, as published

TABLES: dict[str, Table] = {
    "I": Table(
        "Methods that see normal images",
        "MTD; regions of PatchCore",
        (
            Row(
                "Anomaly Clustering",
                ("detector.name=patchcore", "discovery.method=anomaly_clustering"),
                (0.390, 0.314, 0.490),
            ),
            Row("UniFormaly", ("detector.name=patchcore", "discovery.method=uniformaly"), (0.421, 0.322, 0.609)),
            Row("AnomalyNCD", ("detector.name=patchcore", "discovery.method=anomalyncd"), (0.380, 0.390, 0.617)),
            Row("linked (ours)", ("detector.name=patchcore", "discovery.method=linked")),
            Row("spectral (ours)", ("detector.name=patchcore", "discovery.method=spectral")),
        ),
    ),
    "II": Table(
        "Methods on the same regions and the same backbone",
        "MTD, without normal images; IIC, GATCluster, SCAN, UNO, GCD, SimGCD and AMEND on whole images",
        (
            Row("masked features, k-means", ("discovery.method=kmeans",)),
            Row("masked features, Ward", ("discovery.method=ward",)),
            Row("masked features, Gaussian mixture", ("discovery.method=gmm",)),
            Row("Anomaly Clustering", ("discovery.method=anomaly_clustering",), (0.179, 0.120, 0.346)),
            Row("UniFormaly", ("discovery.method=uniformaly",)),
            Row("masked features, semi-supervised k-means", ("discovery.method=semi_kmeans",)),
            Row("IIC", ("discovery.method=iic", *_SUBHEADS), (0.064, 0.020, 0.252)),
            Row("GATCluster", ("discovery.method=gatcluster", *_ONE_HEAD), (0.028, 0.009, 0.243)),
            Row("SCAN", ("discovery.method=scan", *_ONE_HEAD), (0.041, 0.029, 0.282)),
            Row("UNO", ("discovery.method=uno", *_SUBHEADS), (0.034, 0.011, 0.221)),
            Row("GCD", ("discovery.method=gcd", "train.heads=10", "train.head=loss"), (0.211, 0.115, 0.381)),
            Row("SimGCD", ("discovery.method=simgcd", *_ONE_HEAD), (0.105, 0.048, 0.293)),
            Row("AMEND", ("discovery.method=amend", *_ONE_HEAD), (0.138, 0.067, 0.324)),
            Row("AnomalyNCD", _TRAINED, (0.268, 0.228, 0.509)),
            Row("AnomalyNCD from the classes of spectral (ours)", ("discovery.method=anomalyncd",)),
            Row("linked (ours)", ("discovery.method=linked",)),
            Row("spectral (ours)", ("discovery.method=spectral",)),
        ),
    ),
    "III": Table(
        "Binarization",
        _MVTEC,
        (
            Row("ε = 0.1", ("mebin.binarize=fixed", "mebin.threshold=0.1"), (0.554, 0.482, 0.650)),
            Row("ε = 0.3", ("mebin.binarize=fixed", "mebin.threshold=0.3"), (0.499, 0.404, 0.587)),
            Row("ε = 0.5", ("mebin.binarize=fixed", "mebin.threshold=0.5"), (0.567, 0.458, 0.640)),
            Row("ε = 0.7", ("mebin.binarize=fixed", "mebin.threshold=0.7"), (0.495, 0.395, 0.623)),
            Row("ε = 0.9", ("mebin.binarize=fixed", "mebin.threshold=0.9"), (0.077, 0.013, 0.337)),
            Row("Otsu", ("mebin.binarize=otsu",), (0.382, 0.268, 0.499)),
            Row("MEBin", ("mebin.binarize=mebin",), (0.613, 0.526, 0.712)),
        ),
        _TRAINED,
    ),
    "IV": Table(
        "Mask of the attention",
        _MVTEC,
        (
            Row("none", ("backbone.mask=none",), (0.598, 0.494, 0.698)),
            Row("all tokens", ("backbone.mask=all",), (0.507, 0.382, 0.600)),
            Row("patch tokens", ("backbone.mask=patch",), (0.563, 0.467, 0.686)),
            Row("class token", ("backbone.mask=class",), (0.613, 0.526, 0.712)),
        ),
        _TRAINED,
    ),
    "V": Table(
        "Mask-guided blocks L_m",
        _MTD,
        (
            Row("1", ("backbone.mask_layers=1",), (0.191, 0.157, 0.420)),
            Row("3", ("backbone.mask_layers=3",), (0.209, 0.173, 0.436)),
            Row("6", ("backbone.mask_layers=6",), (0.253, 0.214, 0.492)),
            Row("9", ("backbone.mask_layers=9",), (0.268, 0.228, 0.509)),
            Row("12", ("backbone.mask_layers=12",), (0.249, 0.213, 0.492)),
        ),
        _TRAINED,
    ),
    "VI": Table(
        "Crop or whole image",
        "MTD, PatchCore",
        (
            Row("whole image", ("mebin.crop=image",), (0.142, 0.166, 0.432)),
            Row("crops", ("mebin.crop=regions",), (0.380, 0.390, 0.617)),
        ),
        _TRAINED,
    ),
    "VII": Table(
        "Merging",
        _MTD,
        (
            Row("average", ("merge.rule=average",), (0.257, 0.223, 0.501)),
            Row("by score", ("merge.rule=score",), (0.228, 0.208, 0.485)),
            Row("proportional to area", ("merge.rule=area",)),
            Row("eq. 10", ("merge.rule=paper",), (0.268, 0.228, 0.509)),
        ),
        _TRAINED,
    ),
    "VIII": Table(
        "Correction of pseudo labels",
        _MVTEC,
        (
            Row("without", ("train.correction=false",), (0.597, 0.517, 0.714)),
            Row("with", ("train.correction=true",), (0.613, 0.526, 0.712)),
        ),
        _TRAINED,
    ),
    "IX": Table(
        "Base set",
        _MTD,
        (
            Row("without", ("data.base=null",), (0.227, 0.202, 0.485)),
            Row("with", (), (0.268, 0.228, 0.509)),
        ),
        _TRAINED,
    ),
    "X": Table(
        "Ground-truth masks",
        "MTD",
        (
            Row(
                "Anomaly Clustering",
                ("detector={name: ground_truth}", "discovery.method=anomaly_clustering"),
                (0.467, 0.359, 0.482),
            ),
            Row("AnomalyNCD", ("detector={name: ground_truth}", *_TRAINED), (0.829, 0.863, 0.841)),
            Row("linked (ours)", ("detector={name: ground_truth}", "discovery.method=linked")),
            Row("spectral (ours)", ("detector={name: ground_truth}", "discovery.method=spectral")),
        ),
    ),
}
