"""Loads weights of timm ViTs from the hub, its cache or a file, in timm's or the original naming."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import eva, load_pretrained, vision_transformer
from torch import Tensor, nn

from ancd_ray.config.errors import first_line


def download(model: nn.Module, name: str) -> None:
    """Load the pretrained weights of a timm model.

    Raises
    ------
    ValueError
        Neither the hub nor its cache has them; one line with instructions.
    """
    try:
        load_pretrained(model, num_classes=0, filter_fn=_timm_names)
    except Exception as error:  # hub, HTTP client, torch and timm each raise their own types
        raise ValueError(
            f"cannot get the weights of {name} ({first_line(error)[:200]}); on a machine with internet access run "
            f"`ancd-ray weights pull {name} --to DIR`, then set backbone.weights=FILE"
        ) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a .safetensors or .pth file, under timm's names or those of the original DINO, DINOv2 and DINOv3 files.

    Position embeddings of another grid are resampled.

    Raises
    ------
    ValueError
        The file cannot be read, or lacks a weight in the shape of the model; one line.
    """
    state = _read_state(path)
    wanted = model.state_dict()
    kernel = "patch_embed.proj.weight"
    try:
        # timm would silently resample the kernel of another patch size too, so its shape must match.
        if kernel in state and state[kernel].shape == wanted[kernel].shape:
            state = _timm_names(state, model)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit the model: {first_line(error)[:200]}") from error
    missing = [name for name in wanted if name not in state]
    misfits = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or misfits:
        named = ", ".join([f"no {name}" for name in missing[:3]] + [f"another shape of {name}" for name in misfits[:3]])
        raise ValueError(f"{path} does not fit the model in {len(missing) + len(misfits)} weights: {named}")
    model.load_state_dict({name: state[name] for name in wanted})


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, without wrappers ({"teacher": ...}) and prefixes ("module.backbone.")."""
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        elif path.suffix in (".pth", ".pt"):
            # Full DINO checkpoints also contain the command line as a Namespace of plain values.
            with torch.serialization.safe_globals([argparse.Namespace]):
                state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise ValueError(f"{path}: weights are .safetensors or .pth files")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(f"cannot read the weights {path}: {first_line(error)[:200]}") from error
    for wrapper in ("teacher", "model", "state_dict"):
        state = state.get(wrapper, state) if isinstance(state, dict) else {}
    return {_bare(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _timm_names(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Convert a published checkpoint with timm's own filter, which also resamples the position embeddings."""
    family = eva if isinstance(model, eva.Eva) else vision_transformer
    renamed: dict[str, Tensor] = family.checkpoint_filter_fn(state, model)
    return renamed


def _bare(name: str) -> str:
    head, _, rest = name.partition(".")
    return _bare(rest) if head in ("module", "backbone", "model") else name
