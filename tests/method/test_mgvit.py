"""Mask-guided attention: outputs and gradients equal those of plain attention with boolean masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ancd_ray.method.mgvit import GuidedBlock, MaskMode, guided_attention, rotate, visible_tokens

DIM = 24
MASKS = ["some", "empty", "full"]
MODES: list[MaskMode] = ["class", "patch", "all", "none"]


def _block(heads: int, head_dim: int | None = None, normed_keys: bool = True) -> GuidedBlock:
    width = heads * (head_dim or DIM // heads)
    return GuidedBlock(
        heads,
        norm1=nn.LayerNorm(DIM),
        q=nn.Linear(DIM, width),
        k=nn.Linear(DIM, width, bias=not normed_keys),
        v=nn.Linear(DIM, width),
        proj=nn.Linear(width, DIM),
        norm2=nn.LayerNorm(DIM),
        mlp=nn.Sequential(nn.Linear(DIM, 48), nn.GELU(), nn.Linear(48, DIM)),
        q_norm=nn.LayerNorm(width // heads),
        k_norm=nn.LayerNorm(width // heads) if normed_keys else None,
        scale1=nn.Linear(DIM, DIM, bias=False),
        rotate_half=heads == 1,
    )


def _visible(kind: str, views: int, patches: int) -> Tensor:
    visible = torch.rand(views, patches) > 0.6 if kind == "some" else torch.full((views, patches), kind == "full")
    return torch.cat([torch.ones(views, 1, dtype=torch.bool), visible], dim=1)


def _allowed(visible_BS: Tensor, mode: MaskMode) -> Tensor:
    """Return the boolean matrix (B, S, S) of eq. 2: whether row i attends to column j."""
    length = visible_BS.shape[1]
    is_class = torch.arange(length) == 0
    masked_rows = {"class": is_class, "patch": ~is_class, "all": is_class | True, "none": is_class & False}[mode]
    return visible_BS[:, None, :] | ~masked_rows[None, :, None]


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, allowed_BSS: Tensor) -> Tensor:
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return logits.masked_fill(~allowed_BSS[:, None], -torch.inf).softmax(dim=-1) @ v


def _plain_block(block: GuidedBlock, x: Tensor, allowed_BSS: Tensor, table: Tensor | None) -> Tensor:
    """Compute all rows of the block, layer by layer."""

    def heads(projection: nn.Module) -> Tensor:
        return projection(block.norm1(x)).unflatten(-1, (block.heads, -1)).transpose(1, 2)

    q, k, v = block.q_norm(heads(block.q)), block.k_norm(heads(block.k)), heads(block.v)
    if table is not None:
        q, k = rotate(q, table, block.rotate_half), rotate(k, table, block.rotate_half)
    x = x + block.scale1(block.proj(_plain_attention(q, k, v, allowed_BSS).transpose(1, 2).flatten(2)))
    return x + block.scale2(block.mlp(block.norm2(x)))


def _assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Assert equality to 1e-6, relative to the largest value."""
    assert float((actual - expected).detach().abs().max()) <= 1e-6 * float(expected.detach().abs().max())


def _table(length: int, width: int) -> Tensor:
    angles = torch.randn(length, width // 2).repeat(1, 2)
    angles[0] = 0  # the class token has no position
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def test_visible_means_half_of_the_patch() -> None:
    masks = torch.zeros(2, 8, 12)
    masks[0, :2, :4] = 1  # half of the first patch
    masks[0, 4:, 8:] = 1  # all of the last
    masks[0, 4, :4] = 1  # a quarter of the fourth
    masks[1] = 0.49
    assert visible_tokens(masks, 2, 3).tolist() == [[True, False, False, False, False, True], [False] * 6]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("views", "heads"), [(3, 4), (1, 1)])
def test_attention_equals_the_plain_one(mode: MaskMode, kind: str, views: int, heads: int) -> None:
    torch.manual_seed(0)
    visible = _visible(kind, views, 10)
    q, k, v = (torch.randn(views, heads, 11, 8) for _ in range(3))
    _assert_equal(guided_attention(q, k, v, visible, mode), _plain_attention(q, k, v, _allowed(visible, mode)))


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("views", "heads"), [(3, 4), (1, 1)])
def test_block_equals_the_plain_one(rotary: bool, mode: MaskMode, kind: str, views: int, heads: int) -> None:
    torch.manual_seed(1)
    block, x, visible = _block(heads), torch.randn(views, 11, DIM), _visible(kind, views, 10)
    table = _table(11, DIM // heads) if rotary else None
    _assert_equal(
        block(x, table, visible_BS=visible, mode=mode), _plain_block(block, x, _allowed(visible, mode), table)
    )


@pytest.mark.parametrize(("rotary", "normed_keys"), [(False, True), (True, True), (False, False), (True, False)])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("views", "heads"), [(3, 4), (1, 1)])
def test_class_row_of_packed_tokens_equals_the_plain_block(
    rotary: bool, normed_keys: bool, kind: str, views: int, heads: int
) -> None:
    """Compare outputs and gradients of every weight and of the tokens; the padding has arbitrary values."""
    torch.manual_seed(2)
    block, x, visible = (
        _block(heads, 8, normed_keys),
        torch.randn(views, 11, DIM, requires_grad=True),
        _visible(kind, views, 10),
    )
    table = _table(11, 8) if rotary else None
    longest = int(visible.sum(dim=1).max())
    order = visible.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    packed_visible = visible.gather(1, order)
    packed = x.gather(1, order[..., None].expand(-1, -1, DIM))
    packed = torch.where(packed_visible[..., None], packed, torch.tensor(1e3))

    fast = block.class_row(packed, None if table is None else table[order][:, None], visible_BS=packed_visible)
    plain = _plain_block(block, x, _allowed(visible, "class"), table)[:, 0]
    _assert_equal(fast, plain)

    direction, inputs = torch.randn_like(plain), [x, *block.parameters()]
    fast_grads = torch.autograd.grad((fast * direction).sum(), inputs)
    plain_grads = torch.autograd.grad((plain * direction).sum(), inputs)
    # All in one vector: the gradient of a key's bias is only rounding error and has no scale of its own.
    _assert_equal(torch.cat([g.flatten() for g in fast_grads]), torch.cat([g.flatten() for g in plain_grads]))


def test_with_an_empty_mask_the_class_token_attends_only_to_itself() -> None:
    torch.manual_seed(3)
    block, visible = _block(4), _visible("empty", 2, 6)
    x, other = torch.randn(2, 7, DIM), torch.randn(2, 7, DIM)
    other[:, 0] = x[:, 0]
    assert torch.equal(block.class_row(x, visible_BS=visible), block.class_row(other, visible_BS=visible))
    _assert_equal(block(x, visible_BS=visible)[:, 0], block(x[:, :1])[:, 0])
