"""Flows: the stages of a product, their settings and their connections."""

from __future__ import annotations

from dataclasses import replace

from ancd_ray.config.base import reset_keys
from ancd_ray.config.effects import Situation, reset_unused
from ancd_ray.config.job import Job
from ancd_ray.data.layouts.roi import pin_roi
from ancd_ray.data.roles import Classes
from ancd_ray.detectors.base import DetectorConfig
from ancd_ray.detectors.ground_truth import GroundTruth
from ancd_ray.engine.stage import Flow
from ancd_ray.jobs.archive import AUTO, ProductListing
from ancd_ray.jobs.identity.corrections import NO_CORRECTIONS, Corrections
from ancd_ray.stages.calibrate import Calibrate
from ancd_ray.stages.catalog import Catalog
from ancd_ray.stages.classify import Classify
from ancd_ray.stages.cluster import NESTED, Cluster
from ancd_ray.stages.count_classes import CountClasses
from ancd_ray.stages.detect import Detect
from ancd_ray.stages.encode import Encode
from ancd_ray.stages.evaluate import Evaluate
from ancd_ray.stages.find_roi import FindRoi
from ancd_ray.stages.fit_detector import FitDetector
from ancd_ray.stages.merge import Merge
from ancd_ray.stages.regions import Regions
from ancd_ray.stages.score_maps import ScoreMaps
from ancd_ray.stages.score_regions import ScoreRegions
from ancd_ray.stages.select_head import SelectHead
from ancd_ray.stages.train import Train
from ancd_ray.stages.views import FillViewBank

# Approximate number of regions with frozen features in a trained job, for the selection of a head, the number of
# classes, and metrics without labels.
SAMPLED_FEATURES = 2000


def base_flow(job: Job, name: str, listing: ProductListing) -> Flow:
    """Build the flow of the labeled base set, whose masks are its anomaly maps, up to what discovery reads."""
    flow, detector = Flow(name), GroundTruth(name="ground_truth")
    if not job.discovery.reads_base:
        return flow
    job = reset_unused(Situation(job, detector.maps_are_masks, has_base=True, has_normal=False))
    _perceive(flow, job, listing, detector)
    if not job.discovery.trains:
        flow.add(Encode(job.backbone, keep_views=False, max_features=None))
    elif job.train.views.bank:
        flow.add(FillViewBank(job.backbone, job.train.views.base, job.discovery.max_regions))
    return flow


def discovery_flow(
    job: Job,
    name: str,
    listing: ProductListing,
    classes: Classes,
    base: Flow | None,
    corrections: Corrections = NO_CORRECTIONS,
) -> Flow:
    """Build the flow that discovers the classes of a product.

    Parameters
    ----------
    job
        Job with the overrides of the product.
    name
        Name of the product.
    listing
        Images of the product.
    classes
        Classes to look for; their number is `AUTO` if it is estimated.
    base
        Flow of the base set, if there is one.
    corrections
        What people say about single regions.
    """
    if job.discovery.trains and not job.discovery.reads_base:
        base, classes = None, replace(classes, base_classes=())
    job = reset_unused(Situation(job, job.detector.maps_are_masks, base is not None, classes.has_normal))
    flow = Flow(name)
    _perceive(flow, job, listing, job.detector)
    if job.discovery.trains:
        _train(flow, job, classes, base, corrections)
    else:
        _cluster(flow, job, classes, base, corrections)
    flow.add(Merge(job.merge, classes.has_normal))
    flow.add(Evaluate(classes.has_normal))
    return flow


def _perceive(flow: Flow, job: Job, listing: ProductListing, detector: DetectorConfig) -> None:
    """Add the stages from files to regions."""
    backbone = job.backbone.for_images
    detector, declared = detector.for_listing, detector
    flow.add(Catalog(listing.digest, listing.config.bits, listing.rows))
    if listing.config.roi is not None:
        flow.add(FindRoi(pin_roi(listing.config, job.data.root)))
    own = backbone if detector.uses_backbone else None
    if detector.is_fitted:
        flow.add(FitDetector(detector.for_fit, own, declared))
    if not detector.maps_are_masks:
        flow.add(Calibrate(detector, own))
    flow.add(Detect(detector, own))
    if not detector.maps_are_masks:
        flow.add(ScoreMaps())
    flow.add(Regions(job.mebin, detector.maps_are_masks, detector.tile_size))
    if not detector.maps_are_masks:
        flow.add(ScoreRegions())


def _train(flow: Flow, job: Job, classes: Classes, base: Flow | None, corrections: Corrections) -> None:
    """Add the stages of a trained method, such as AnomalyNCD (Section III-C)."""
    if job.train.views.bank:
        flow.add(FillViewBank(job.backbone, job.train.views.bank, job.discovery.max_regions))
    symmetry = job.discovery.symmetry if job.averages_views else None
    flow.add(Encode(job.backbone, keep_views=True, max_features=SAMPLED_FEATURES, symmetry=symmetry))
    _count_classes(flow, job, classes)
    source = "regions" if job.train.views.fresh else "views"
    config = reset_keys(job.train, "workers", "checkpoint_every", "head")
    workers, checkpoint_every = job.train.workers, job.train.checkpoint_every
    stage = Train(config, job.backbone, classes, job.discovery.method, workers, checkpoint_every)
    flow.add(stage, views=flow.artifacts[source], base_views=base.artifacts[source] if base else None)
    flow.add(SelectHead(job.train.head, job.backbone, corrections.given, corrections.known))
    flow.add(Classify("heads", job.backbone, job.unknown.rate))


def _cluster(flow: Flow, job: Job, classes: Classes, base: Flow | None, corrections: Corrections) -> None:
    """Add the stages of a clustering of frozen features."""
    symmetry = job.discovery.symmetry if job.averages_views else None
    flow.add(Encode(job.backbone, keep_views=False, max_features=None, symmetry=symmetry))
    _count_classes(flow, job, classes)
    method = job.discovery.method
    max_classes = job.classes.max_classes if method in NESTED else 0
    stage = Cluster(method, classes, job.train.seed, max_classes, corrections.given, corrections.known)
    flow.add(stage, base_features=base.artifacts.get("features") if base else None)
    flow.add(Classify("references", None, job.unknown.rate, stage.looks_at_scores))


def _count_classes(flow: Flow, job: Job, classes: Classes) -> None:
    if classes.n_novel == AUTO:
        flow.add(CountClasses(job.classes.max_classes, classes.has_normal))
