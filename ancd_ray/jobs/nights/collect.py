"""Collects what a night has found, from published tables and from what the job has just classified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from ancd_ray.config.sections import AlertsConfig
from ancd_ray.engine.outputs import Output
from ancd_ray.jobs.classify.classified import Classified, read_output
from ancd_ray.jobs.classify.plan import ClassificationPlan, ProductPlan
from ancd_ray.jobs.classify.publish import Published, make_published_schema
from ancd_ray.jobs.classify.report import read_regions
from ancd_ray.jobs.classify.runs import Start, count_seen
from ancd_ray.jobs.identity.pool import Candidate
from ancd_ray.jobs.identity.tables import Row, find_titles, resolve_id
from ancd_ray.jobs.nights import wording
from ancd_ray.jobs.nights.model import Alert, CandidateClass, Drift, Night, NightClass, ProductNight
from ancd_ray.jobs.nights.statistics import make_chart, measure_stability
from ancd_ray.jobs.report import GalleryItem
from ancd_ray.jobs.report.build_classes import build_item

_PICTURES = 12  # unknown and uncertain regions that are shown of a product
_EXAMPLES = 8  # regions that are shown of a candidate
_LISTED = 50  # quarantined files that are named of a product
_IMAGES = ["image_id", "uri", "class_id", "is_unknown", "confidence", "score", "brightness", "day", "partition"]
_REGIONS = ["region_id", "image_id", "confidence", "is_unknown", "partition"]


@dataclass(frozen=True)
class Rediscovered:
    """Sizes of the pools of unknown regions that are left, by product, and the new classes that were found in them."""

    pools: Mapping[str, int]
    candidates: Sequence[Candidate]


def collect_night(
    plan: ClassificationPlan, published: Published, classes: Mapping[str, Row], found: Rediscovered, start: Start
) -> Night:
    """Collect what is new since the jobs before, in the published tables of today.

    Raises
    ------
    StoreError
        A table cannot be read.
    """
    alerts = plan.job.alerts or AlertsConfig()
    seen = count_seen(plan)
    products = [
        _collect_product(product, published, classes, found, seen.get(product.name, 0), alerts, start)
        for product in plan.products
    ]
    left_out = tuple(plan.left_out.items())
    name = plan.run_folder.uri.rpartition("/")[2]
    said = [*(Alert("left_out", product, f"not classified: {why}") for product, why in left_out)]
    said += [alert for product in products for alert in _find_alerts(product, alerts)]
    return Night(plan.job.name, name, start.at, start.seconds, products, left_out, said)


def _collect_product(
    product: ProductPlan,
    published: Published,
    classes: Mapping[str, Row],
    found: Rediscovered,
    seen: int,
    alerts: AlertsConfig,
    start: Start,
) -> ProductNight:
    images = published.read_rows("image_predictions", _IMAGES, product.name)
    fresh = [partition for partition in product.partitions if partition.number >= seen]
    ids = pa.array([partition.id for partition in fresh], pa.string())
    is_new = pc.is_in(images.column("partition"), value_set=ids)
    new, before = images.filter(is_new), images.filter(pc.invert(is_new))
    lost = published.read_rows("quarantine", ["uri", "reason", "partition"], product.name)
    lost_now = lost.filter(pc.is_in(lost.column("partition"), value_set=ids))
    n_new = new.num_rows + lost_now.num_rows
    candidates = [each for each in found.candidates if each.product == product.name]
    regions = make_published_schema("region_predictions").empty_table().select(_REGIONS)
    if n_new or candidates:
        regions = published.read_rows("region_predictions", _REGIONS, product.name)
    shown_unknown, shown_uncertain = _choose_pictures(regions, ids)
    pictures = _Pictures(product, published, images, regions)
    return ProductNight(
        product=product.name,
        model=product.model.digest,
        new=n_new,
        known=images.num_rows + lost.num_rows - n_new,
        deleted=product.deleted,
        quarantined=lost_now.num_rows,
        unknown=pc.sum(new.column("is_unknown")).as_py() or 0,
        pool=found.pools[product.name],
        classes=_count_classes(product, images, new, classes, start.at.date()),
        candidates=[
            CandidateClass(
                *(each.id, each.status, len(each.regions), each.images, each.separateness),
                pictures=pictures.take(each.regions[:_EXAMPLES]),
            )
            for each in candidates
        ],
        drift=list(_measure_drift(new, before, lost_now.num_rows, lost.num_rows - lost_now.num_rows, alerts)),
        unknown_pictures=pictures.take(shown_unknown),
        uncertain_pictures=pictures.take(shown_uncertain),
        quarantine=[(row["uri"].rpartition("/")[2], row["reason"]) for row in lost_now.slice(0, _LISTED).to_pylist()],
    )


def _count_classes(
    product: ProductPlan, images: pa.Table, new: pa.Table, classes: Mapping[str, Row], today: date
) -> list[NightClass]:
    """Count the images of each class in the night and on the days before, those with most of the night first."""
    counted = images.group_by(["day", "class_id", "is_unknown"]).aggregate([([], "count_all")]).to_pylist()
    by_day: dict[str, Counter[date]] = {}
    days = set()
    for row in counted:
        day = row["day"] or today
        days.add(day)
        if not row["is_unknown"]:
            by_day.setdefault(resolve_id(classes, row["class_id"]), Counter())[day] += row["count_all"]
    tonight = Counter(
        resolve_id(classes, class_id)
        for class_id, is_unknown in zip(
            *(new.column(name).to_pylist() for name in ("class_id", "is_unknown")), strict=True
        )
        if not is_unknown
    )
    last = max((day or today for day in new.column("day").unique().to_pylist()), default=None)
    shown = sorted(day for day in days if last is not None and day <= last)
    own = dict.fromkeys([*(resolve_id(classes, each) for each in product.model.class_ids), *by_day])
    titles = find_titles(classes, list(own))
    found = [
        NightClass(class_id, title.name, tonight[class_id], make_chart(by_day.get(class_id, {}), shown))
        for class_id, title in zip(own, titles, strict=True)
        if (row := classes.get(class_id)) is None or row["status"] != "ignored"
    ]
    return sorted(found, key=lambda each: (-each.images, each.id))


def _measure_drift(
    new: pa.Table, before: pa.Table, lost_now: int, lost_before: int, alerts: AlertsConfig
) -> Iterator[Drift]:
    for figure in ("score", "confidence", "brightness"):  # nights of earlier versions have no brightness
        psi = measure_stability(*(rows.column(figure).drop_null().to_numpy() for rows in (before, new)))
        if psi is not None:
            yield Drift(figure, psi, None, alerts.drift)
    if new.num_rows:
        unknown = [(pc.sum(rows.column("is_unknown")).as_py() or 0) / max(rows.num_rows, 1) for rows in (new, before)]
        yield Drift("unknown", unknown[0], unknown[1] if before.num_rows else None, alerts.unknown)
    if new.num_rows + lost_now:
        shares = [lost_now / (new.num_rows + lost_now), lost_before / max(before.num_rows + lost_before, 1)]
        yield Drift("quarantined", shares[0], shares[1] if before.num_rows else None, alerts.quarantined)


def _find_alerts(product: ProductNight, alerts: AlertsConfig) -> Iterator[Alert]:
    if alerts.new_class:
        for each in product.candidates:
            yield Alert("new_class", product.product, f"{each.id}: {each.regions:,} regions in {each.images:,} images")
    if alerts.control_limit and product.new:
        for own in product.classes:
            if own.chart.is_outside:
                count = own.chart.counts[-1]
                text = f"{own.name}: {count:,} image{'s' * (count != 1)}, {wording.usual_range(own.chart)}"
                yield Alert("control_limit", product.product, text)
    for drift in product.drift:
        if drift.is_outside:
            kind = {"unknown": "unknown", "quarantined": "quarantine"}.get(drift.figure, "drift")
            text = f"{drift.figure} {drift.value:.2f}, above {drift.limit:g}"
            if kind != "drift":
                text = f"{drift.value:.0%} of the new images are {drift.figure}, more than {drift.limit:.0%}"
            yield Alert(kind, product.product, text)


def _choose_pictures(regions: pa.Table, partitions: pa.Array) -> tuple[list[str], list[str]]:
    """Choose unknown regions, and the other ones with the lowest confidence, of some partitions."""
    own = regions.filter(pc.is_in(regions.column("partition"), value_set=partitions)).sort_by("confidence")
    unknown = own.filter(own.column("is_unknown")).column("region_id").to_pylist()[:_PICTURES]
    known = own.filter(pc.invert(own.column("is_unknown"))).column("region_id").to_pylist()[:_PICTURES]
    return unknown, known


@dataclass(frozen=True)
class _Pictures:
    """Pictures of regions of a product, as far as steps have kept them."""

    product: ProductPlan
    published: Published
    images: pa.Table
    regions: pa.Table

    def take(self, wanted: Sequence[str]) -> list[GalleryItem]:
        """Read the pictures of some regions in their order; those that nothing has kept are left out."""
        chosen = pc.is_in(self.regions.column("region_id"), value_set=pa.array(wanted, pa.string()))
        rows = {row["region_id"]: row for row in self.regions.filter(chosen).to_pylist()}
        shown = read_regions(list(self._open({row["partition"] for row in rows.values()})), set(wanted))
        ids = pa.array([row["image_id"] for row in shown.values()], pa.string())
        images = self.images.filter(pc.is_in(self.images.column("image_id"), value_set=ids))
        uri_of = dict(zip(*(images.column(name).to_pylist() for name in ("image_id", "uri")), strict=True))
        return [
            build_item(shown[region], rows[region]["confidence"], uri_of.get(shown[region]["image_id"], ""))
            for region in wanted
            if region in shown
        ]

    def _open(self, partitions: set[str]) -> Iterator[Classified]:
        root = self.published.root
        for partition in self.product.partitions:
            if partition.id in partitions and (
                output := Output.find(self.product.make_step(partition, root).folder(root))
            ):
                yield Classified(self.product, partition, read_output(output))


def describe_alerts(alerts: Sequence[Alert]) -> list[str]:
    """Describe alerts in lines."""
    return [f"{alert.product}: {alert.text}" for alert in alerts]
