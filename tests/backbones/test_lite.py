"""The `lite` backbone: packaged weights, folded norms and the tail equal their reference implementations."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ancd_ray.backbones import exported, load
from ancd_ray.backbones.lite import Lite, LiteTail, _state_dict


@pytest.fixture(scope="module")
def lite() -> Lite:
    return Lite()


def test_weights_are_those_of_imagenet() -> None:
    """With timm's classifier, the packaged weights confidently distinguish uniform gray from stripes."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(_state_dict(None))
    stripes = torch.zeros(1, 3, 224, 224)
    stripes[..., ::8] = 2
    with torch.inference_mode():
        flat_probs, stripe_probs = model(torch.zeros(1, 3, 224, 224)).softmax(-1), model(stripes).softmax(-1)
    assert flat_probs.argmax() != stripe_probs.argmax()
    assert stripe_probs.max() > 0.2  # random weights give about 0.001


def test_folded_norms_and_constant_padding_change_nothing(lite: Lite) -> None:
    plain = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(3, 4)).eval()
    plain.load_state_dict(_state_dict(None), strict=False)
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = plain(images)
    for found, wanted in zip(lite.patch_features(images, (16, 32)), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_images_that_go_through_the_trunk_in_parts_keep_their_order(
    lite: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(5, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(exported, "_PIXELS", 2 * 64 * 96 // torch.get_num_threads())
    for found, expected in zip(
        Lite().patch_features(images, (8, 32)), lite.patch_features(images, (8, 32)), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_encode_follows_the_mask(lite: Lite) -> None:
    images = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(3, 224, 224)
    masks[0, :32, :48] = 1  # two by three patches
    masks[1, 100:104, 100:104] = 1  # less than half of a patch
    encoded = lite.encode(images, masks)
    assert encoded.tokens_BND.shape == (3, 196, lite.dim)
    assert encoded.visible_BN.sum(dim=1).tolist() == [6, 0, 0]
    tokens, grid = encoded.tokens_BND, torch.arange(196).reshape(14, 14)
    torch.testing.assert_close(encoded.cls_BD[0], tokens[0, grid[:2, :3].flatten()].mean(dim=0))
    torch.testing.assert_close(encoded.cls_BD[1], tokens[1, grid[6, 6]])
    torch.testing.assert_close(encoded.cls_BD[2], tokens[2].mean(dim=0))


def test_a_share_of_the_surroundings_is_subtracted(lite: Lite) -> None:
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 224, 224)
    masks[0, 96:128, 96:128] = 1  # two by two patches; an empty mask has no surroundings
    ringed = load("lite", ring=0.5)
    plain, found = lite.encode(images, masks), ringed.encode(images, masks)
    grid = torch.arange(196).reshape(14, 14)
    around = sorted(set(grid[4:10, 4:10].flatten().tolist()) - set(grid[6:8, 6:8].flatten().tolist()))
    tokens = plain.tokens_BND[0, around]
    weight, *_ = torch.linalg.lstsq(tokens.T, 2 * (plain.cls_BD - found.cls_BD)[0][:, None])
    assert weight.min() >= -1e-3
    assert weight.sum().item() == pytest.approx(1, abs=1e-3)  # a mean of the tokens around it, and of no others
    torch.testing.assert_close(found.cls_BD[1], plain.cls_BD[1] / 2)
    torch.testing.assert_close(found.tokens_BND, plain.tokens_BND)
    assert (lite.color_normalization, ringed.color_normalization) == ("kept", "centred")
    with pytest.raises(ValueError, match=r"backbone\.ring: the class token of vit_tiny_patch16_224 is no average"):
        load("vit_tiny_patch16_224", "random", ring=0.5)


def test_tail_is_ordinary_attention() -> None:
    torch.manual_seed(0)
    tail = LiteTail((12, 20))
    with torch.no_grad():
        tail.gain_attention.fill_(1.0)
        tail.gain_mlp.fill_(0.0)
    cls, tokens = torch.randn(3, 32), torch.randn(3, 7, 32)
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4, [False] * 7])
    for row in range(3):
        seen = F.layer_norm(torch.cat([cls[row : row + 1], tokens[row][mask[row]]]), (32,))
        query = tail.query(seen[:1]).reshape(1, 8, 4).transpose(0, 1)
        keys = torch.einsum("ld,aed->ale", seen, tail.key_AED)
        values = torch.einsum("ld,aed->ale", seen, tail.value_AED)
        expected = cls[row] + tail.out(F.scaled_dot_product_attention(query, keys, values).flatten())
        torch.testing.assert_close(tail(cls, tokens, mask)[row], expected)


def test_calibration_centers_and_balances_the_strides(lite: Lite) -> None:
    tail = LiteTail((112, 320))
    cls = torch.randn(50, lite.dim) * torch.cat([torch.full((112,), 3.0), torch.full((320,), 0.1)]) + 5
    tail.calibrate(cls)
    centered = (cls - tail.mean_D) * tail.scale_D
    assert centered.mean(dim=0).abs().max() < 1e-4
    lengths = [float(part.square().sum(dim=1).mean()) for part in centered.split([112, 320], dim=1)]
    assert lengths == pytest.approx([lite.dim / 2] * 2, rel=1e-3)


def test_weights_from_a_file(lite: Lite, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in _state_dict(None).items()}, tmp_path / "lite.safetensors")
    assert load("lite", str(tmp_path / "lite.safetensors")).digest() == lite.digest()
    with pytest.raises(ValueError, match="has sha256"):
        load("lite", str(tmp_path / "lite.safetensors"), sha256="0" * 64)
    with pytest.raises(ValueError, match="no such file"):
        load("lite", str(tmp_path / "other.safetensors"))
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match="not the weights"):
        load("lite", str(tmp_path / "wrong.safetensors"))
