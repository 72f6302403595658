"""The ViT trunk: equality with timm's forward pass with boolean masks, weights files, and errors."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from ancd_ray.backbones.base import Encoded
from ancd_ray.backbones.timm_vit import TimmViT
from ancd_ray.method.mgvit import LastBlock, MaskMode, visible_tokens

DINO = ("vit_tiny_patch16_224", 64)
REGISTERS = ("vit_small_patch14_reg4_dinov2", 56)
ROTARY = ("vit_small_patch16_dinov3", 64)
ROTARY_BIAS = ("vit_small_patch16_dinov3_qkvb", 64)
MODELS = [DINO, REGISTERS, ROTARY, ROTARY_BIAS]
MASK_LAYERS = 9


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Use one thread: models this small gain nothing from more, and slow down on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Path]]:
    """Return a function that creates timm's model and its weights file.

    The weights are perturbed, because with initial ones LayerScale suppresses every block.
    """
    folder, made = tmp_path_factory.mktemp("weights"), {}

    def make(name: str, view_size: int) -> tuple[Any, Path]:
        if name not in made:
            torch.manual_seed(5)
            model = timm.create_model(name, num_classes=0, img_size=view_size, dynamic_img_size=True).eval()
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
            save_file(model.state_dict(), folder / f"{name}.safetensors")
            made[name] = model, folder / f"{name}.safetensors"
        return made[name]

    return make


def _batch(view_size: int) -> tuple[Tensor, Tensor]:
    """Return four views: a mask in a corner, an empty one, a full one, a stripe."""
    torch.manual_seed(6)
    masks = torch.zeros(4, view_size, view_size)
    masks[0, : view_size // 2, view_size // 3 :] = 1
    masks[2] = 1
    masks[3, :, : view_size // 4] = 1
    return torch.randn(4, 3, view_size, view_size), masks


@torch.no_grad()
def _plain(model: Any, images: Tensor, masks: Tensor, mode: MaskMode = "class", layers: int = MASK_LAYERS) -> Tensor:
    """Compute class tokens with timm's blocks and a boolean mask (B, 1, S, S) for the last ones."""
    patches = model.patch_embed(images)
    embedded = model._pos_embed(patches)
    x, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
    arguments = {} if rope is None else {"rope": rope}
    n_views, length = x.shape[:2]
    visible = torch.ones(n_views, length, dtype=torch.bool)
    visible[:, model.num_prefix_tokens :] = visible_tokens(masks, *patches.shape[1:3])
    is_class = torch.arange(length) == 0
    rows = {"class": is_class, "patch": ~is_class, "all": is_class | True, "none": is_class & False}[mode]
    allowed = (visible[:, None, :] | ~rows[None, :, None])[:, None]
    for index, block in enumerate(model.blocks):
        x = block(x, attn_mask=allowed if index >= len(model.blocks) - layers else None, **arguments)
    return model.norm(x)[:, 0]


