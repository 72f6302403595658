"""Classifiers of regions, the result of a discovery, saved as `classifier.json` and `classifier.safetensors`.

Training results in the tail of the backbone and its heads, one of which classifies (`HeadsClassifier`). A clustering
results in the clustered regions as references in frozen features (`ReferenceClassifier`). The files contain the classes
and the index of the head that classifies, so that nothing is selected at inference. `novelty.safetensors` has the
regions against which the novelty of others is measured (`novelty.py`), and `tree.safetensors` the tree of classes
that are nested (`class_tree.py`).

Shape suffixes: N regions, M references, D feature width, K classes, H heads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Union

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from ancd_ray.backbones.base import Backbone
from ancd_ray.data.roles import Classes
from ancd_ray.discovery.anomalyncd.learner import Learner
from ancd_ray.discovery.anomalyncd.sources import ViewBank
from ancd_ray.discovery.class_tree import ClassTree
from ancd_ray.discovery.features.calibration import Calibration, Floats
from ancd_ray.discovery.features.region_features import one_hot
from ancd_ray.discovery.nearest import BLOCK, SAME, find_nearest, find_rows
from ancd_ray.discovery.normal_curve import NormalCurve
from ancd_ray.discovery.novelty import Measured, Novelty
from ancd_ray.method.merging import novel_probs

DOCUMENT, WEIGHTS = "classifier.json", "classifier.safetensors"
REJECT = 0.5  # a region with at least this probability of "normal" is not clustered
VOTES = 5  # number of nearest references that vote, where these are single regions
_BATCH = 32  # views per batch of the tail
Probs = NDArray[np.float32]


class Predicted(NamedTuple):
    """Predictions for N regions: probabilities, the class by each head, and the embedding for reports.

    `novelty_N` is their novelty, and `frozen_ND` the frozen features in which it is measured.
    """

    probs_NK: Probs
    head_cls_NH: NDArray[np.int64]
    embedding_ND: NDArray[np.float32]
    novelty_N: NDArray[np.float32]
    frozen_ND: NDArray[np.float32]


@dataclass(frozen=True)
class HeadsClassifier:
    """Trained tail of a backbone and H heads; `served_head` classifies, the others show the agreement of heads.

    Novelty is measured in the frozen tokens that the mask leaves visible, averaged. The last `n_added` of the classes
    were added after training.
    """

    classes: Classes
    backbone_digest: str
    state: Mapping[str, Tensor]
    served_head: int
    novelty: Novelty
    n_added: int = 0

    def save(self) -> dict[str, bytes]:
        """Return the files of the classifier by name."""
        document = {**_describe(self), "kind": "heads", "served_head": self.served_head}
        return {DOCUMENT: _encode(document), WEIGHTS: save(dict(self.state)), **self.novelty.save()}

    def predict(self, views: Any, backbone: Backbone) -> Predicted:
        """Classify regions by their clean views (a table `clean_views`)."""
        learner, bank = self._load_learner(backbone), ViewBank([views])
        batches = list(predict_heads(bank, learner, self.classes.n_base, backbone.device))
        probs_HNK = np.concatenate([probs for _, probs in batches], axis=1)
        embedding_ND = np.concatenate([embedding for embedding, _ in batches])
        frozen_ND = bank.average_tokens()
        measured = self.novelty.measure(frozen_ND)
        probs_NK = _add_classes(probs_HNK[self.served_head], measured, self.n_added)
        return Predicted(probs_NK, probs_HNK.argmax(axis=-1).T, embedding_ND, measured.novelty_N, frozen_ND)

    def _load_learner(self, backbone: Backbone) -> Learner:
        """Return tail and heads, which are loaded once for a backbone."""
        if backbone not in self._learners:
            trained = replace(self.classes, n_novel=self.classes.n_novel - self.n_added)
            self._learners[backbone] = load_learner(self.state, backbone, trained)
        return self._learners[backbone]

    @cached_property
    def _learners(self) -> dict[Backbone, Learner]:
        return {}


@dataclass(frozen=True)
class ReferenceClassifier:
    """Clustered regions in frozen features, with the probabilities of their classes.

    A region that was clustered has its own probabilities, any other region the mean of its nearest references.

    Parameters
    ----------
    classes, backbone_digest
        Classes, and digest of the backbone of the features.
    calibration
        Calibration of the features, fitted to all regions of the discovery.
    references_MD
        Features of the references, not calibrated.
    probs_MK
        Their probabilities; without the normal class if `normal` is given.
    normal
        Probability of the normal class by the scores of the image; None if it is a class of the references.
    method
        Name of the clustering.
    novelty
        References for the novelty of regions, in the same features.
    votes
        Number of nearest references that vote.
    n_added
        Number of the last classes that were added later; they have references only in `novelty`.
    tree
        Tree of the classes of the references; None if they are not nested.
    feature
        Name of the features: averages inside the mask, `masked`, or these less their rings, `ringed`.
    """

    classes: Classes
    backbone_digest: str
    calibration: Calibration
    references_MD: NDArray[np.float32]
    probs_MK: Probs
    normal: NormalCurve | None
    method: str
    novelty: Novelty
    votes: int = VOTES
    n_added: int = 0
    tree: ClassTree | None = None
    feature: Literal["masked", "ringed"] = "masked"

    def save(self) -> dict[str, bytes]:
        """Return the files of the classifier by name."""
        document = {
            **_describe(self),
            "kind": "references",
            "method": self.method,
            "widths": list(self.calibration.widths),
            **({"votes": self.votes} if self.votes != VOTES else {}),
            **({"has_tree": True} if self.tree else {}),
            **({"feature": self.feature} if self.feature != "masked" else {}),
        }
        arrays = {
            "mean_D": self.calibration.mean_D,
            "lengths": np.array(self.calibration.lengths),
            "references_MD": self.references_MD,
            "probs_MK": self.probs_MK,
        }
        if self.calibration.whitening_DD is not None:
            arrays["whitening_DD"] = self.calibration.whitening_DD
        if self.normal:
            arrays |= self.normal.save()
        tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
        tree = self.tree.save() if self.tree else {}
        return {DOCUMENT: _encode(document), WEIGHTS: save(tensors), **self.novelty.save(), **tree}

    def predict(self, features_ND: Floats, image_scores_NF: Floats | None) -> Predicted:
        """Classify regions by their features and by the scores of their images.

        Parameters
        ----------
        features_ND
            Features as in the column `feature` of the table `features`.
        image_scores_NF
            Figures of the anomaly score of each region's image; not used if `normal` is None.
        """
        frozen_ND = np.asarray(features_ND, np.float32)
        measured = self.novelty.measure(frozen_ND)
        probs_NK = _add_classes(self.predict_probs(frozen_ND, image_scores_NF), measured, self.n_added)
        return Predicted(probs_NK, probs_NK.argmax(axis=1)[:, None], frozen_ND, measured.novelty_N, frozen_ND)

    def predict_probs(self, features_ND: Floats, image_scores_NF: Floats | None) -> Probs:
        """Compute the probabilities of the classes of the discovery."""
        if self.normal is None:
            return self._vote(features_ND)
        assert image_scores_NF is not None
        probability_N = self.normal.predict(image_scores_NF)
        probs_NK = np.zeros((len(features_ND), self.classes.n_novel - self.n_added), np.float32)
        # Below the threshold it is set to 0: uncertainty about the other classes is no evidence for "normal".
        probs_NK[:, 0] = np.where(probability_N < REJECT, 0, probability_N)
        if not len(self.references_MD):
            probs_NK[:, 0] = 1.0
            return probs_NK
        is_open_N = probs_NK[:, 0] < 1  # of a certainly normal region the other classes are 0 by any vote
        probs_NK[is_open_N, 1:] = (1 - probs_NK[is_open_N, :1]) * self._vote(features_ND[is_open_N])
        return probs_NK

    def correct_references(self, features_CD: Floats, cls_C: NDArray[np.int64]) -> ReferenceClassifier:
        """Return it with votes for the classes that people gave to references; one of another class has no vote."""
        if self.votes == 1 or not len(self.references_MD):  # means of many regions
            return self
        row_C = find_rows(self.calibration.apply(features_CD), self._known_MD)
        rows, columns = row_C[row_C >= 0], cls_C[row_C >= 0] - (self.normal is not None)
        n_classes, probs_MK = self.probs_MK.shape[1], self.probs_MK.copy()
        is_voting = (columns >= 0) & (columns < n_classes)
        probs_MK[rows[is_voting]] = one_hot(columns[is_voting], n_classes)
        kept = np.setdiff1d(np.arange(len(probs_MK)), rows[~is_voting])
        kept = kept if len(kept) else np.arange(len(probs_MK))
        tree = self.tree.take(kept) if self.tree else None
        return replace(self, references_MD=self.references_MD[kept], probs_MK=probs_MK[kept], tree=tree)

    def regroup(self, tree: ClassTree) -> ReferenceClassifier:
        """Return it with the classes of another cut of its tree, and none that were added."""
        probs_MK, n_told = tree.probs_MK, int(self.normal is not None)
        classes = replace(self.classes, n_novel=probs_MK.shape[1] + n_told)
        found = replace(self, classes=classes, probs_MK=probs_MK, n_added=0, tree=tree)
        of_tree_M = found._vote(self.novelty.references_MD).argmax(axis=1) + n_told
        is_told_M = (self.novelty.cls_M < n_told) & (np.arange(len(of_tree_M)) >= self.novelty.n_corrected)
        return replace(found, novelty=self.novelty.relabel(np.where(is_told_M, 0, of_tree_M)))

    def find_leaves(self, masked_ND: Floats) -> NDArray[np.int64]:
        """Find the leaf (N,) of the tree that regions fall into, whatever the scores of their images."""
        assert self.tree is not None
        return np.asarray(replace(self, probs_MK=self.tree.probs_ML)._vote(masked_ND).argmax(axis=1), np.int64)

    def _vote(self, features_ND: Floats) -> Probs:
        voted_NK = np.empty((len(features_ND), self.probs_MK.shape[1]), np.float32)
        for start in range(0, len(features_ND), BLOCK):
            block_ND = self.calibration.apply(features_ND[start : start + BLOCK])
            voted_NK[start : start + BLOCK] = knn_vote(block_ND, self._known_MD, self.probs_MK, self.votes)
        return voted_NK

    @cached_property
    def _known_MD(self) -> Floats:
        return self.calibration.apply(self.references_MD)


Classifier = Union[HeadsClassifier, ReferenceClassifier]  # noqa: UP007  (a runtime alias on Python 3.10)


def load_classifier(read: Callable[[str], bytes]) -> Classifier:
    """Load a classifier from its files.

    Parameters
    ----------
    read
        Returns the bytes of a file by name.
    """
    document, state, novelty = json.loads(read(DOCUMENT)), load(read(WEIGHTS)), Novelty.load(read)
    classes = Classes(tuple(document["base_classes"]), document["n_novel"], document["has_normal"])
    if document["kind"] == "heads":
        return HeadsClassifier(
            classes, document["backbone_digest"], state, document["served_head"], novelty, document["n_added"]
        )
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    lengths, widths = tuple(arrays["lengths"].tolist()), tuple(document["widths"])
    calibration = Calibration(arrays["mean_D"], lengths, widths, arrays.get("whitening_DD"))
    normal = NormalCurve.load(arrays)
    references = (arrays["references_MD"], arrays["probs_MK"])
    return ReferenceClassifier(
        classes,
        document["backbone_digest"],
        calibration,
        *references,
        normal,
        document["method"],
        novelty,
        document.get("votes", VOTES),
        document["n_added"],
        ClassTree.load(read) if document.get("has_tree") else None,
        document.get("feature", "masked"),
    )


def load_learner(state: Mapping[str, Tensor], backbone: Backbone, classes: Classes) -> Learner:
    """Load a trained tail and heads on the backbone's device; the projector, used only in training, is not loaded."""
    n_heads, n_classes, _ = state["heads.weight_HCD"].shape
    assert n_classes == classes.n_base + classes.n_novel, "the weights belong to other classes"
    learner = Learner(backbone, n_classes, n_heads, seed=0, projects=False)
    learner.load_state_dict(dict(state))
    return learner.eval().to(backbone.device)


