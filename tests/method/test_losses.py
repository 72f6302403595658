"""Training objective: golden values, values computed by hand, and edge cases."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ancd_ray.method.losses import (
    LossWeights,
    cluster_distillation,
    info_nce,
    labeled_cross_entropy,
    mean_entropy_regularizer,
    supcon,
    total_loss,
)
from ancd_ray.method.pseudo_labels import pseudo_labels

RELATIVE = 1e-5


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> dict[str, Any]:
    return json.loads((shared_dir / "golden" / "loss_golden.json").read_text())


def _batch(n_base: int = 2, labels: tuple[int, ...] = (0, -1, 1, -1)) -> dict[str, Any]:
    """Return arguments of total_loss: two heads, three novel classes."""
    rng = torch.Generator().manual_seed(0)
    labels_B = torch.tensor(labels, dtype=torch.int64)
    rows = 2 * len(labels)
    return {
        "z_2BD": torch.randn(rows, 8, generator=rng).requires_grad_(),
        "logits_H2BC": (torch.rand(2, rows, n_base + 3, generator=rng) * 2 - 1).requires_grad_(),
        "labels_B": labels_B,
        "normal_weight_B": torch.linspace(0, 0.5, len(labels)),
        "n_base": n_base,
        "teacher_temp": 0.05,
        "weights": LossWeights(),
    }


def test_info_nce_golden(golden: dict[str, Any]) -> None:
    for case in golden["info_nce"]:
        loss = info_nce(torch.tensor(case["features"]), case["temperature"])
        assert loss.item() == pytest.approx(case["loss"], rel=RELATIVE, abs=1e-7)


def test_supcon_golden(golden: dict[str, Any]) -> None:
    for case in golden["supcon"]:
        loss = supcon(torch.tensor(case["features"]), torch.tensor(case["labels"]), case["temperature"])
        assert loss.item() == pytest.approx(case["loss"], rel=RELATIVE, abs=1e-7)


def test_distillation_golden_with_gradient(golden: dict[str, Any]) -> None:
    for case in golden["distill"]:
        student = torch.tensor(case["student"], requires_grad=True)
        weight = torch.tensor(case["sample_weights_per_sample"]).repeat(2)
        teacher = pseudo_labels(torch.tensor(case["teacher"]), case["num_labeled"], case["teacher_temp"], weight)
        loss = cluster_distillation(student, teacher, case["student_temp"])
        loss.backward()
        assert loss.item() == pytest.approx(case["loss"], rel=RELATIVE)
        torch.testing.assert_close(student.grad, torch.tensor(case["grad_student"]), rtol=RELATIVE, atol=2e-7)


def test_mean_entropy_golden(golden: dict[str, Any]) -> None:
    for case in golden["mean_entropy"]:
        loss = mean_entropy_regularizer(torch.tensor(case["student"]))
        assert loss.item() == pytest.approx(case["loss"], rel=RELATIVE)


def test_labeled_cross_entropy_golden(golden: dict[str, Any]) -> None:
    for case in golden["cls_ce"]:
        loss = labeled_cross_entropy(torch.tensor(case["logits"]), torch.tensor(case["labels"]))
        assert loss.item() == pytest.approx(case["loss"], rel=RELATIVE)


def test_mean_entropy_by_hand() -> None:
    one_class = torch.tensor([[1.0, -1.0, -1.0], [1.0, -1.0, -1.0]])
    assert mean_entropy_regularizer(one_class, 0.01).item() == pytest.approx(math.log(3), rel=1e-6)
    even = torch.eye(3)
    assert mean_entropy_regularizer(even).item() == pytest.approx(0, abs=1e-6)
    assert mean_entropy_regularizer(one_class, n_base=1).item() == pytest.approx(0, abs=1e-6)


def test_mean_entropy_gradient_is_finite_where_a_class_is_unused() -> None:
    logits = torch.tensor([[1.0, -1.0]], requires_grad=True)
    mean_entropy_regularizer(logits, temperature=0.005).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_total_is_the_weighted_sum_of_eq_9_over_the_right_rows() -> None:
    batch = _batch()
    batch["weights"] = LossWeights(lam=0.2, mu=3.0)
    total, terms = total_loss(**batch)
    novel, base = [1, 3, 5, 7], [0, 2, 4, 6]
    logits, labels = batch["logits_H2BC"].detach(), torch.tensor([0, 1])
    weight = batch["normal_weight_B"][[1, 3]].repeat(2)
    cls_u = [cluster_distillation(head[novel], pseudo_labels(head[novel], 2, 0.05, weight)) for head in logits]
    reg = [mean_entropy_regularizer(head[novel]) for head in logits]
    cls_l = [labeled_cross_entropy(head[base], labels) for head in logits]
    rep_s, rep_u = supcon(batch["z_2BD"][base], labels, 0.07), info_nce(batch["z_2BD"], 1.0)
    expected = 0.2 * (rep_s + sum(cls_l) / 2) + 0.8 * (rep_u + sum(cls_u) / 2 + 3.0 * sum(reg) / 2)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(terms["clustering_H"], torch.stack(cls_u) + 3.0 * torch.stack(reg))
    assert not any(term.requires_grad for term in terms.values())


def test_sizes_are_the_minimum_of_the_regularizer() -> None:
    sizes = (0.7, 0.2, 0.1)
    logits = torch.tensor(sizes).log().expand(4, 3)
    assert mean_entropy_regularizer(logits, 1.0, sizes=sizes).item() == pytest.approx(0, abs=1e-6)
    assert mean_entropy_regularizer(logits, 1.0).item() > 0.2
    thirds = mean_entropy_regularizer(logits, 1.0, sizes=(1 / 3,) * 3)
    torch.testing.assert_close(thirds, mean_entropy_regularizer(logits, 1.0))


def test_novel_only_regularizes_without_the_base_classes() -> None:
    batch = _batch() | {"weights": LossWeights(novel_only=True)}
    novel_logits = batch["logits_H2BC"][:, [1, 3, 5, 7], 2:]
    torch.testing.assert_close(total_loss(**batch)[1]["reg"], mean_entropy_regularizer(novel_logits).mean().detach())


@pytest.mark.parametrize(
    ("labels", "n_base", "absent"),
    [
        ((-1, -1, -1), 0, ("rep_s", "cls_l")),
        ((-1,), 2, ("rep_s", "cls_l", "rep_u")),
        ((0, 1), 2, ("cls_u", "reg")),
        ((1,), 2, ("cls_u", "reg", "rep_u", "rep_s")),
        ((), 2, ("cls_u", "reg", "rep_u", "rep_s", "cls_l")),
    ],
)
def test_terms_without_rows_are_zero_and_gradients_finite(
    labels: tuple[int, ...], n_base: int, absent: tuple[str, ...]
) -> None:
    batch = _batch(n_base=n_base, labels=labels)
    total, terms = total_loss(**batch)
    total.backward()
    assert {name: terms[name].item() for name in absent} == pytest.approx(dict.fromkeys(absent, 0.0), abs=1e-6)
    for name in ("z_2BD", "logits_H2BC"):
        assert batch[name].grad.isfinite().all()
    assert total.isfinite()


def test_losses_fall_when_trained() -> None:
    batch = _batch(labels=(0, 1, -1, -1, -1, -1))
    optimizer = torch.optim.Adam([batch["z_2BD"], batch["logits_H2BC"]], lr=0.01)
    first = total_loss(**batch)[0].item()
    for _ in range(30):
        optimizer.zero_grad()
        loss, _ = total_loss(**batch)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.8 * first
