"""Archives as people have them: what is taken, how it is read, and what is said of the rest."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from ancd_ray.config.job import Product
from ancd_ray.data.images import BadImage, decode_mask, decode_rgb, read_bytes, read_header
from ancd_ray.data.layouts import Listing, ProductConfig, list_product
from ancd_ray.data.layouts.peek import peek
from ancd_ray.data.location import Location
from ancd_ray.data.map_files import decode_map
from ancd_ray.data.pixel_range import PixelRange
from ancd_ray.data.sources import read_mask
from ancd_ray.method.crops import CropParams, mask_boxes
from ancd_ray.stages.catalog import make_listing_rows, open_files

DOT = np.zeros((20, 30), np.uint8)
DOT[4:8, 3:9] = 1


def _encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]


def _product(**keys: object) -> ProductConfig:
    return TypeAdapter(Product).validate_python({"name": "p", "path": "p", "layout": "mvtec", **keys})


def _list(root: Path, **keys: object) -> Listing:
    return list_product(_product(**keys), str(root))


def _palette() -> Image.Image:
    image = Image.fromarray(DOT).convert("P")
    image.putpalette([9, 9, 9, 1, 1, 1] + [0] * 762)
    image.putdata((DOT * 1).ravel().tolist())
    return image


def _alpha(color: int) -> Image.Image:
    return Image.fromarray(np.dstack([np.full((20, 30, 3), color, np.uint8), DOT * 255]))


@pytest.mark.parametrize(
    "mask",
    [
        *(Image.fromarray(DOT * value) for value in (1, 2, 3, 127, 255)),
        Image.fromarray(DOT.astype(np.uint16) * 4095),
        Image.fromarray(np.dstack([DOT * 255, DOT * 0, DOT * 0])),
        _palette(),
        _alpha(0),
        _alpha(255),
    ],
)
def test_masks_are_foreground_above_zero(mask: Image.Image) -> None:
    assert np.array_equal(decode_mask(_encode(mask)), DOT * 255)


def test_soft_edges_have_a_declared_threshold() -> None:
    soft = DOT * np.uint8(200)
    soft[0, 0] = 60
    assert np.array_equal(decode_mask(_encode(Image.fromarray(soft)), 127), DOT * 255)


def test_a_defect_without_a_mask_and_an_empty_mask_are_quarantined(tmp_path: Path) -> None:
    for name in ("0", "1", "2"):
        _save(tmp_path / f"p/test/hole/{name}.png", DOT)
    _save(tmp_path / "p/ground_truth/hole/0_mask.png", DOT)
    _save(tmp_path / "p/ground_truth/hole/1_mask.png", DOT * 0)
    listing = _list(tmp_path)
    assert listing.account.without_mask == 1
    assert "have no mask" in " ".join(listing.account.describe())
    images, _, _ = open_files(make_listing_rows("p", listing.images, False))
    reasons = {}
    for image in images:
        try:
            reasons[Path(image["uri"]).stem] = str(read_mask(image).max())
        except BadImage as error:
            reasons[Path(image["uri"]).stem] = str(error)
    assert reasons["0"] == "255"
    assert "mask is empty" in reasons["1"]
    assert "has no mask" in reasons["2"]


def test_masks_by_patterns_and_folders_of_masks(tmp_path: Path) -> None:
    for stem in ("1", "10", "a"):
        _save(tmp_path / f"p/test/hole/{stem}.png", DOT)
    for mask in ("1_gt", "10_gt", "a/000", "a/001"):
        _save(tmp_path / f"p/ground_truth/hole/{mask}.png", DOT)
    masks = {Path(image.path).stem: image.mask_uris for image in _list(tmp_path).images}
    assert [Path(uri).name for uri in masks["1"]] == ["1_gt.png"]
    assert [Path(uri).name for uri in masks["a"]] == ["000.png", "001.png"]
    declared = _list(tmp_path, masks="{class}/{stem}*.png")
    assert {Path(i.path).stem: len(i.mask_uris) for i in declared.images} == {"1": 1, "10": 1, "a": 0}
    _save(tmp_path / "f/x [1].png", DOT)
    _save(tmp_path / "f/masks/x [1].bmp", DOT)
    (image,) = _list(tmp_path, layout="folder", path="f", masks="masks/{stem}.*").images
    assert image.mask_uris == (f"{tmp_path}/f/masks/x [1].bmp",)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_depth_is_that_of_the_product(bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
    values[0, 0] = 255
    deep = _encode(Image.fromarray(values.astype(np.uint16) << (bits - 8)))
    rows = [{"uri": "", "problem": None, "image_bytes": deep}]
    _, _, extremes = open_files(rows)
    found = PixelRange.of(extremes)
    assert found.bits == bits
    assert np.array_equal(decode_rgb(deep, found)[..., 0], values)
    dark = _encode(Image.fromarray((values // 8).astype(np.uint16) << (bits - 8)))
    assert decode_rgb(dark, found).max() == 255 // 8, "a dark image stays dark"


def test_colors_of_16_bits_and_floats_keep_their_levels() -> None:
    import cv2

    color = (np.arange(20 * 30 * 3).reshape(20, 30, 3) * 2).astype(np.uint16)
    data = cv2.imencode(".png", color[..., ::-1])[1].tobytes()
    assert np.array_equal(decode_rgb(data, PixelRange(12)), color >> 4)
    floats = _encode(Image.fromarray(np.linspace(-5, 5, 600, dtype=np.float32).reshape(20, 30)), "TIFF")
    assert decode_rgb(floats, PixelRange(None, -5, 5)).max() == 255


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_are_turned_upright(tag: int, format: str) -> None:
    turned = np.kron(DOT * 255, np.ones((8, 8), np.uint8))
    back = {6: 8, 8: 6}.get(tag, tag)  # the inverse of a rotation
    from ancd_ray.data.images import turn_upright

    exif = Image.Exif()
    exif[274] = tag
    stored = _encode(Image.fromarray(np.ascontiguousarray(turn_upright(turned, back))), format, exif=exif)
    assert read_header(stored)[:2] == turned.shape[::-1]
    assert np.abs(decode_rgb(stored)[..., 0].astype(int) - turned).mean() < 8


def test_plan_says_what_will_be_turned_and_scaled(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    _save(tmp_path / "p/0.jpg", DOT, exif=exif)
    _save(tmp_path / "p/1.png", DOT.astype(np.uint16) * 4000)
    _save(tmp_path / "p/2.tif", DOT, save_all=True, append_images=[Image.fromarray(DOT)])
    notes = " ".join(peek(_list(tmp_path, layout="folder").images, _product(layout="folder")))
    assert "EXIF orientation (6)" in notes
    assert "values of 12 bits" in notes
    assert "has 2 pages" in notes


def test_a_region_of_interest_outside_of_all_images_is_told(tmp_path: Path) -> None:
    for i, side in enumerate((40, 60)):
        _save(tmp_path / "p" / f"{i}.png", np.full((side, side, 3), 90, np.uint8))
    images = _list(tmp_path, layout="folder").images
    for place, is_told in (((50, 50), False), ((70, 10), True)):
        x, y = place
        roi = {"polygon": [[x, y], [x + 9, y], [x, y + 9]], "units": "pixels"}
        assert ("is outside of every image" in " ".join(peek(images, _product(layout="folder", roi=roi)))) == is_told


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    names = ["test/hole/2024-05-01/0.png", "test/hole/1.png", "test/.ipynb_checkpoints/1.png", "test/@eaDir/x.png"]
    for name in [*names, "test/loose.png", "train/good/0.png", "train/good/0.JFIF"]:
        _save(tmp_path / "p" / f"{name}", DOT, **({"format": "JPEG"} if "JFIF" in name else {}))
    (tmp_path / "p/notes.txt").write_text("x")
    (tmp_path / "p/scan.raw").write_text("x")
    account = _list(tmp_path).account
    assert account.files == 9
    assert sum(account.labels.values()) + account.normals + sum(account.not_taken.values()) == 9
    assert account.labels == {"hole": 2}
    (line,) = account.describe()
    assert "9 files: 4 taken (2 normal, 2 to classify), 5 not" in line
    assert "of unknown type: .raw, .txt" in line


def test_links_pipes_and_names_that_are_no_text(tmp_path: Path) -> None:
    _save(tmp_path / "a/p/0.png", DOT)
    _save(tmp_path / "outside/1.png", DOT)
    (tmp_path / "a/p/loop").symlink_to(".")
    (tmp_path / "a/p/out").symlink_to(tmp_path / "outside")
    (tmp_path / "a/p/gone.png").symlink_to("nothing")
    os.mkfifo(tmp_path / "a/p/pipe.png")
    os.rename(tmp_path / "a/p/0.png", os.fsencode(tmp_path / "a/p") + b"/stra\xdfe.png")  # noqa: PTH104
    _save(tmp_path / "a/p/2.png", DOT)
    listing = _list(tmp_path / "a", layout="folder")
    assert [(Path(image.path).name, bool(image.problem)) for image in listing.images] == [
        ("2.png", False),
        ("stra\\xdfe.png", True),
    ]
    assert set(listing.account.not_taken) == {
        "links to a folder that is listed already",
        "links that lead out of the archive",
        "links to nothing",
        "pipes, sockets or devices",
    }
    with pytest.raises(BadImage, match="regular file"):
        read_bytes(str(tmp_path / "a/p/pipe.png"))
    with pytest.raises(BadImage, match="regular file"):
        read_bytes("/dev/zero")


def test_names_and_locations_are_taken_as_they_are_written(tmp_path: Path) -> None:
    names = ["img 1.png", "part#1.png", "50%00.png", "50%20.png", "q?0.png"]
    for name in names:
        _save(tmp_path / "an archive" / "p" / name, DOT)
    for root in (f"{tmp_path}/an archive", f"file://{tmp_path}/an archive", f"file://{tmp_path}/an%20archive"):
        images = list_product(_product(layout="folder"), root).images
        assert sorted(Path(image.uri).name for image in images) == sorted(names)
        assert all(read_bytes(image.uri) for image in images)
    place = Location.parse("s3://KEY:SE%2FCRET@bucket/a b?endpoint_override=localhost:9&scheme=http") / "c#1?.png"
    assert str(place) == "s3://bucket/a b/c#1?.png"
    assert "SE" not in repr(place)
    assert place.place == "bucket/a b/c#1?.png"


def test_one_file_under_two_names_is_one_image(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", DOT)
    (tmp_path / "list.csv").write_text("Path ; Class\n./a.png ; OK\na.png;ok\n")
    first, second = _list(tmp_path, layout="manifest", path="list.csv").images
    assert (first.problem, second.problem) == (None, "listed more than once")
    assert first.label == "good"


def test_squares_of_a_line_scan_are_a_few_times_the_defect() -> None:
    mask = np.zeros((16000, 2000), np.uint8)
    mask[8000:8060, 900:960] = 255
    (box,) = mask_boxes(mask)
    assert box.x1 - box.x0 <= 480
    (box,) = mask_boxes(mask[7000:9000])
    assert box == mask_boxes(mask[7000:9000], CropParams(relative_to="long"))[0], "square: the paper's rule"


def test_a_hundred_megapixels_are_read_and_a_bomb_is_not() -> None:
    assert read_header(_encode(Image.new("1", (10_000, 10_000))))[:2] == (10_000, 10_000)
    with pytest.raises(BadImage, match="pixels"):
        read_header(_encode(Image.new("1", (20_000, 20_000))))


def test_a_huge_npy_header_allocates_nothing() -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    with pytest.raises(BadImage, match="npy"):
        decode_map(buffer.getvalue())


def test_visa_btad_coco_and_labelme(tmp_path: Path) -> None:
    _save(tmp_path / "v/Data/Images/Anomaly/0.JPG", DOT)
    _save(tmp_path / "v/Data/Images/Normal/1.JPG", DOT)
    _save(tmp_path / "v/Data/Masks/Anomaly/0.png", DOT)
    found = {image.label: len(image.mask_uris) for image in _list(tmp_path, layout="visa", path="v").images}
    assert found == {"anomaly": 1, "good": 0}
    for name in ("train/ok/0.bmp", "test/ok/1.bmp", "test/ko/2.bmp", "ground_truth/ko/2.bmp"):
        _save(tmp_path / "b" / name, DOT)
    images = _list(tmp_path, layout="btad", path="b").images
    assert [(i.role, i.label, len(i.mask_uris)) for i in images] == [
        ("query", "ko", 1),
        ("query", "good", 0),
        ("normal", "good", 0),
    ]
    _save(tmp_path / "l/0.png", DOT)
    square = '{"label": "pit", "points": [[3, 4], [8, 7]], "shape_type": "rectangle"}'
    (tmp_path / "l/0.json").write_text(f'{{"shapes": [{square}], "imagePath": "0.png"}}')
    (image,) = _list(tmp_path, layout="labelme", path="l").images
    assert (image.label, image.has_mask) == ("pit", True)
    _save(tmp_path / "c/images/default/0.png", DOT)
    _save(tmp_path / "c/images/default/1.png", DOT)
    annotation = '{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[3, 4, 9, 4, 9, 8]], "area": 9}'
    (tmp_path / "c/a.json").write_text(
        '{"images": [{"id": 1, "file_name": "0.png", "width": 30, "height": 20}], '
        f'"annotations": [{annotation}], "categories": [{{"id": 1, "name": "pit"}}]}}'
    )
    images = _list(tmp_path, layout="coco", path="c").images
    assert [(i.label, i.has_mask) for i in images] == [("pit", True), (None, False)]


def test_masks_with_soft_edges_are_told(tmp_path: Path) -> None:
    """Index masks have no edges; a declared threshold is not told again."""
    box = np.zeros((64, 64), np.uint8)
    box[20:50, 10:50] = 1
    for name, mask in (("soft", cv2.GaussianBlur(box * 255, (0, 0), 1)), ("hard", box * 255), ("index", box * 2)):
        _save(tmp_path / f"{name}/p/test/hole/0.png", box)
        _save(tmp_path / f"{name}/p/ground_truth/hole/0.png", mask)
        images = _list(tmp_path / name).images
        told = "soft edges" in " ".join(peek(images, _product()))
        assert told == (name == "soft")
        assert "soft edges" not in " ".join(peek(images, _product(mask_threshold=127)))
