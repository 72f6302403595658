"""Published rows of unknown regions that get a class, which was found among them and is accepted."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ancd_ray.data.store import Folder
from ancd_ray.jobs.classify.delta import FOLDER, open_table, write_rows
from ancd_ray.jobs.classify.publish import Published, make_published_schema


def assign_class(root: Folder, class_id: str, regions: Sequence[str]) -> None:
    """Give published rows of unknown regions the class that was found among them, and those of their images, too.

    Parameters
    ----------
    root
        Output folder.
    class_id
        Id of the class.
    regions
        Ids of its regions.

    Raises
    ------
    StoreError
        A table cannot be read or written.
    """
    published = Published.read(root)
    found = published.scan(
        "region_predictions", ["image_id"], ds.field("region_id").isin(pa.array(regions, pa.string()))
    )
    images = sorted({image for batch in found for image in batch.column("image_id").to_pylist()})
    # regions last: while they are unknown, a job that was killed is made good by the next one
    for table, key, ids in (("image_predictions", "image_id", images), ("region_predictions", "region_id", regions)):
        folder, schema = root / FOLDER / table, make_published_schema(table)
        batches = list(published.scan(table, schema.names, ds.field(key).isin(pa.array(ids, pa.string()))))
        target = open_table(folder)
        if target is None or not batches:
            continue
        rows = pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)
        is_unknown = rows.column("is_unknown")
        for name, value in (("class_id", class_id), ("is_unknown", False)):
            at = schema.get_field_index(name)
            rows = rows.set_column(at, schema.field(name), pc.if_else(is_unknown, value, rows.column(name)))
        named = ", ".join("'" + each.replace("'", "''") + "'" for each in ids)
        # and not by Delta's `update`, whose files have types that Arrow cannot filter by
        write_rows(target, folder, rows, mode="overwrite", predicate=f"{key} IN ({named})")
