"""Published trained methods: they find separable classes, and their formulas equal literal forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import mutual_info_score

from ancd_ray.config.sections import DiscoveryConfig, TrainConfig, Trained
from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder
from ancd_ray.discovery.anomalyncd.learner import BatchLabels, Learner, Outputs
from ancd_ray.discovery.anomalyncd.loop import train
from ancd_ray.discovery.objectives import OBJECTIVES
from ancd_ray.discovery.objectives.amend import compute_margin, contrast_neighborhoods
from ancd_ray.discovery.objectives.base import Epoch, find_neighbors, put_normal_first
from ancd_ray.discovery.objectives.gatcluster import balance, relate, separate
from ancd_ray.discovery.objectives.iic import compute_joint, mutual_information
from ancd_ray.discovery.objectives.scan import agree_with_neighbors, label_itself, negative_entropy
from ancd_ray.discovery.objectives.simgcd import SimGCD
from ancd_ray.discovery.objectives.uno import assign_equally, swap_predictions
from ancd_ray.method.metrics import cluster_scores
from tests.training.views import SyntheticViews, TinyBackbone

COMPARED = [method for method in OBJECTIVES if method != "anomalyncd"]
BASE = ("x", "y")
READ_BASE = [method for method in COMPARED if DiscoveryConfig(method=method).reads_base]


def test_the_job_file_has_the_names_of_all_objectives() -> None:
    assert get_args(Trained) == tuple(OBJECTIVES)


def _find_classes(folder: Path, method: str, base: tuple[str, ...], epochs: int, apart: bool = True) -> tuple[Any, Any]:
    """Train and classify other views of the novel regions; their true and found classes."""
    source = SyntheticViews(base)
    source._centers *= apart
    config = TrainConfig.model_validate({"epochs": epochs, "batch_size": 32, "checkpoint_every": 1000, "heads": 2})
    objective = OBJECTIVES[method](config, Classes(base, 3, has_normal=False))
    learner, history = train(source, TinyBackbone(), objective, Folder(str(folder)))  # type: ignore[arg-type]
    novel = np.flatnonzero([label is None for label in source.labels])
    with torch.inference_mode():
        logits = learner.eval()(source.load(novel, np.full((1, len(novel)), 7, np.int64))).logits_H2BC
    return source.truth_N[novel], logits[history.best_head][:, len(base) :].argmax(dim=1).numpy()


@pytest.mark.parametrize(("method", "base"), [*((m, ()) for m in COMPARED), *((m, BASE) for m in READ_BASE)])
def test_it_finds_separable_classes(tmp_path: Path, method: str, base: tuple[str, ...]) -> None:
    assert cluster_scores(*_find_classes(tmp_path, method, base, epochs=30)).f1 > 0.9


@pytest.mark.parametrize("method", COMPARED)
def test_it_finds_nothing_where_there_is_nothing(tmp_path: Path, method: str) -> None:
    assert cluster_scores(*_find_classes(tmp_path, method, (), epochs=4, apart=False)).f1 < 0.7


# --- formulas


def _logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_sinkhorn_equals_its_literal_form_and_fills_classes_equally() -> None:
    logits = _logits(1, 12, 3)
    matrix = np.exp(logits[0].double().numpy() / 0.05)
    for _ in range(3):
        matrix = matrix / matrix.sum(axis=0) / 3
        matrix = matrix / matrix.sum(axis=1, keepdims=True) / 12
    np.testing.assert_allclose(assign_equally(logits)[0], 12 * matrix, rtol=1e-4)
    many = assign_equally(logits, iterations=300)[0]
    np.testing.assert_allclose(many.sum(dim=1), 1, atol=1e-5)
    np.testing.assert_allclose(many.sum(dim=0), 4, atol=1e-3)


def test_uno_swaps_the_targets_of_novel_views_and_keeps_labels() -> None:
    logits, labels = _logits(2, 12, 5), torch.tensor([-1, 1, -1, -1, 0, -1])
    pseudo = [assign_equally(half[:, labels < 0, 2:]) for half in logits.chunk(2, dim=1)]
    expected = torch.zeros(2)
    for head in range(2):
        for view in range(2):
            given = iter(pseudo[1 - view][head])
            for i, label in enumerate(labels.tolist()):
                log_probs = (logits[head, view * 6 + i] / 0.1).log_softmax(dim=0)
                chosen = log_probs[label] if label >= 0 else next(given) @ log_probs[2:]
                expected[head] -= chosen / 12
    torch.testing.assert_close(swap_predictions(logits, labels, 2), expected)


def test_mutual_information_of_known_joints() -> None:
    alike = torch.eye(4) / 4
    independent = torch.full((4, 4), 1 / 16)
    some = torch.tensor([[4, 1, 0, 0], [1, 3, 0, 0], [0, 0, 5, 2], [1, 0, 0, 3]])
    expected = [np.log(4), 0, mutual_info_score(None, None, contingency=some.numpy())]
    np.testing.assert_allclose(mutual_information(torch.stack([alike, independent, some / 20])), expected, atol=1e-5)


def test_the_joint_distribution_is_symmetric() -> None:
    logits = _logits(1, 10, 3)
    first, second = (logits[0] / 0.1).softmax(dim=1).chunk(2)
    literal = sum(torch.outer(a, b) + torch.outer(b, a) for a, b in zip(first, second, strict=True)) / 10
    torch.testing.assert_close(compute_joint(logits)[0], literal)


def test_scan_equals_its_literal_form() -> None:
    scaled = _logits(1, 8, 3) * 10
    first, second = scaled[0].softmax(dim=1).chunk(2)
    same = -sum(torch.log(a @ b) for a, b in zip(first, second, strict=True)) / 4
    mean = scaled[0].softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(agree_with_neighbors(scaled)[0], same)
    torch.testing.assert_close(negative_entropy(scaled)[0], (mean * mean.log()).sum())


def test_self_labeling_is_of_confident_regions_with_classes_of_one_weight() -> None:
    first = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0.1, 0, 0]])  # the last is not confident
    second = _logits(4, 3)
    cross = F.cross_entropy(second, torch.tensor([0, 0, 1, 2]), reduction="none")
    expected = ((cross[0] + cross[1]) / 2 + cross[2]) / 2
    torch.testing.assert_close(label_itself(torch.cat([first, second])), expected)
    assert label_itself(torch.zeros(6, 3, requires_grad=True)) == 0


def test_gatcluster_equals_its_literal_form() -> None:
    probs, relation = (_logits(5, 3) * 3).softmax(dim=1), torch.eye(5)
    relation[0, 3] = relation[3, 0] = 1
    cross = []
    for i in range(5):
        for j in range(i + 1):
            cosine = F.cosine_similarity(probs[i], probs[j], dim=0).clamp(0, 1)
            cross.append(F.binary_cross_entropy(cosine, relation[i, j]))
    torch.testing.assert_close(separate(probs, relation), torch.stack(cross).mean())
    balanced = balance(torch.tensor([[[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4]]]))[0]
    assert (balanced[:3].argmax(dim=1) == 0).all()  # of the larger class, less than it was
    assert balanced[3].argmax() == 1


def test_gatcluster_relates_regions_of_one_cluster_only_where_there_are_clusters() -> None:
    probs = F.one_hot(torch.tensor([0, 0, 1, 1, 2])).float()
    assert torch.equal(relate(probs), probs @ probs.T)
    assert torch.equal(relate(torch.tensor([[0.5, 0.5]]).repeat(30, 1)), torch.eye(30))  # one cluster is empty


def test_the_margin_equals_its_literal_form() -> None:
    unit = F.normalize(_logits(4, 6), dim=1)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    mean = sum((unit[i] - unit[j]).square().sum() for i, j in pairs) / 6
    literal = sum(mean - (unit[i] - unit[j]).square().sum() + unit[i] @ unit[j] for i, j in pairs) / 4
    torch.testing.assert_close(compute_margin(3 * unit[None])[0], literal)


def test_expanded_neighborhoods_equal_their_literal_form() -> None:
    z, bank = F.normalize(_logits(8, 4), dim=1), F.normalize(_logits(9, 4, seed=1), dim=1)
    regions = torch.tensor([0, 1, 2, 5])
    near = torch.tensor([[1, 3], [0, 3], [4, 5], [2, 4]])
    expanded = torch.tensor([[0, 3, 1, 8], [1, 3, 0, 7], [2, 5, 6, 4], [5, 4, 8, 2]])
    losses = []
    for i in range(8):
        row = i % 4
        related = {int(regions[row]), *near[row].tolist(), *expanded[row].tolist()}
        positives = [z[(i + 4) % 8], *bank[near[row]], *bank[expanded[row]]]
        negatives = [z[j] for j in range(8) if int(regions[j % 4]) not in related]
        log_sum = torch.stack([z[i] @ other for other in [*positives, *negatives]]).logsumexp(dim=0)
        weights = [1.0] * 3 + [0.1] * 4
        terms = [w * (log_sum - z[i] @ other) for w, other in zip(weights, positives, strict=True)]
        losses.append(sum(terms) / 3.4)
    torch.testing.assert_close(contrast_neighborhoods(2 * z, bank, regions, near, expanded), sum(losses) / 8)


def test_simgcd_equals_its_literal_form() -> None:
    z, logits = _logits(8, 5), _logits(1, 8, 4, seed=1)
    labels = torch.tensor([-1, 0, -1, 1])
    found = Outputs(z, logits, logits[..., :0], torch.zeros(1, 4, 5))
    objective = SimGCD(TrainConfig(heads=1), Classes(("x", "y"), 2, has_normal=False))
    total, _ = objective.loss(found, BatchLabels(labels, torch.ones(4), torch.arange(4)), Epoch(99, 100))

    unit, log_probs, teacher = F.normalize(z, dim=1), (logits[0] / 0.1).log_softmax(1), (logits[0] / 0.04).softmax(1)
    mean, both = log_probs.exp().mean(dim=0), labels.repeat(2)
    labeled = [i for i in range(8) if both[i] >= 0]
    cls_u = -sum(teacher[(i + 4) % 8] @ log_probs[i] for i in range(8)) / 8
    reg = np.log(4) + (mean * mean.log()).sum()
    cls_s = -sum(log_probs[i, both[i]] for i in labeled) / 4

    def contrast(i: int, positives: list[int], others: list[int], tau: float) -> torch.Tensor:
        log_sum = torch.stack([unit[i] @ unit[j] / tau for j in others if j != i]).logsumexp(dim=0)
        return log_sum - torch.stack([unit[i] @ unit[j] / tau for j in positives]).mean()

    rep_u = sum(contrast(i, [(i + 4) % 8], list(range(8)), 1.0) for i in range(8)) / 8
    rep_s = sum(contrast(i, [j for j in labeled if j != i and both[j] == both[i]], labeled, 0.07) for i in labeled) / 4
    torch.testing.assert_close(total, 0.65 * (cls_u + 2 * reg + rep_u) + 0.35 * (cls_s + rep_s))


def test_neighbors_are_others() -> None:
    features = torch.tensor([[0.0], [0.0], [0.1], [5.0], [5.0]])
    assert find_neighbors(features, 1).flatten().tolist() == [1, 0, 0, 4, 3]
    assert find_neighbors(features, 9).shape == (5, 4)


def test_the_class_of_the_lowest_scores_is_the_first_novel_one() -> None:
    learner = Learner(TinyBackbone(), 4, 1, seed=0, projects=False)  # type: ignore[arg-type]
    before = learner.heads.weight_HCD.detach().clone()
    cls_N = torch.tensor([1, 1, 2, 2, 3])
    put_normal_first(learner, F.one_hot(cls_N)[None].float(), np.array([0.9, 0.5, 0.2, 0.1, 0.7], np.float32), n_base=1)
    assert torch.equal(learner.heads.weight_HCD, before[:, [0, 2, 1, 3]])
