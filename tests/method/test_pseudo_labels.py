"""Teacher temperature, normal weight and corrected pseudo labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ancd_ray.method.pseudo_labels import normal_weight, pseudo_labels, teacher_temperature


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> dict[str, Any]:
    return json.loads((shared_dir / "golden" / "loss_golden.json").read_text())


def test_schedules_golden(golden: dict[str, Any]) -> None:
    for case in golden["teacher_temp_schedule"]:
        epochs, warmup = case["epochs"], case["warmup_epochs"]
        steps = warmup // case["repeat"]
        ours = [
            teacher_temperature(
                epoch, epochs, start=case["start"], end=case["end"], warmup_share=warmup / epochs, steps=steps
            )
            for epoch in range(epochs)
        ]
        assert ours == pytest.approx(case["values"], abs=1e-7)


def test_defaults_are_the_published_schedule() -> None:
    values = [teacher_temperature(epoch, 50) for epoch in range(50)]
    levels = [0.07 - 0.03 * step / 9 for step in range(10)]
    assert values == pytest.approx([level for level in levels for _ in range(4)] + [0.04] * 10)


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7, 13, 49, 200])
def test_schedule_of_any_length_falls_from_start_towards_end(epochs: int) -> None:
    values = [teacher_temperature(epoch, epochs) for epoch in range(epochs)]
    assert values[0] == 0.07
    assert values == sorted(values, reverse=True)
    assert min(values) >= 0.04 - 1e-12
    assert epochs == 1 or values[-1] == pytest.approx(0.04)


def test_normal_weight_golden(golden: dict[str, Any]) -> None:
    case = golden["pseudo_label_weights"]
    weights = normal_weight(torch.tensor(case["scores"], dtype=torch.float64))
    torch.testing.assert_close(weights, torch.tensor(case["weights"], dtype=torch.float64))


def test_pseudo_labels_by_hand() -> None:
    logits = torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.2, -0.2]], requires_grad=True)
    probs = pseudo_labels(logits, n_base=1, teacher_temp=0.1, normal_weight_N=torch.tensor([0.5, 0.0]))
    first = torch.sigmoid(torch.tensor(4.0)).item()
    torch.testing.assert_close(probs, torch.tensor([[0.0, 0.75, 0.25], [0.0, first, 1 - first]]))
    assert not probs.requires_grad


def test_pseudo_labels_of_several_heads_are_those_of_each() -> None:
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    weight = torch.tensor([0.0, 0.1, 0.3, 0.5])
    together = pseudo_labels(logits, 2, 0.05, weight)
    torch.testing.assert_close(together, torch.stack([pseudo_labels(head, 2, 0.05, weight) for head in logits]))
    torch.testing.assert_close(together.sum(-1), torch.ones(3, 4))
