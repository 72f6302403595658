"""A finished run as data frames.

A frame has a row for each image or region, with the columns of `data/tables.py` and the name of the class.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.data.location import StoreError
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import SCHEMAS
from ancd_ray.jobs.classify.publish import Published
from ancd_ray.jobs.results import RECORD, JobResults, locate_root, read_record
from ancd_ray.jobs.run_folder import REPORT, SUMMARY
from ancd_ray.models.find import find_model
from ancd_ray.models.format import DOCUMENT

if TYPE_CHECKING:
    import pandas as pd

    from ancd_ray.models.model import Model

IMAGE = ("image_id", "product", "uri", "label", "cls", "confidence", "is_normal", "n_regions", "score", "probs")
REGION = ("region_id", "image_id", "product", "label", "cls", "confidence", "score", "area", "probs")
BOX = ("x0", "y0", "x1", "y1")
LOST = ("product", "uri", "role", "stage", "reason")

Names = Mapping[str, Sequence[str]]  # names of the classes by product


@dataclass(frozen=True)
class Results:
    """A finished run; its tables are read when they are asked for.

    Parameters
    ----------
    folder
        The run folder, as `discover` and `ancd-ray submit` leave it: a path or URI.

    Examples
    --------
    >>> results = Results("runs/parts/runs/parts-1a2b3c4d5e6f")
    >>> results.images.groupby("class").size()
    """

    folder: str

    @cached_property
    def images(self) -> pd.DataFrame:
        """A row for each classified image, by its `image_id`.

        Of an archive that grows, all images that its tables have by now. `probs` are the probabilities of all classes,
        `score` is the highest anomaly score of the image's regions.
        """
        return make_frame(self._read("image_predictions", IMAGE), self.class_names)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """A row for each anomalous region of these images.

        The box is in pixels, right and bottom exclusive, and empty in runs that applied a finished model.
        """
        regions = self._read("region_predictions", REGION)
        return make_frame(add_boxes(regions, self._read_boxes()), self.class_names)

    @cached_property
    def quarantine(self) -> pd.DataFrame:
        """A row for each image that could not be used, with the reason; also those to learn from, by their `role`."""
        frame: pd.DataFrame = self._read("quarantine", LOST).to_pandas()
        return frame

    @cached_property
    def metrics(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Figures by product, level (`image`, `region`, `pixel`) and name; None for those that need labels."""
        if self._is_applied:
            keys = ("nmi", "ari", "f1")
            return {row["product"]: {"image": {key: row[key] for key in keys}} for row in self.summary["products"]}
        found: dict[str, dict[str, dict[str, float | None]]] = {}
        for row in self._read("metrics", SCHEMAS["metrics"].names).to_pylist():
            found.setdefault(row["product"], {}).setdefault(row["level"], {})[row["name"]] = row["value"]
        return found

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Content of `summary.json`: counts, figures, and the times of the steps."""
        document: dict[str, Any] = self._place.read_json(SUMMARY)
        return document

    @cached_property
    def class_names(self) -> dict[str, list[str]]:
        """Names of the classes of each product, by index."""
        documents = {name: Folder(find_model(self.folder, name)).read_json(DOCUMENT) for name in self.products}
        return {name: [each["name"] for each in document["classes"]] for name, document in documents.items()}

    @property
    def products(self) -> list[str]:
        """Names of the products."""
        return list(self._record["products"])

    @property
    def report(self) -> Path:
        """Path of the report, an HTML file.

        Raises
        ------
        StoreError
            It is in an object store, where a browser has to be sent to.
        """
        if not self._place.is_local:
            raise StoreError(f"{self._place}/{REPORT}: is no file of this machine; open it in the object store")
        return self._place.path / REPORT

    def model(self, product: str | None = None) -> Model:
        """Load the model of a product.

        Parameters
        ----------
        product
            Name of the product; not needed if there is only one.

        Raises
        ------
        ModelError
            There is no such product, or there are several.
        """
        from ancd_ray.models.model import Model

        return Model.load(find_model(self.folder, product))

    def cut(
        self,
        *,
        k: int | None = None,
        merge: Sequence[str] | None = None,
        split: str | None = None,
        product: str | None = None,
    ) -> Results:
        """Cut the classes of the discovery otherwise; this run stays as it is.

        Parameters
        ----------
        k
            Number of classes, the normal one included.
        merge
            Classes that become one, by id, name or index.
        split
            Class that becomes two, at its highest merge.
        product
            Name of the product; not needed if there is only one.

        Returns
        -------
        Results
            A run of its own, with predictions, report and model, that can be cut again.

        Raises
        ------
        CutError
            Not one of `k`, `merge` and `split` is given, the method has no tree, or the tree no such class.

        Examples
        --------
        >>> results.cut(k=7).cut(merge=["parts-c0003", "parts-c0005"]).images
        """
        from ancd_ray.jobs.cut import cut
        from ancd_ray.jobs.cut_source import make_change

        return Results(cut(self._place, make_change(k, merge, split), product).uri)

    @cached_property
    def _place(self) -> Folder:
        return Folder(self.folder)

    @cached_property
    def _record(self) -> dict[str, Any]:
        record = read_record(self._place)
        if record is None:
            raise StoreError(f"{self._place}: not a run folder (it has no {RECORD})")
        return record

    @property
    def _is_applied(self) -> bool:
        """Whether the run applied a finished model, so that its images are in the published tables of the archive."""
        return bool(self._record.get("mode") == "classify")

    def _read(self, table: str, columns: Sequence[str]) -> pa.Table:
        """Read columns of a table of all products."""
        if self._is_applied:
            published = Published.read(locate_root(self._place))
            return pa.concat_tables([published.read_rows(table, columns, name) for name in self.products])
        place, wanted = self._place / table, list(columns)
        parts = (place.read_table(name, wanted) for name in place.names())
        return pa.concat_tables([SCHEMAS[table].empty_table().select(wanted), *parts])

    def _read_boxes(self) -> pa.Table | None:
        """Read the boxes of the regions; None if a finished model was applied, or the steps were deleted."""
        found = None if self._is_applied else JobResults.from_record(locate_root(self._place), self._record)
        columns = ["region_id", *BOX]
        return found and pa.concat_tables([each.table("regions").read(columns) for each in found.products.values()])

    def _repr_html_(self) -> str:
        """Return a summary for notebooks: counts, figures, classes, and a link to the report."""
        summary = self.summary
        counts = ", ".join(f"{summary[key]:,} {key}" for key in ("images", "regions", "quarantined"))
        lines = [f'<p><b>{html.escape(summary["job"])}</b>: {counts}; <a href="{self._link()}">report</a></p>']
        classes = Counter(self._read("image_predictions", ("product", "cls")).to_pandas().itertuples(index=False))
        for product, names in self.class_names.items():
            figures = self.metrics.get(product, {}).get("image", {})
            known = {key: value for key in ("nmi", "ari", "f1") if (value := figures.get(key)) is not None}
            head = " · ".join([product, *(f"{key.upper()} {value:.2f}" for key, value in known.items())])
            rows = "".join(
                f"<tr><td>{html.escape(name)}</td><td>{classes[product, index]:,}</td></tr>"
                for index, name in enumerate(names)
            )
            title = f"<caption>{html.escape(head)}</caption><tr><th>class</th><th>images</th></tr>"
            lines.append(f"<table>{title}{rows}</table>")
        return "\n".join(lines)

    def _link(self) -> str:
        """Return a link to the report: relative below the working folder, which notebooks can follow."""
        if not self._place.is_local:
            return html.escape(f"{self._place}/{REPORT}")
        path, here = self.report, Path.cwd()
        return quote(path.relative_to(here).as_posix()) if path.is_relative_to(here) else path.as_uri()


def join(tables: Sequence[pa.Table], name: str, columns: Sequence[str]) -> pa.Table:
    """Join columns of tables of one kind."""
    wanted = list(columns)
    return pa.concat_tables([SCHEMAS[name].empty_table().select(wanted), *(table.select(wanted) for table in tables)])


def make_frame(rows: pa.Table, names: Names) -> pd.DataFrame:
    """Convert predictions to a frame with the names of their classes."""
    found = zip(rows.column("product").to_pylist(), rows.column("cls").to_pylist(), strict=True)
    named = pa.array([names[product][index] for product, index in found], pa.string())
    frame: pd.DataFrame = rows.add_column(rows.schema.get_field_index("cls"), "class", named).to_pandas()
    boxes = {name: "Int32" for name in BOX if name in frame.columns}  # whole numbers, although some may be unknown
    return frame.astype(boxes) if boxes else frame


def add_boxes(regions: pa.Table, boxes: pa.Table | None) -> pa.Table:
    """Add the box of each region; null where it is unknown."""
    if boxes is None:
        boxes = SCHEMAS["regions"].empty_table().select(["region_id", *BOX])
    places = pc.index_in(regions.column("region_id"), value_set=boxes.column("region_id").combine_chunks())
    for name in BOX:
        regions = regions.append_column(name, boxes.column(name).combine_chunks().take(places))
    return regions
