"""`timm_vit`: any plain timm ViT with a class token as a frozen, mask-guided trunk (MGViT, Section III-C1).

Supports DINO, DINOv2 with and without registers, and DINOv3 with rotary positions; the layers are timm's, the attention
is that of `method.mgvit`. `Encoded` carries two additions:
- register tokens follow the N patches and are always visible, since the mask does not apply to them;
- with rotary positions every token has two more channels, (row + 1, column + 1), 0 for "no position", because the
  trainable block receives visible tokens only and needs their positions. Exact in 16 bits.

Shape suffixes as in `method.mgvit`; a sequence S consists of the class token, the registers and the N patches.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from timm.layers import Attention, AttentionRope, LayerScale
from timm.models import eva, is_model_in_modules, vision_transformer
from torch import Tensor, nn

from ancd_ray.backbones.base import Encoded
from ancd_ray.backbones.timm_weights import download, load_weights
from ancd_ray.method.mgvit import (
    GuidedBlock,
    LastBlock,
    MaskMode,
    grid_positions,
    prepend_identity_rotations,
    visible_tokens,
)
from ancd_ray.method.views import ColorNormalization

_TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 65536}  # more does not speed up CPUs; a GPU needs larger batches


class TimmViT:
    """Frozen, mask-guided timm ViT; see `base.Backbone`.

    Parameters
    ----------
    name
        Name of a timm model, with its pretrained tag.
    weights
        `timm` (the hub or its cache), a file (see `load_weights`) or `random` (the same on every machine).
    mask_layers
        L_m, number of last blocks that are mask-guided; 1 is the trainable block only.
    device
        Device of the trunk; on CUDA it runs in bfloat16.
    view_size
        Side of a view in pixels, a multiple of the patch size.
    mask_mode
        Rows of the attention that are masked (Table IV); registers count as patches.

    Raises
    ------
    ValueError
        Unknown model, not a plain ViT with a class token, or weights that are missing or do not fit.
    """

    color_normalization: ColorNormalization = "kept"
    lr = 0.003  # value of the paper, for a pretrained block
    projector_width = 2048  # value of the paper

    def __init__(
        self,
        name: str,
        weights: str | Path = "timm",
        mask_layers: int = 9,
        device: str = "cpu",
        view_size: int = 224,
        *,
        mask_mode: MaskMode = "class",
    ) -> None:
        model = _create(name, view_size)
        if weights == "timm":
            download(model, name)
        elif weights != "random":
            load_weights(model, Path(weights))
        depth = len(model.blocks)
        if not 1 <= mask_layers <= depth:
            raise ValueError(f"mask_layers must be 1 to {depth} for {name}, not {mask_layers}")

        self.name, self.view_size, self.mask_mode = name, view_size, mask_mode
        self.device = device
        self._model = model.eval().requires_grad_(False).to(self.device)
        self._blocks = [_make_guided_block(block) for block in model.blocks]
        self._mask_start = depth - mask_layers
        self._n_registers = model.num_prefix_tokens - 1
        self._rotary = getattr(model, "rope", None) is not None
        self.dim: int = model.embed_dim + 2 * self._rotary
        self.widths: tuple[int, ...] = (model.embed_dim,)  # without the positions
        self.multiple = self.stride = int(model.patch_embed.patch_size[0])
        # blocks 6 and 9 of 12; all blocks have the same scale
        self.detector_layers: tuple[int, ...] = (depth // 2 - 1, 3 * depth // 4 - 1)
        self.class_layers: tuple[int, ...] = (max(depth - 2, 0),)  # what the trainable block reads
        config = resolve_model_data_config(model)
        self.mean: tuple[float, float, float] = config["mean"]
        self.std: tuple[float, float, float] = config["std"]

    @property
    def tokens_ignore_mask(self) -> bool:
        """Whether only the class token's attention is masked, or none."""
        return self.mask_mode in ("class", "none")

    # no_grad instead of inference_mode: the trainable block saves these tensors for its backward pass.
    @torch.no_grad()
    def encode(self, images_BCHW: Tensor, masks_BHW: Tensor, keep_hidden: bool = False) -> Encoded:
        """Compute class token and tokens before the last block.

        Unless `keep_hidden`, tokens that are not visible are not computed to the end. Views are encoded in small
        batches, because the intermediate tensors of a block are many times larger than its output.
        """
        assert images_BCHW.shape[2:] == (self.view_size, self.view_size), "the tail has the positions of this grid only"
        views = max(1, _TOKENS_AT_ONCE[torch.device(self.device).type] // (self.view_size // self.stride) ** 2)
        batches = zip(torch.split(images_BCHW, views), torch.split(masks_BHW, views), strict=True)
        encoded = [self._encode(*batch, keep_hidden) for batch in batches]
        return Encoded.concat(encoded if keep_hidden else [batch.pack() for batch in encoded])

    def _encode(self, images_BCHW: Tensor, masks_BHW: Tensor, keep_hidden: bool) -> Encoded:
        with self._precision():
            x_BSD, table, rows, cols = self._embed(images_BCHW)
            patches_BN = visible_tokens(masks_BHW.to(self.device), rows, cols)
            visible_BS = F.pad(patches_BN, (1 + self._n_registers, 0), value=True)
            for block in self._blocks[: max(self._mask_start - 1, 0)]:
                x_BSD = block(x_BSD, table)
            x_BSD = self._guide(x_BSD, table, visible_BS, keep_hidden)
        if self.mask_mode in ("patch", "none"):
            visible_BS = torch.ones_like(visible_BS)  # for the class token, the only row that the tail computes
        if self._rotary:
            positions_S2 = grid_positions(rows, cols, 1 + self._n_registers).to(self.device)
            x_BSD = torch.cat([x_BSD, positions_S2.expand(len(x_BSD), -1, -1)], dim=-1)
        first = 1 + self._n_registers  # from class token, registers, patches to patches, registers
        tokens_BND = torch.cat([x_BSD[:, first:], x_BSD[:, 1:first]], dim=1)
        visible_BN = torch.cat([visible_BS[:, first:], visible_BS[:, 1:first]], dim=1)
        return Encoded(x_BSD[:, 0].clone(), tokens_BND, visible_BN)  # a slice would keep the whole batch in memory

    def make_tail(self) -> LastBlock:
        """Create a trainable copy of the last block with the frozen final norm."""
        side = self.view_size // self.stride
        table = self._model.rope.get_embed(shape=(side, side)) if self._rotary else None
        norm = self._model.fc_norm if isinstance(self._model.norm, nn.Identity) else self._model.norm
        return LastBlock(copy.deepcopy(self._blocks[-1]), copy.deepcopy(norm), self._model.embed_dim, table, side)

    @torch.no_grad()
    def patch_features(self, images_BCHW: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        """Compute outputs (B, C, rows, cols) of the blocks `layers`, counted from 0.

        The sides of the images must be multiples of the patch size.
        """
        if not layers or not all(0 <= layer < len(self._blocks) for layer in layers):
            raise ValueError(f"layers of {self.name} are 0 to {len(self._blocks) - 1}, not {layers}")
        outputs = []
        with self._precision():
            x_BSD, table, rows, cols = self._embed(images_BCHW)
            for block in self._blocks[: max(layers) + 1]:
                x_BSD = block(x_BSD, table)
                outputs.append(x_BSD[:, 1 + self._n_registers :])
        return [outputs[layer].transpose(1, 2).unflatten(2, (rows, cols)) for layer in layers]

    def digest(self) -> str:
        """Compute the sha256 of names, shapes and values of all weights, the initial trainable block included."""
        sha = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.cpu().contiguous().flatten().numpy())
        return sha.hexdigest()

    def _precision(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")

    def _embed(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor | None, int, int]:
        """Compute the sequence before the first block.

        Returns
        -------
        x_BSD : Tensor
            The sequence.
        table : Tensor or None
            Its rotary table, if the model has one.
        rows, cols : int
            Size of the patch grid.
        """
        patches_BHWD = self._model.patch_embed(images_BCHW.to(self.device))
        rows, cols = patches_BHWD.shape[1:3]
        embedded = self._model._pos_embed(patches_BHWD)
        x_BSD, rope_N2d = embedded if isinstance(embedded, tuple) else (embedded, None)
        table = None if rope_N2d is None else prepend_identity_rotations(rope_N2d, 1 + self._n_registers)
        return self._model.norm_pre(x_BSD), table, rows, cols

    def _guide(self, x_BSD: Tensor, table: Tensor | None, visible_BS: Tensor, keep_hidden: bool) -> Tensor:
        """Apply the last block without a mask and the mask-guided blocks, except for the trainable one.

        Unless `keep_hidden`, tokens not used later are not updated: all but the class token if it attends to no other
        token from here on, and tokens that are hidden from it in the trainable block.
        """
        first = max(self._mask_start - 1, 0)
        unguided, guided = self._blocks[first : self._mask_start], self._blocks[self._mask_start : -1]
        alone_B = ~visible_BS[:, 1:].any(dim=1)
        if not keep_hidden and self.mask_mode in ("class", "all") and alone_B.any():
            cls_B1D, others_B = x_BSD[alone_B, :1], ~alone_B
            for block in unguided:
                cls_B1D = block.class_row(x_BSD[alone_B], table, visible_BS=torch.ones_like(visible_BS[alone_B]))[
                    :, None
                ]
            for block in guided:
                cls_B1D = block(cls_B1D)
            x_BSD[alone_B, :1] = cls_B1D.to(x_BSD.dtype)
            if others_B.any():
                x_BSD[others_B] = self._guide(x_BSD[others_B], table, visible_BS[others_B], keep_hidden)
            return x_BSD
        for block in unguided:
            x_BSD = block(x_BSD, table)
        some_rows = self.mask_mode == "class" and not keep_hidden  # of the last block, those of visible tokens
        for block in guided[:-1] if some_rows else guided:
            x_BSD = block(x_BSD, table, visible_BS=visible_BS, mode=self.mask_mode)
        if guided and some_rows:
            longest = int(visible_BS.sum(dim=1).max())
            rows_BR = visible_BS.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
            found_BRD = guided[-1].selected_rows(x_BSD, rows_BR, table, visible_BS=visible_BS)
            x_BSD = x_BSD.scatter(1, rows_BR[..., None].expand_as(found_BRD), found_BRD.to(x_BSD.dtype))
        return x_BSD


def _create(name: str, view_size: int) -> Any:
    """Create an untrained timm model for views of the given size, with weights drawn from a fixed seed."""
    known = {*timm.list_models(), *timm.list_pretrained()}
    if name not in known:
        close = difflib.get_close_matches(name, sorted(known), n=1)
        raise ValueError(f"timm has no model {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    refusal = f"{name} is not a plain ViT with a class token; use a DINO model such as 'vit_base_patch8_224.dino'"
    if not is_model_in_modules(name.partition(".")[0], ("vision_transformer", "eva", "deit")):
        raise ValueError(refusal)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0, img_size=view_size, dynamic_img_size=True)
    if model.cls_token is None or getattr(model, "rope_mixed", False) or not all(map(_is_plain, model.blocks)):
        raise ValueError(refusal)
    if view_size % model.patch_embed.patch_size[0]:
        raise ValueError(
            f"view_size {view_size} is not a multiple of {name}'s patch, {model.patch_embed.patch_size[0]} px"
        )
    return model


def _is_plain(block: nn.Module) -> bool:
    attention = block.attn
    return (
        type(block) in (vision_transformer.Block, eva.EvaBlock)
        and type(attention) in (Attention, AttentionRope, eva.EvaAttention)
        and getattr(attention, "gate", None) is None
        and getattr(attention, "num_kv_groups", 1) == 1
    )


def _make_guided_block(block: Any) -> GuidedBlock:
    """Wrap the layers of a timm block (no copies) in a block with mask-guided attention."""
    attention = block.attn
    if attention.qkv is None:
        q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    else:
        biases = [None] * 3 if attention.qkv.bias is None else attention.qkv.bias.chunk(3)
        if getattr(attention, "q_bias", None) is not None:
            biases = [attention.q_bias, None, attention.v_bias]  # EVA's keys have none
        q, k, v = (_linear(weight, bias) for weight, bias in zip(attention.qkv.weight.chunk(3), biases, strict=True))
    is_eva = isinstance(block, eva.EvaBlock)
    return GuidedBlock(
        attention.num_heads,
        norm1=block.norm1,
        q=q,
        k=k,
        v=v,
        proj=nn.Sequential(attention.norm, attention.proj),
        norm2=block.norm2,
        mlp=block.mlp,
        q_norm=attention.q_norm,
        k_norm=attention.k_norm,
        scale1=_scale(block.gamma_1) if is_eva else block.ls1,
        scale2=_scale(block.gamma_2) if is_eva else block.ls2,
        rotate_half=getattr(attention, "rotate_half", False),
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _scale(gamma: nn.Parameter | None) -> nn.Module:
    if gamma is None:
        return nn.Identity()
    scale: nn.Module = LayerScale(len(gamma), device="meta")
    scale.gamma = gamma
    return scale
