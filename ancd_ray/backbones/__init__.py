"""Frozen backbones: patch features for detectors and the trunk of the mask-guided classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ancd_ray.data.store import local_copy
from ancd_ray.method.mgvit import MaskMode
from ancd_ray.method.views import ColorNormalization

if TYPE_CHECKING:
    from ancd_ray.backbones.base import Backbone


def load(
    name: str,
    weights: str = "auto",
    sha256: str | None = None,
    mask_layers: int = 9,
    device: str = "cpu",
    mask: MaskMode = "class",
    color_normalization: ColorNormalization = "kept",
    ring: float = 0.0,
) -> Backbone:
    """Load a backbone by name: `lite`, or any timm ViT with a class token.

    Parameters
    ----------
    name
        `lite` or the name of a timm model.
    weights
        `auto` (`package` for `lite`, `timm` otherwise), `package`, `timm`, `random`, or a file.
    sha256
        Expected digest of the file.
    mask_layers
        L_m, number of mask-guided blocks of a ViT.
    device
        Device of the trunk.
    mask
        Tokens whose attention is masked (Table IV); `lite` supports `class` and `none`.
    color_normalization
        Applied to views before the trunk, see `method.views.normalize_color`.
    ring
        Share of the average in the ring around the mask that is subtracted from the class token of `lite`; views
        lose their mean color then.

    Raises
    ------
    ValueError
        Unknown backbone, missing file, or weights that do not fit; one line.
    """
    model = _load(name, weights, sha256, mask_layers, device, mask, ring)
    model.color_normalization = "centred" if ring and color_normalization == "kept" else color_normalization
    return model


def _load(
    name: str, weights: str, sha256: str | None, mask_layers: int, device: str, mask: MaskMode, ring: float
) -> Backbone:
    if name == "lite":
        if mask not in ("class", "none"):
            raise ValueError(f"backbone.mask: {mask} needs a transformer; lite supports class and none")
        from ancd_ray.backbones.lite import Lite

        if weights in ("auto", "package"):
            return Lite(None, device, mask, ring)
        with _open_checked(weights, sha256) as file:
            return Lite(file, device, mask, ring)
    if ring:
        raise ValueError(f"backbone.ring: the class token of {name} is no average; leave it out")
    from ancd_ray.backbones.timm_vit import TimmViT

    if weights in ("auto", "timm", "random"):
        return TimmViT(name, "timm" if weights == "auto" else weights, mask_layers, device, mask_mode=mask)
    with _open_checked(weights, sha256) as file:
        return TimmViT(name, file, mask_layers, device, mask_mode=mask)


@contextmanager
def _open_checked(uri: str, sha256: str | None) -> Iterator[Path]:
    """Open a weights file as a local path and verify its digest."""
    with local_copy(uri) as path:
        if not path.is_file():
            raise ValueError(
                f"backbone.weights: {uri}: no such file; `ancd-ray weights list` shows known models, "
                "`ancd-ray weights pull NAME --to DIR` downloads one on a machine with internet access"
            )
        if sha256 and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
            raise ValueError(f"backbone.weights: {uri} has sha256 {found}, not {sha256}")
        yield path
