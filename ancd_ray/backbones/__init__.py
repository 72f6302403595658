"""Frozen trunks: what detectors take patch features from and what the mask-guided classifier is built on."""

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
) -> Backbone:
    """A backbone by name: `lite`, or any timm ViT with a class token.

    `weights` is `auto` (the package for `lite`, timm otherwise), `package`, `timm`, `random`, or a file; `sha256` is
    what that file must have. `mask` names the tokens whose attention is masked (Table IV); `lite` has `class`, `none`.
    `color_normalization`: what is done to the colors of a view, see `method.views.normalize_color`.

    Raises:
        ValueError: no such backbone or file, or weights that are not what they should be; one line.
    """
    model = _load(name, weights, sha256, mask_layers, device, mask)
    model.color_normalization = color_normalization
    return model


def _load(name: str, weights: str, sha256: str | None, mask_layers: int, device: str, mask: MaskMode) -> Backbone:
    if name == "lite":
        if mask not in ("class", "none"):
            raise ValueError(f"backbone.mask: {mask} needs a transformer; lite has class and none")
        from ancd_ray.backbones.lite import Lite

        if weights in ("auto", "package"):
            return Lite(None, device, mask)
        with _open_checked(weights, sha256) as file:
            return Lite(file, device, mask)
    from ancd_ray.backbones.timm_vit import TimmViT

    if weights in ("auto", "timm", "random"):
        return TimmViT(name, "timm" if weights == "auto" else weights, mask_layers, device, mask_mode=mask)
    with _open_checked(weights, sha256) as file:
        return TimmViT(name, file, mask_layers, device, mask_mode=mask)


@contextmanager
def _open_checked(uri: str, sha256: str | None) -> Iterator[Path]:
    """A weights file as a local path, its digest compared."""
    with local_copy(uri) as path:
        if not path.is_file():
            raise ValueError(
                f"backbone.weights: {uri}: no such file; `ancd-ray weights list` shows what can be had, "
                "`ancd-ray weights pull NAME --to DIR` fetches it where there is a network"
            )
        if sha256 and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
            raise ValueError(f"backbone.weights: {uri} has sha256 {found}, not {sha256}")
        yield path