@torch.inference_mode()
def predict_heads(
    bank: ViewBank, learner: Learner, n_base: int, device: str
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Compute class tokens (B, D) and novel probabilities (H, B, K) of a bank of one view per region, batch by batch.

    On CPUs float64 is used: the last bits of float32 products depend on the batch size, but the probabilities of a
    region must not depend on other regions.
    """
    dtype = torch.float64 if torch.device(device).type == "cpu" else torch.float32
    learner = learner.to(dtype)
    found = []
    for start in range(0, len(bank.labels), _BATCH):
        regions_B = np.arange(start, min(start + _BATCH, len(bank.labels)))
        views = bank.load(regions_B, np.zeros((1, len(regions_B)), np.int64))
        token_BD = learner.tail(
            views.cls_2BD.to(device, dtype), views.tokens_2BLD.to(device, dtype), views.mask_2BL.to(device)
        )
        logits_HBC = learner.heads(token_BD).cpu().numpy()
        found.append((token_BD.float().cpu().numpy(), novel_probs(logits_HBC, n_base)))
    return found


def knn_vote(features_ND: Floats, known_MD: Floats, probs_MK: Probs, votes: int = VOTES) -> Probs:
    """Average the probabilities of the nearest references, for each region; a reference keeps its own."""
    nearest = find_nearest(features_ND, known_MD, votes)
    voted_NK = np.asarray(probs_MK[nearest.rows].mean(axis=1), np.float32)
    is_same_N = nearest.squared[:, 0] < SAME
    voted_NK[is_same_N] = probs_MK[nearest.rows[is_same_N, 0]]
    return voted_NK


def put_normal_first(probs_NK: Probs, score_N: Floats, weight_N: Floats | None = None) -> Probs:
    """Put the class with the lowest (weighted) mean anomaly score first: it means "normal"."""
    cls_N, n_classes = probs_NK.argmax(axis=1), probs_NK.shape[1]
    means_K = [
        np.average(score_N[cls_N == k], weights=None if weight_N is None else weight_N[cls_N == k])
        if (cls_N == k).any()
        else np.inf
        for k in range(n_classes)
    ]
    normal = int(np.argmin(means_K))
    order = [normal, *(k for k in range(n_classes) if k != normal)]
    return probs_NK[:, order]


def single_class(n_regions: int) -> Probs:
    """Return the probabilities (N, 1) of a single class, all 1."""
    return one_hot(np.zeros(n_regions, np.int64), 1)


def extend_classifier(classifier: Classifier, features: Sequence[Floats]) -> Classifier:
    """Add classes to a classifier: a region whose nearest reference belongs to one of them is of that class.

    Parameters
    ----------
    classifier
        The classifier.
    features
        For each added class the frozen features of its regions, as in `Predicted`.
    """
    first = classifier.classes.n_novel
    cls_A = np.repeat(np.arange(first, first + len(features)), [len(each) for each in features])
    classes = replace(classifier.classes, n_novel=first + len(features))
    novelty = classifier.novelty.extend(np.concatenate(list(features)), cls_A)
    return replace(classifier, classes=classes, novelty=novelty, n_added=classifier.n_added + len(features))


def _add_classes(probs_NK: Probs, measured: Measured, n_added: int) -> Probs:
    """Append the probabilities of added classes: 1 where the nearest reference belongs to one of them, else 0.

    Where a person gave the class of the nearest reference, it has the probability 1.
    """
    n_classes = probs_NK.shape[1]
    is_certain_N = measured.is_given_N | (measured.cls_N >= n_classes)
    if not n_added and not is_certain_N.any():
        return probs_NK
    found = np.concatenate([probs_NK, np.zeros((len(probs_NK), n_added), np.float32)], axis=1)
    found[is_certain_N] = one_hot(measured.cls_N[is_certain_N], n_classes + n_added)
    return found


def _describe(classifier: Classifier) -> dict[str, Any]:
    classes = classifier.classes
    return {
        "base_classes": list(classes.base_classes),
        "n_novel": classes.n_novel,
        "n_added": classifier.n_added,
        "has_normal": classes.has_normal,
        "backbone_digest": classifier.backbone_digest,
    }


def _encode(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
