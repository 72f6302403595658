"""Maps are paired with images by relative paths, by templates, or by the rows of Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from ancd_ray.config.job import Product
from ancd_ray.data.layouts import LayoutError, list_product
from ancd_ray.data.layouts.maps import PairedMaps, pair_maps

IMAGES = ("train/good/1.png", "test/good/1.png", "test/crack/1.png", "test/crack/2.png", "test/hole/1.png")


def _pair(root: Path, maps: str, files: tuple[str, ...], **keys: Any) -> PairedMaps:
    for name in (*(f"p/{image}" for image in IMAGES), *files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
    document = {"name": "p", "layout": "mvtec", "path": "p", "maps": maps, **keys}
    product = TypeAdapter(Product).validate_python(document)
    return pair_maps(product, str(root), list_product(product, str(root)).images)


def _maps(root: Path, found: PairedMaps) -> dict[str, str]:
    pairs = {image.path: image.map_uri for image in found.images if image.map_uri}
    return {path.removeprefix("p/"): str(uri).removeprefix(f"{root}/") for path, uri in pairs.items()}


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".TIFF"])
def test_by_relative_path(tmp_path: Path, suffix: str) -> None:
    found = _pair(tmp_path, "m", (f"m/test/crack/1{suffix}", "m/test/crack/7.npy"))
    assert _maps(tmp_path, found) == {"test/crack/1.png": f"m/test/crack/1{suffix}"}
    missing, unused = found.notes
    assert "3 of 4 images to classify have no anomaly map and go to quarantine" in missing
    assert f"expected: {tmp_path}/m/test/crack/2.npy, {tmp_path}/m/test/good/1.npy, {tmp_path}/m/test/hole" in missing
    assert unused == f"1 maps belong to no image, such as {tmp_path}/m/test/crack/7.npy"


@pytest.mark.parametrize(
    ("template", "files", "expected"),
    [
        (
            "m/{class}/{stem}_map.npy",
            ("m/crack/1_map.npy", "m/crack/2_map.npy", "m/crack/2.npy", "m/hole/1_map.npy"),
            {"test/crack/1.png": "m/crack/1_map.npy", "test/crack/2.png": "m/crack/2_map.npy"}
            | {"test/hole/1.png": "m/hole/1_map.npy"},
        ),
        # of images with the same name, the one to be classified has it, not the normal one
        ("m/{class}_{stem}.tiff", ("m/good_1.tiff",), {"test/good/1.png": "m/good_1.tiff"}),
        ("m/{dir}{stem}/amap.npz", ("m/test/crack/2/amap.npz",), {"test/crack/2.png": "m/test/crack/2/amap.npz"}),
        ("{stem}-*.png", ("2-0815.png",), {"test/crack/2.png": "2-0815.png"}),
    ],
)
def test_by_template(tmp_path: Path, template: str, files: tuple[str, ...], expected: dict[str, str]) -> None:
    assert _maps(tmp_path, _pair(tmp_path, template, files)) == expected


def test_the_folder_of_a_class_may_have_its_own_name(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"layout": "folder", "path": "q", "normal_labels": ["fine"]}
    for name in ("q/fine/1.png", "q/crack/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = _pair(tmp_path, "m/{class}/{stem}.npy", ("m/fine/1.npy", "m/crack/1.npy"), **keys)
    assert {image.map_uri for image in found.images} == {f"{tmp_path}/m/fine/1.npy", f"{tmp_path}/m/crack/1.npy"}


def test_a_map_that_two_images_could_have_is_of_none(tmp_path: Path) -> None:
    found = _pair(tmp_path, "m/{stem}.npy", ("m/1.npy", "m/2.npy"))
    assert _maps(tmp_path, found) == {"test/crack/2.png": "m/2.npy"}
    assert sum("cannot be told apart" in str(image.problem) for image in found.images if image.role == "query") == 3


def test_an_image_with_two_maps_has_none(tmp_path: Path) -> None:
    found = _pair(tmp_path, "m/{class}/{stem}*.npy", ("m/crack/1.npy", "m/crack/1b.npy", "m/crack/2.npy"))
    assert _maps(tmp_path, found) == {"test/crack/2.png": "m/crack/2.npy"}
    assert [image.path for image in found.images if image.problem] == ["p/test/crack/1.png"]


@pytest.mark.parametrize("maps", ["m", "m/night.parquet"])
def test_by_the_rows_of_parquet_files(tmp_path: Path, maps: str) -> None:
    (tmp_path / "m").mkdir()
    paths = ["test/crack/1.png", "test/crack/2", "p/test/hole/1.png", "test/hole/9.png"]
    pq.write_table(pa.table({"path": paths, "map": [b""] * 4}), tmp_path / "m/night.parquet")
    found = _pair(tmp_path, maps, ())
    rows = {"test/crack/1.png": 0, "test/crack/2.png": 1, "test/hole/1.png": 2}
    assert _maps(tmp_path, found) == {path: f"m/night.parquet#row={row}" for path, row in rows.items()}
    assert found.notes[1].endswith("night.parquet#row=3")
    stamps = {image.stamp for image in found.images if image.map_uri}
    pq.write_table(pa.table({"path": [*paths, "x"], "map": [b""] * 5}), tmp_path / "m/night.parquet")
    assert not stamps & {image.stamp for image in _pair(tmp_path, maps, ()).images}


def test_no_map_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no map in .* belongs to an image; 4 of 4 .*: .*/m/crack/1_map\.npy"):
        _pair(tmp_path, "m/{class}/{stem}_map.npy", ("m/crack/1.npy",))
    (tmp_path / "m/odd.parquet").write_bytes(b"nothing")
    with pytest.raises(LayoutError, match=r"maps: .*odd\.parquet not a readable Parquet file"):
        _pair(tmp_path, "m", ())
    with pytest.raises(ValidationError, match=r"{name} is none of {class}, {dir}"):
        _pair(tmp_path, "m/{name}.npy", ())