def _packed(encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens as stored in a view bank: visible ones only, followed by zero padding."""
    lengths = encoded.visible_BN.sum(dim=1)
    tokens = torch.zeros(len(lengths), int(lengths.max()), encoded.tokens_BND.shape[-1])
    for row, (view, visible) in enumerate(zip(encoded.tokens_BND, encoded.visible_BN, strict=True)):
        tokens[row, : lengths[row]] = view[visible]
    return encoded.cls_BD, tokens, torch.arange(tokens.shape[1]) < lengths[:, None]


def _assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert float((actual - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("model", MODELS)
def test_whole_model_equals_the_plain_one(model: tuple[str, int], pair: Callable[..., tuple[Any, Path]]) -> None:
    plain, path = pair(*model)
    images, masks = _batch(model[1])
    vit = TimmViT(model[0], path, MASK_LAYERS, view_size=model[1])
    encoded, tail = vit.encode(images, masks), vit.make_tail()
    expected = _plain(plain, images, masks)
    assert encoded.tokens_BND.shape[-1] == vit.dim
    assert tail.dim == expected.shape[1]
    with torch.no_grad():
        _assert_close(tail(encoded.cls_BD, encoded.tokens_BND, encoded.visible_BN), expected, 1e-5)
        _assert_close(tail(*_packed(encoded)), expected, 1e-5)
    single = vit.encode(images[1:2], masks[1:2])  # the empty mask on its own
    _assert_close(tail(*_packed(single)).detach(), expected[1:2], 1e-5)


@pytest.mark.parametrize("model", [DINO, ROTARY])
@pytest.mark.parametrize("mode", ["patch", "all", "none"])
def test_the_other_rows_of_table_iv(
    mode: MaskMode, model: tuple[str, int], pair: Callable[..., tuple[Any, Path]]
) -> None:
    """Compare the other mask modes; rows of registers are masked like those of patches on both sides."""
    plain, path = pair(*model)
    images, masks = _batch(model[1])
    vit = TimmViT(model[0], path, 5, view_size=model[1], mask_mode=mode)
    _assert_close(
        vit.make_tail()(*_packed(vit.encode(images, masks))).detach(), _plain(plain, images, masks, mode, 5), 1e-5
    )


@pytest.mark.parametrize("model", MODELS)
def test_without_masks_it_is_timms_model(model: tuple[str, int], pair: Callable[..., tuple[Any, Path]]) -> None:
    plain, path = pair(*model)
    images, masks = _batch(model[1])
    vit = TimmViT(model[0], path, view_size=model[1], mask_mode="none")
    with torch.no_grad():
        expected = plain.forward_features(images)[:, 0]
        torch.testing.assert_close(vit.make_tail()(*vit.encode(images, masks)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_patch_features_are_timms_intermediates_at_any_size(
    model: tuple[str, int], pair: Callable[..., tuple[Any, Path]]
) -> None:
    plain, path = pair(*model)
    vit, patch = TimmViT(model[0], path, view_size=model[1]), plain.patch_embed.patch_size[0]
    assert (vit.stride, vit.multiple, vit.detector_layers) == (patch, patch, (5, 8))
    images = torch.randn(2, 3, 3 * patch, 5 * patch)
    with torch.no_grad():
        expected = plain.forward_intermediates(images, indices=[2, 11], norm=False, intermediates_only=True)
    for ours, theirs in zip(vit.patch_features(images, (11, 2)), reversed(expected), strict=True):
        assert ours.shape[2:] == (3, 5)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="0 to 11"):
        vit.patch_features(images, (12,))


def _two_steps(tail: LastBlock, inputs: tuple[Tensor, Tensor, Tensor]) -> list[float]:
    optimizer = torch.optim.SGD([p for p in tail.parameters() if p.requires_grad], lr=1e-3)
    target, losses = torch.randn(len(inputs[0]), tail.dim), []
    for _ in range(3):
        loss = (tail(*inputs) - target).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


@pytest.mark.parametrize("model", [DINO, ROTARY])
def test_the_tail_learns_and_the_trunk_does_not(model: tuple[str, int], pair: Callable[..., tuple[Any, Path]]) -> None:
    _, path = pair(*model)
    vit = TimmViT(model[0], path, view_size=model[1])
    before, tail = vit.digest(), vit.make_tail()
    norm_before = {name: value.clone() for name, value in tail.norm.state_dict().items()}
    cls, tokens, mask = _packed(vit.encode(*_batch(model[1])))
    losses = _two_steps(tail, (cls.half(), tokens.half(), mask))  # the bank stores 16 bits
    assert losses[0] > losses[1] > losses[2]
    assert vit.digest() == before
    assert all(torch.equal(value, norm_before[name]) for name, value in tail.norm.state_dict().items())
    fresh = vit.make_tail().state_dict()
    assert not torch.equal(fresh["block.v.weight"], tail.state_dict()["block.v.weight"])


def test_vit_b8_encodes_and_trains_on_a_cpu() -> None:
    vit = TimmViT("vit_base_patch8_224", "random")
    encoded = vit.encode(torch.randn(2, 3, 224, 224), torch.ones(2, 224, 224))
    assert encoded.tokens_BND.shape == (2, 784, 768)
    losses = _two_steps(vit.make_tail(), _packed(encoded))
    assert losses[0] > losses[1] > losses[2]


def test_random_weights_are_the_same_everywhere() -> None:
    torch.manual_seed(1)
    one = TimmViT(DINO[0], "random", view_size=32).digest()
    torch.manual_seed(2)
    assert TimmViT(DINO[0], "random", view_size=32).digest() == one
    assert TimmViT(DINO[0], "random", view_size=48).digest() != one


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "model."])
def test_checkpoints_of_a_training_run(prefix: str, tmp_path: Path, pair: Callable[..., tuple[Any, Path]]) -> None:
    """A full DINO checkpoint contains a teacher with a projection head, and the arguments of the run."""
    plain, path = pair(*DINO)
    teacher = {prefix + name: value for name, value in plain.state_dict().items()}
    full = {
        "teacher": teacher | {"head.mlp.0.weight": torch.zeros(2)},
        "student": {},
        "args": argparse.Namespace(lr=0.1),
    }
    torch.save(full, tmp_path / "full.pth")
    vit = TimmViT(DINO[0], tmp_path / "full.pth", view_size=DINO[1])
    assert vit.digest() == TimmViT(DINO[0], path, view_size=DINO[1]).digest()


def test_position_embeddings_of_another_grid_are_resampled(pair: Callable[..., tuple[Any, Path]]) -> None:
    plain, path = pair(*DINO)
    vit = TimmViT(DINO[0], path, view_size=96)
    plain_96 = timm.create_model(DINO[0], num_classes=0, img_size=DINO[1])
    plain_96.load_state_dict(plain.state_dict())
    plain_96.set_input_size(96)
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(
        vit.patch_features(images, (0,)),
        plain_96.forward_intermediates(images, indices=[0], norm=False, intermediates_only=True),
        rtol=1e-4,
        atol=1e-4,
    )


def _spoil(path: Path, folder: Path, how: str) -> Path:
    state = torch.nn.Module.state_dict(timm.create_model(DINO[0], num_classes=0, img_size=DINO[1]))
    target = folder / "spoiled.pth"
    if how == "missing":
        del state["blocks.3.attn.proj.bias"]
    elif how == "shape":
        state["norm.weight"] = torch.ones(7)
    elif how == "patch":
        state["patch_embed.proj.weight"] = torch.ones(192, 3, 8, 8)
    elif how == "position":
        state["pos_embed"] = torch.ones(1, 12, 192)
    torch.save(state, target)
    if how == "broken":
        target.write_bytes(target.read_bytes()[:1000])
    elif how == "pickle":
        torch.save({"model": path, "loader": _spoil}, target)
    return {"absent": folder / "absent.pth", "suffix": folder / "weights.bin"}.get(how, target)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no blocks.3.attn.proj.bias"),
        ("shape", "another shape of norm.weight"),
        ("patch", "another shape of patch_embed.proj.weight"),
        ("position", "does not fit the model"),
        ("broken", "cannot read the weights"),
        ("pickle", "cannot read the weights"),
        ("absent", "cannot read the weights"),
        ("suffix", ".safetensors or .pth"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(how: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        TimmViT(DINO[0], _spoil(tmp_path, tmp_path, how), view_size=DINO[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vit_base_patch8_224.dinoo"}, "did you mean 'vit_base_patch8_224.dino'"),
        ({"name": "resnet50"}, "not a plain ViT with a class token"),
        ({"name": "vit_base_patch16_siglip_224"}, "not a plain ViT with a class token"),
        ({"name": "vit_tiny_patch16_224", "view_size": 100}, "not a multiple of .* patch, 16 px"),
        ({"name": "vit_tiny_patch16_224", "mask_layers": 13}, "mask_layers must be 1 to 12"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        TimmViT(**{"weights": "random", "view_size": 64, **arguments})
    assert "\n" not in str(caught.value)


def test_unavailable_weights_say_how_to_download_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"ancd-ray weights pull vit_tiny_patch16_224 --to DIR.*backbone.weights=FILE"
    ) as caught:
        TimmViT("vit_tiny_patch16_224", view_size=32)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
