"""Models that were made with other weights than those of today: found before any image is read."""

from __future__ import annotations

import json
from dataclasses import replace

from ancd_ray.config.load import JobError
from ancd_ray.config.sections import BackboneConfig
from ancd_ray.discovery.classifiers import DOCUMENT
from ancd_ray.jobs.backbones import load_backbone
from ancd_ray.jobs.classify.pinned import PinnedModel
from ancd_ray.jobs.classify.plan import ClassificationPlan
from ancd_ray.models.format import ModelError, check_weights, read_backbone


def leave_out_other_weights(plan: ClassificationPlan) -> ClassificationPlan:
    """Leave out the products that have images to classify and whose models need other weights than there are.

    Each backbone is loaded once, and none if there is nothing to classify.

    Raises
    ------
    JobError
        No product is left.
    """
    installed: dict[BackboneConfig, str] = {}
    left_out = dict(plan.left_out)
    for product in plan.products:
        try:
            for model in {model.digest: model for model in map(product.model_of, product.to_classify)}.values():
                _check(product.name, model, installed)
        except (JobError, ModelError) as error:
            left_out[product.name] = str(error)
    products = tuple(product for product in plan.products if product.name not in left_out)
    if not products:
        raise JobError(*dict.fromkeys(left_out.values()))
    return replace(plan, products=products, left_out=left_out)


def _check(product: str, model: PinnedModel, installed: dict[BackboneConfig, str]) -> None:
    """Compare the weights of a model with those that are installed, whose digests are kept in `installed`."""
    try:
        config = read_backbone(model.document)
        made_with = str(json.loads(model.read(DOCUMENT))["backbone_digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{model.source}: a file of the model is missing or damaged: {error}") from error
    weights = BackboneConfig(name=config.name, weights=config.weights, sha256=config.sha256)
    if weights not in installed:
        installed[weights] = load_backbone(config).digest()
    check_weights(product, config.name, installed[weights], made_with)
