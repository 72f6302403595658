"""Shapes, geometry and storage of the heads."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ancd_ray.method.heads import ClusterHeads, Projector


def test_projector_is_a_three_layer_perceptron() -> None:
    projector = Projector(dim=12)
    widths = [(layer.in_features, layer.out_features) for layer in projector if isinstance(layer, nn.Linear)]
    assert widths == [(12, 2048), (2048, 2048), (2048, 256)]
    assert projector(torch.randn(3, 12)).shape == (3, 256)


def test_cluster_heads_give_the_cosine_of_token_and_class_weight() -> None:
    heads = ClusterHeads(dim=6, n_classes=5, n_heads=3)
    token_ND = torch.randn(4, 6)
    expected = nn.functional.cosine_similarity(token_ND[None, :, None], heads.weight_HCD[:, None], dim=-1)
    torch.testing.assert_close(heads(token_ND), expected)
    torch.testing.assert_close(heads(7 * token_ND), expected)


def test_state_survives_safetensors(tmp_path: Path) -> None:
    heads, other = ClusterHeads(6, 5), ClusterHeads(6, 5)
    save_file(heads.state_dict(), tmp_path / "heads.safetensors")
    other.load_state_dict(load_file(tmp_path / "heads.safetensors"))
    token_ND = torch.randn(4, 6)
    assert torch.equal(heads(token_ND), other(token_ND))
