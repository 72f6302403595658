"""The demo generator: reproducible files, exact masks, and no changes to other folders."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ancd_ray.data.demo.defects import BASE_KINDS, TILE_KINDS
from ancd_ray.data.demo.generate import GOOD, DemoSummary, draw, generate

KINDS = [("tile", kind) for kind in TILE_KINDS] + [("base", kind) for kind in BASE_KINDS]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def small(folder: Path, images: int = 7, normals: int = 2, base: int = 4, seed: int = 0) -> DemoSummary:
    return generate(folder, images=images, normals=normals, base=base, seed=seed, size=64)


def test_the_layout_is_that_of_mvtec_ad(tmp_path: Path) -> None:
    made = small(tmp_path)
    assert made == DemoSummary(
        tmp_path,
        {"good": 2, "scratch": 2, "hole": 1, "stain": 1, "crack": 1},
        normals=2,
        base={"bump": 2, "spot": 1, "groove": 1},
    )
    tile = {f"tile/train/good/{i:03d}.png" for i in range(2)} | {f"tile/test/good/{i:03d}.png" for i in range(2)}
    defects = [("tile", "scratch", 2), ("tile", "hole", 1), ("tile", "stain", 1), ("tile", "crack", 1)]
    defects += [("base", "bump", 2), ("base", "spot", 1), ("base", "groove", 1)]
    images = {f"{product}/test/{kind}/{i:03d}.png" for product, kind, n in defects for i in range(n)}
    masks = {f"{product}/ground_truth/{kind}/{i:03d}_mask.png" for product, kind, n in defects for i in range(n)}
    assert set(files(tmp_path)) == tile | images | masks


def test_files_hold_what_was_drawn(tmp_path: Path) -> None:
    small(tmp_path)
    image = cv2.imread(str(tmp_path / "tile/test/scratch/001.png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(tmp_path / "tile/ground_truth/scratch/001_mask.png"), cv2.IMREAD_UNCHANGED)
    drawn = draw("tile", "test", "scratch", 1, size=64)
    np.testing.assert_array_equal(image, drawn.image)
    np.testing.assert_array_equal(mask, drawn.mask)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        small(tmp_path / name, seed=seed)
    first, again, other = (files(tmp_path / name) for name in "abc")
    assert first == again
    assert set(first) == set(other)
    assert all(first[name] != other[name] for name in first)


def test_a_larger_set_contains_the_smaller(tmp_path: Path) -> None:
    small(tmp_path / "small")
    small(tmp_path / "large", images=19, normals=5, base=11)
    assert files(tmp_path / "small").items() < files(tmp_path / "large").items()


@pytest.mark.parametrize(("product", "kind"), KINDS)
@pytest.mark.parametrize("size", [64, 200])
def test_the_mask_is_exactly_what_changed(product: str, kind: str, size: int) -> None:
    for index in range(12):
        sample = draw(product, "test", kind, index, size=size)
        changed = (sample.image != sample.clean).any(axis=2)
        assert changed.any()
        np.testing.assert_array_equal(sample.mask, np.where(changed, 255, 0))


@pytest.mark.parametrize("product", ["tile", "base"])
def test_a_good_part_is_clean(product: str) -> None:
    sample = draw(product, "train", GOOD, 0)
    np.testing.assert_array_equal(sample.image, sample.clean)
    assert not sample.mask.any()


def test_no_two_images_are_alike() -> None:
    drawn = [
        draw("tile", split, kind, i, size=64)
        for split in ("train", "test")
        for kind in (GOOD, *TILE_KINDS)
        for i in (0, 1)
    ]
    assert len({sample.image.tobytes() for sample in drawn}) == 20


@pytest.mark.parametrize(("product", "kind"), KINDS)
def test_a_defect_stands_out_from_the_surface(product: str, kind: str) -> None:
    for index in range(6):
        sample = draw(product, "test", kind, index)
        difference = np.abs(sample.image.astype(int) - sample.clean).max(axis=2)[sample.mask > 0]
        assert difference.mean() > 10
        assert 0.001 < (sample.mask > 0).mean() < 0.25


def test_kinds_differ_in_shape_and_brightness() -> None:
    """A scratch is thin and bright, a crack thin and dark, a hole compact and dark, a stain compact and faint."""

    def shape(kind: str) -> tuple[float, float]:
        samples = [draw("tile", "test", kind, i) for i in range(8)]
        inside = [s.mask > 0 for s in samples]
        shade = [(s.image.astype(float) - s.clean)[m].mean() for s, m in zip(samples, inside, strict=True)]
        width = [cv2.distanceTransform(s.mask, cv2.DIST_L2, 5).max() for s in samples]
        return float(np.mean(width)), float(np.mean(shade))

    width, shade = zip(*(shape(kind) for kind in ("scratch", "crack", "hole", "stain")), strict=True)
    assert max(width[:2]) * 2 < min(width[2:])
    assert shade[0] > 10
    assert shade[1] < -40
    assert shade[2] < -30
    assert -30 < shade[3] < -5


def test_an_earlier_set_is_replaced(tmp_path: Path) -> None:
    small(tmp_path, images=20)
    small(tmp_path, images=5)
    small(tmp_path / "fresh", images=5)
    left = {name: data for name, data in files(tmp_path).items() if not name.startswith("fresh/")}
    assert left == files(tmp_path / "fresh")


def test_another_folder_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "tile").mkdir()
    (tmp_path / "tile" / "mine.png").write_bytes(b"precious")
    with pytest.raises(ValueError, match="was not made by this generator"):
        small(tmp_path)
    assert files(tmp_path) == {"tile/mine.png": b"precious"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is not a folder"):
        small(tmp_path / "file")


@pytest.mark.parametrize("wrong", [{"size": 63}, {"images": -1}, {"normals": -1}, {"base": -1}, {"seed": -1}])
def test_wrong_numbers_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"too small|negative"):
        generate(tmp_path / "demo", **wrong)
    assert not (tmp_path / "demo").exists()
