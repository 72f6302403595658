"""Sources of backbone weights, and their download for machines without internet access."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ancd_ray.config.errors import AncdError

KNOWN = {
    "lite": "installed with ancd-ray; no download",
    "vit_base_patch8_224.dino": "timm (Hugging Face): the paper's backbone; needs a GPU",
    "vit_small_patch8_224.dino": "timm (Hugging Face)",
    "vit_base_patch16_224.dino": "timm (Hugging Face)",
    "vit_small_patch16_224.dino": "timm (Hugging Face)",
    "vit_base_patch14_dinov2.lvd142m": "timm (Hugging Face)",
    "vit_small_patch14_dinov2.lvd142m": "timm (Hugging Face)",
    "vit_small_patch14_reg4_dinov2.lvd142m": "timm (Hugging Face), with registers",
    "vit_small_patch16_dinov3.lvd1689m": "timm (Hugging Face); see its license",
}


class WeightsError(AncdError):
    """Weights cannot be downloaded; one line."""


def pull(name: str, folder: Path) -> tuple[Path, str]:
    """Download the weights of a timm model into `<folder>/<name>.safetensors`.

    Returns
    -------
    path : Path
        The file.
    sha256 : str
        Its digest.

    Raises
    ------
    WeightsError
        Unknown model, or its weights are unavailable.
    """
    if name == "lite":
        raise WeightsError("lite: its weights are installed with ancd-ray; no download is needed")
    import timm
    from safetensors.torch import save

    if name not in timm.list_models(pretrained=True):
        raise WeightsError(f"{name}: timm has no such model with weights; `ancd-ray weights list` shows known models")
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{name}: cannot be downloaded: {str(error).splitlines()[0]}") from error
    data = save({key: value.contiguous() for key, value in model.state_dict().items()})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()
