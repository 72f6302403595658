"""Arrow schemas of all tables, and `conform`, which checks rows before they are written.

Stages exchange data only through tables and files. The schemas use plain Arrow types, so that the tables can be read
with `pyarrow.dataset` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ancd_ray.data.listed import TableRows

SCHEMA_VERSION = 1

_FLOATS = pa.list_(pa.field("element", pa.float32()))  # Parquet's name for the elements of a list
_INTS = pa.list_(pa.field("element", pa.int32()))

_ID = [
    pa.field("image_id", pa.string(), nullable=False),
    pa.field("product", pa.string(), nullable=False),
]


_MASK = [
    pa.field("mask_uris", pa.list_(pa.field("element", pa.string()))),  # files that are united
    pa.field("mask_shapes", pa.string()),  # annotation, see `data/shapes.py`
    pa.field("mask_threshold", pa.int32()),  # values above it are foreground; null: see `images.decode_mask`
]


def _schema(name: str, fields: Sequence[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"table": name, "schema_version": str(SCHEMA_VERSION)})


LISTING = _schema(
    "listing",
    [  # an image file in the listing of a layout, not opened yet
        *_ID,
        pa.field("uri", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # query | normal | base
        pa.field("label", pa.string()),
        *_MASK,
        pa.field("map_uri", pa.string()),  # a precomputed anomaly map
        pa.field("captured_at", pa.string()),
        pa.field("problem", pa.string()),  # known from the listing alone: two files with one stem, no such file
    ],
)

IMAGES = _schema(
    "images",
    [  # a readable image of the archive
        *_ID,
        pa.field("uri", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        *_MASK,
        pa.field("map_uri", pa.string()),
        pa.field("captured_at", pa.string()),
        pa.field("width", pa.int32(), nullable=False),  # pixels
        pa.field("height", pa.int32(), nullable=False),
        pa.field(
            "orientation", pa.int32(), nullable=False
        ),  # EXIF tag; width and height are those of the upright image
        pa.field("digest", pa.string(), nullable=False),  # sha256 of the file
    ],
)

MAPS = _schema(
    "maps",
    [  # an anomaly map, row-major, at the detector's working resolution
        *_ID,
        pa.field("score", pa.float32(), nullable=False),  # max of the map before rounding
        pa.field("top_mean", pa.float32(), nullable=False),  # mean of its highest 5 %
        pa.field("map", pa.binary(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),  # float16 | uint8
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
    ],
)

REFERENCE_MAPS = _schema("reference_maps", [*MAPS, pa.field("part", pa.int32(), nullable=False)])  # of the detector

NORMAL_SCORES = _schema(
    "normal_scores",
    [  # scores of normal images, each by a detector that has not learned from it (leave-one-out)
        *_ID,
        pa.field("score", pa.float32(), nullable=False),
        pa.field("top_mean", pa.float32(), nullable=False),
    ],
)

PATCHES = _schema(
    "patches",
    [  # features of patches of an image at one size, row-major float16
        *_ID,
        pa.field("part", pa.int32(), nullable=False),  # of the detector
        pa.field("image_size", pa.int32(), nullable=False),
        pa.field("neighborhood", pa.int32(), nullable=False),  # side of the square of patches that was averaged
        pa.field("dim", pa.int32(), nullable=False),
        pa.field("features", pa.large_binary(), nullable=False),
    ],
)

REGION_MASKS = _schema(
    "region_masks",
    [  # the binarized map of an image that has a label or a mask
        *_ID,
        pa.field("mask", pa.binary(), nullable=False),  # PNG, 0 or 255, of the size of the map
    ],
)

REGION_OVERLAPS = _schema(
    "region_overlaps",
    [  # how the binarized map of an image compares with its mask
        *_ID,
        pa.field("iou", pa.float64(), nullable=False),
        pa.field("area_ratio", pa.float64(), nullable=False),  # of the binarized map to the mask
    ],
)

WORST_IMAGES = _schema(
    "worst_images",
    [  # a labelled image whose score says the contrary: the lowest of defects, the highest of good ones
        *_ID,
        pa.field("uri", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # PNG, square, at most 256 px
        pa.field("found", pa.binary(), nullable=False),  # PNG of the same size: the binarized map
        pa.field("drawn", pa.binary()),  # PNG of the same size: the mask; null if there is none
    ],
)

_DOUBLES = pa.list_(pa.field("element", pa.float64()))
MAP_CURVES = _schema(
    "map_curves",
    [  # histograms of the maps of a shard, see `method.metrics.MapCurve`
        pa.field("lo", pa.float64(), nullable=False),
        pa.field("hi", pa.float64(), nullable=False),
        pa.field("normal", _DOUBLES, nullable=False),
        pa.field("anomalous", _DOUBLES, nullable=False),
        pa.field("overlap", _DOUBLES, nullable=False),
        pa.field("components", pa.int64(), nullable=False),
        pa.field("compared", pa.int64(), nullable=False),  # maps
    ],
)

REGIONS = _schema(
    "regions",
    [  # a sub-image around one anomalous region
        pa.field("region_id", pa.string(), nullable=False),
        *_ID,
        pa.field("role", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("x0", pa.int32(), nullable=False),  # box in pixels of the original, right and bottom exclusive;
        pa.field("y0", pa.int32(), nullable=False),  # it may reach beyond the image by a pixel (padded black)
        pa.field("x1", pa.int32(), nullable=False),
        pa.field("y1", pa.int32(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),  # anomalous pixels of the original in the box
        pa.field("score", pa.float32(), nullable=False),  # max of the normalised map in the box, 0..1
        pa.field("image", pa.binary(), nullable=False),  # PNG, square, RGB, side at most 256 px
        pa.field("mask", pa.binary(), nullable=False),  # PNG, same side, 0 / 255
    ],
)

_VIEW = [  # output of the frozen trunk for a view of a region: the class token, and the tokens visible to it
    pa.field("region_id", pa.string(), nullable=False),
    pa.field("product", pa.string(), nullable=False),
    pa.field("role", pa.string(), nullable=False),
    pa.field("label", pa.string()),
    pa.field("score", pa.float32(), nullable=False),
    pa.field("view", pa.int32(), nullable=False),
    pa.field("cls", pa.large_binary(), nullable=False),  # float16, (D,)
    pa.field("tokens", pa.large_binary(), nullable=False),  # float16, (L, D), row-major
]
VIEWS = _schema("views", _VIEW)  # augmented views, for training
CLEAN_VIEWS = _schema("clean_views", _VIEW)  # one view per region, for classification

FEATURES = _schema(
    "features",
    [  # frozen features of a region's clean view, for clustering
        pa.field("region_id", pa.string(), nullable=False),
        *_ID,
        pa.field("role", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("masked", _FLOATS, nullable=False),  # mean of the patch tokens, weighted by their shares of the mask
        pa.field("centred", _FLOATS, nullable=False),  # the same for the view without its mean color
        pa.field("top", _FLOATS, nullable=False),  # mean of the tenth of the patches with most of the mask
        pa.field("shape", _FLOATS, nullable=False),  # see `discovery.features.shape.CUES`
        # Only for methods on averaged views: `masked` less its ring, without mean color; and, of regions that may be
        # clustered, the averages of each fixed view in float16 (views, 2, D), inside the mask and in the ring.
        pa.field("ringed", _FLOATS),
        pa.field("views", pa.binary()),
    ],
)

_NOVELTY = [
    pa.field("novelty", pa.float32(), nullable=False),  # share of known regions that are nearer to others, 0..1
    pa.field("is_unknown", pa.bool_(), nullable=False),  # probably of no known class
]
REGION_PREDICTIONS = _schema(
    "region_predictions",
    [
        pa.field("region_id", pa.string(), nullable=False),
        *_ID,
        pa.field("label", pa.string()),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        # novel classes only; class 0 is "normal" if there is one
        pa.field("probs", _FLOATS, nullable=False),
        pa.field("embedding", _FLOATS, nullable=False),  # class token
        pa.field("head_cls", _INTS, nullable=False),  # class by each head
        pa.field("cls", pa.int32(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        *_NOVELTY,
        pa.field("frozen", _FLOATS),  # frozen features of an unknown region, of which new classes are made; else null
    ],
)

IMAGE_PREDICTIONS = _schema(
    "image_predictions",
    [
        *_ID,
        pa.field("uri", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("probs", _FLOATS, nullable=False),
        pa.field("cls", pa.int32(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        pa.field("is_normal", pa.bool_(), nullable=False),
        pa.field("n_regions", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # highest score of its regions
        *_NOVELTY,  # of the region that weighs most
        pa.field("brightness", pa.float32()),  # mean gray level, 0..255; null unless classified in one pass
    ],
)

QUARANTINE = _schema(
    "quarantine",
    [  # an input that could not be used
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("product", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # one line
    ],
)

RUNS = _schema(
    "runs",
    [  # what a finished job of `mode: classify` did with a product; one row for each run folder and product
        pa.field("product", pa.string(), nullable=False),
        pa.field("run", pa.string(), nullable=False),  # name of the run folder
        pa.field("job", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),  # digest
        pa.field("images", pa.int64(), nullable=False),  # of the archive then: new and known
        pa.field("new", pa.int64(), nullable=False),  # seen for the first time, or changed, since the row before
        pa.field("known", pa.int64(), nullable=False),
        pa.field("deleted", pa.int64(), nullable=False),  # of earlier listings, no longer there
        pa.field("quarantined", pa.int64(), nullable=False),  # of `images`
        pa.field("partitions", pa.int64(), nullable=False),  # of the product then
        pa.field("started_at", pa.timestamp("us", "UTC"), nullable=False),  # by the clock of that machine
        pa.field("finished_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),  # of the whole job, which may have other products
        pa.field("version", pa.string(), nullable=False),  # of ancd-ray
    ],
)

CLASSES = _schema(
    "classes",
    [  # a class of a product, which outlives the models that find it
        pa.field("id", pa.string(), nullable=False),
        pa.field("product", pa.string(), nullable=False),
        pa.field("name", pa.string()),  # null: nobody has named it
        pa.field("status", pa.string(), nullable=False),  # active | candidate | merged | ignored
        pa.field("merged_into", pa.string()),  # id
        pa.field("prototype", _FLOATS),  # mean frozen features of its regions; null if it has none
        pa.field("space", pa.string()),  # of the prototype; those of one space can be compared
        pa.field("exemplars", pa.list_(pa.field("element", pa.string())), nullable=False),  # regions nearest to it
        pa.field("images", pa.int64(), nullable=False),  # of the discovery that found it last
        pa.field("regions", pa.int64(), nullable=False),
        pa.field("since", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("changed_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("changed_by", pa.string(), nullable=False),  # a person, or the job
    ],
)

CLASS_MEMBERS = _schema(
    "class_members",
    [  # the class of a region by the last discovery that looked at it, or by a person
        pa.field("region_id", pa.string(), nullable=False),
        pa.field("product", pa.string(), nullable=False),
        pa.field("class_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # discovery | person | pool
        pa.field("frozen", _FLOATS),  # frozen features of a region of the pool of unknown ones; else null
        pa.field("space", pa.string()),  # of these features
        pa.field("changed_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("changed_by", pa.string(), nullable=False),
    ],
)

METRICS = _schema(
    "metrics",
    [
        pa.field("product", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),  # region | image | pixel
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64()),  # null where it does not exist (no labels)
    ],
)


def sweep_schema(settings: Mapping[str, pa.DataType]) -> pa.Schema:
    """Make the schema of a sweep's results: a row per product and settings, with the types of the settings by key."""
    figures = [pa.field(name, pa.float64()) for name in ("nmi", "ari", "f1", "unsupervised")]  # at image level
    return _schema(
        "sweep",
        [
            pa.field("product", pa.string(), nullable=False),
            *(pa.field(key, kind) for key, kind in settings.items()),  # null where a trial ended before it
            *figures,
            pa.field("classes_low", pa.int32()),  # range of an estimated number of classes; null: it was given
            pa.field("classes_high", pa.int32()),
            pa.field("seconds", pa.float64(), nullable=False),  # of the trial: training and classification
            pa.field("status", pa.string(), nullable=False),  # done | stopped | failed
            pa.field("reason", pa.string()),  # of a trial without figures, one line
            pa.field("trial", pa.string(), nullable=False),
        ],
    )


