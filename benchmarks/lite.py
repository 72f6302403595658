"""Images per second of the frozen `lite` trunk, compared with timm's model in eager mode.

python benchmarks/lite.py
"""

from __future__ import annotations

import timm
import torch
from timing import compare, describe_machine

from ancd_ray.backbones.lite import Lite, _state_dict

BATCH = 32


def main() -> None:
    """Print both rates, their ratio, and the largest relative difference of the features."""
    eager = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4)).eval()
    eager.load_state_dict(_state_dict(None), strict=False)
    lite = Lite()
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pair = compare(lambda: lite.patch_features(images, lite.detector_layers), lambda: eager(images), turns=9)
        differences = [
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(lite.patch_features(images, lite.detector_layers), eager(images), strict=True)
        ]
    print(describe_machine())
    print(
        f"eager {BATCH / pair.slow:.0f} images/s, exported {BATCH / pair.fast:.0f} images/s on "
        f"{torch.get_num_threads()} threads, {pair.ratio:.1f}×; largest relative difference {max(differences):.0e}"
    )


if __name__ == "__main__":
    main()
