"""Makes a small detector of one's own and hands it to ancd-ray: as a graph, and as maps.

Features of normal patches lie near a subspace; how far a patch is from it is its anomaly score (PCA reconstruction).
The network is plain PyTorch, and stands for any that you have:

    python examples/detectors/pca.py jobs/detectors/graph.yaml data.root=/archive --graph pca.xml
    python examples/detectors/pca.py jobs/detectors/graph.yaml data.root=/archive --maps /archive/maps/mtd
    ancd-ray submit jobs/detectors/graph.yaml data.root=/archive
    ancd-ray submit jobs/detectors/precomputed.yaml data.root=/archive

Shape suffixes: B images, H W pixels or patches, N patches, D feature width, K principal components.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import openvino
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancd_ray.backbones.exported import trace
from ancd_ray.backbones.lite import Lite, load_trunk
from ancd_ray.config.load import load
from ancd_ray.data.images import BadImage, decode_rgb, read_bytes
from ancd_ray.data.layouts import list_product
from ancd_ray.data.roles import ListedImage

SIDE = 384  # pixels of a side of the images that the network takes
NORMALS = 200  # images that it is fitted to, at even distances in the listing
VARIANCE = 0.95  # share of the variance of normal features that the subspace has


class PcaDetector(nn.Module):
    """Squared distance of features to the subspace of normal ones, four times as fine as the patches."""

    mean_D: Tensor
    components_KD: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trunk = load_trunk().eval().requires_grad_(False)
        self.register_buffer("mean_D", torch.zeros(1))
        self.register_buffer("components_KD", torch.zeros(1))
        self.register_buffer("pixel_mean", torch.tensor(Lite.mean)[:, None, None])
        self.register_buffer("pixel_std", torch.tensor(Lite.std)[:, None, None])

    def compute_features(self, images_BCHW: Tensor) -> Tensor:
        """Compute features (B, D, H, W) of images with values in 0..1: two scales, each of length 1."""
        *_, fine, coarse = self.trunk((images_BCHW - self.pixel_mean) / self.pixel_std)
        coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
        features = torch.cat([F.normalize(fine, dim=1), F.normalize(coarse, dim=1)], dim=1)
        return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)

    def fit(self, features_ND: Tensor) -> None:
        """Fit the subspace to features of normal images."""
        self.mean_D = features_ND.mean(dim=0)
        values, vectors = torch.linalg.eigh(torch.cov(features_ND.T))
        share = values.flip(0).cumsum(0) / values.sum()
        self.components_KD = vectors.flip(1)[:, : int((share < VARIANCE).sum()) + 1].T.contiguous()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Compute anomaly maps (B, H, W)."""
        centered = self.compute_features(images_BCHW) - self.mean_D[:, None, None]
        inside = F.conv2d(centered, self.components_KD[:, :, None, None])
        distance = (centered.pow(2).sum(dim=1, keepdim=True) - inside.pow(2).sum(dim=1, keepdim=True)).clamp_min(0)
        finer = F.interpolate(distance, scale_factor=4.0, mode="bilinear")
        return F.avg_pool2d(finer, 5, stride=1, padding=2, count_include_pad=False)[:, 0]


def read(images: list[ListedImage]) -> Iterator[tuple[ListedImage, Tensor]]:
    """Read images as `detector.name: graph` prepares them; those that cannot be read are left out."""
    for image in images:
        try:
            rgb = decode_rgb(read_bytes(image.uri))
        except BadImage:
            continue
        shrinks = max(rgb.shape[:2]) > SIDE
        pixels = cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        yield image, torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


@torch.no_grad()
def main() -> None:
    """Fit the detector to the normal images of a job's first product, and export it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--graph", type=Path, help="file of the graph (.xml; the weights lie beside it)")
    parser.add_argument("--maps", type=Path, help="folder of the maps")
    arguments = parser.parse_args()
    job = load(arguments.job, arguments.overrides)
    product = job.data.products[0]
    listed = [*list_product(product, job.data.root).images]
    normals = [image for image in listed if image.role == "normal"]
    network = PcaDetector()
    features = [network.compute_features(pixels) for _, pixels in read(normals[:: max(1, len(normals) // NORMALS)])]
    network.fit(torch.cat(features).permute(0, 2, 3, 1).flatten(0, 2))
    print(f"{len(features)} normal images, {len(network.components_KD)} of {len(network.mean_D)} components")
    if arguments.graph:
        graph = trace(network.eval(), torch.zeros(1, 3, SIDE, SIDE))
        graph.set_rt_info(f"{SIDE} {SIDE}", ["framework", "input_size"])  # its trace takes images of any size
        openvino.save_model(graph, arguments.graph, compress_to_fp16=False)
    if arguments.maps:
        below = f"{product.path}/"
        for image, pixels in read([image for image in listed if image.role == "query"]):
            path = (arguments.maps / image.path.removeprefix(below)).with_suffix(".npy")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, network(pixels)[0].numpy())


if __name__ == "__main__":
    main()