SCHEMAS: Mapping[str, pa.Schema] = {
    "listing": LISTING,
    "images": IMAGES,
    "maps": MAPS,
    "reference_maps": REFERENCE_MAPS,
    "normal_scores": NORMAL_SCORES,
    "patches": PATCHES,
    "map_curves": MAP_CURVES,
    "regions": REGIONS,
    "region_masks": REGION_MASKS,
    "region_overlaps": REGION_OVERLAPS,
    "worst_images": WORST_IMAGES,
    "views": VIEWS,
    "clean_views": CLEAN_VIEWS,
    "features": FEATURES,
    "region_predictions": REGION_PREDICTIONS,
    "image_predictions": IMAGE_PREDICTIONS,
    "quarantine": QUARANTINE,
    "metrics": METRICS,
}


def conform(rows: Sequence[Mapping[str, Any]] | pa.Table, schema: pa.Schema) -> pa.Table:
    """Convert rows (dicts or a table) to a table of exactly this schema.

    Raises
    ------
    ValueError
        A column is missing, unknown, null where it may not be, or of another type; the message names it.
    """
    rows = rows.table if isinstance(rows, TableRows) else rows
    name = (schema.metadata or {}).get(b"table", b"?").decode()
    given = set(rows.column_names) if isinstance(rows, pa.Table) else {key for row in rows for key in row}
    if unknown := sorted(given - set(schema.names)):
        raise ValueError(f"table {name}: unknown column {', '.join(unknown)}")
    nullable = {field.name for field in schema if field.nullable}
    empty = not isinstance(rows, pa.Table) and not rows
    if not empty and (missing := sorted(set(schema.names) - given - nullable)):
        raise ValueError(f"table {name}: missing column {', '.join(missing)}")
    columns = []
    for field in schema:
        try:
            if isinstance(rows, pa.Table):
                column = (
                    rows.column(field.name).cast(field.type)
                    if field.name in given
                    else pa.nulls(rows.num_rows, field.type)
                )
            else:
                column = pa.array([row.get(field.name) for row in rows], field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"table {name}: column {field.name} is not {field.type}: {error}") from error
        if column.null_count and not field.nullable:
            raise ValueError(f"table {name}: column {field.name} has {column.null_count} empty values")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def decode_anomaly_map(row: Mapping[str, Any]) -> NDArray[Any]:
    """Decode the anomaly map (h, w) of a row of `maps`: uint8 unchanged, float16 as float32."""
    values = np.frombuffer(row["map"], row["dtype"]).reshape(row["height"], row["width"])
    return values if values.dtype == np.uint8 else values.astype(np.float32)


def column_to_matrix(column: pa.ChunkedArray) -> Any:
    """Convert a column of N lists of length K to an array (N, K)."""
    values = column.combine_chunks()
    return np.asarray(values.flatten()).reshape(len(values), -1)
