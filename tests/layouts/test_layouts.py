"""Archives as they lie on disk: what is found, how masks and maps are paired, what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from ancd_ray.config.job import Product
from ancd_ray.data.layouts import LayoutError, ProductConfig, list_product
from ancd_ray.data.layouts.maps import pair_maps
from ancd_ray.data.roles import ListedImage


def _product(**keys: object) -> ProductConfig:
    return TypeAdapter(Product).validate_python({"name": "p", "path": "p", **keys})


def _files(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def _by_path(listed: Iterable[ListedImage]) -> dict[str, ListedImage]:
    return {image.path: image for image in listed}


def test_mvtec(tmp_path: Path) -> None:
    _files(tmp_path, "p/train/good/0.png", "p/test/good/0.png", "p/test/crack/7.png", "p/test/crack/é 8.jpg")
    _files(tmp_path, "p/ground_truth/crack/7_mask.png", "p/ground_truth/crack/é 8_mask.png", "p/readme.txt")
    found = _by_path(list_product(_product(layout="mvtec"), str(tmp_path)).images)
    assert list(found) == ["p/test/crack/7.png", "p/test/crack/é 8.jpg", "p/test/good/0.png", "p/train/good/0.png"]
    assert found["p/test/crack/é 8.jpg"].mask_uris == (f"{tmp_path}/p/ground_truth/crack/é 8_mask.png",)
    assert found["p/test/good/0.png"].mask_uris == ()
    assert found["p/train/good/0.png"].role == "normal"
    assert found["p/test/crack/7.png"].label == "crack"


def test_two_images_with_one_stem_cannot_share_a_mask(tmp_path: Path) -> None:
    _files(tmp_path, "p/test/crack/7.png", "p/test/crack/7.jpg", "p/ground_truth/crack/7_mask.png")
    assert all(image.problem for image in list_product(_product(layout="mvtec"), str(tmp_path)).images)


def test_mtd(tmp_path: Path) -> None:
    _files(tmp_path, "p/MT_Free/Imgs/a.jpg", "p/MT_Free/Imgs/b.jpg", "p/MT_Crack/Imgs/c.jpg", "p/MT_Crack/Imgs/c.png")
    (tmp_path / "p/normals.txt").write_text("a.jpg\n\n")
    found = _by_path(list_product(_product(layout="mtd", normals="normals.txt"), str(tmp_path)).images)
    assert found["p/MT_Free/Imgs/a.jpg"].role == "normal"
    assert (found["p/MT_Free/Imgs/b.jpg"].role, found["p/MT_Free/Imgs/b.jpg"].label) == ("query", "good")
    assert found["p/MT_Crack/Imgs/c.jpg"].mask_uris == (f"{tmp_path}/p/MT_Crack/Imgs/c.png",)
    without = list_product(_product(layout="mtd", exclude=["good"]), str(tmp_path)).images
    assert [image.label for image in without] == ["crack"]
    (tmp_path / "p/normals.txt").write_text("gone.jpg\n")
    with pytest.raises(LayoutError, match=r"gone\.jpg"):
        list_product(_product(layout="mtd", normals="normals.txt"), str(tmp_path))


def test_folder(tmp_path: Path) -> None:
    _files(tmp_path, "p/ok/1.png", "p/line 1/2.png", "p/3.tif")
    found = list_product(_product(layout="folder", normals="ok"), str(tmp_path)).images
    assert [(image.path, image.role, image.label) for image in found] == [
        ("p/3.tif", "query", None),
        ("p/line 1/2.png", "query", None),
        ("p/ok/1.png", "normal", None),
    ]
    with pytest.raises(LayoutError, match="none"):
        list_product(_product(layout="folder", normals="none"), str(tmp_path))


def test_manifests_stay_inside_the_archive(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    _files(root, "a.png", "sub/b.png", "m.png")
    _files(tmp_path, "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    lines = [
        "uri,label,mask,role",
        "a.png,007,m.png,",
        f"{root}/sub/b.png,,,normal",
        "../secret.png,,,",
        "/etc/x.png,,,",
    ]
    lines += ["link.png,,,", "a.png,1,,", "sub/b.png.gone,,,odd"]
    (root / "list.csv").write_text("\n".join(lines))
    found = list_product(_product(layout="manifest", path="list.csv"), str(root)).images
    fine = {image.path: image for image in found if image.problem is None}
    assert set(fine) == {"a.png", "sub/b.png"}
    assert fine["a.png"].label == "007"
    assert fine["a.png"].mask_uris == (f"{root}/m.png",)
    assert fine["sub/b.png"].role == "normal"
    problems = {image.uri: image.problem for image in found if image.problem}
    assert sum("leads out" in str(problem) for problem in problems.values()) == 3
    assert len(found) == 7, "no row is lost"


def test_a_parquet_manifest_and_a_missing_column(tmp_path: Path) -> None:
    _files(tmp_path, "a.png")
    pq.write_table(pa.table({"uri": ["a.png"], "label": ["x"]}), tmp_path / "list.parquet")
    (image,) = list_product(_product(layout="manifest", path="list.parquet"), str(tmp_path)).images
    assert (image.label, image.uri) == ("x", f"{tmp_path}/a.png")
    pq.write_table(pa.table({"owner": ["a.png"]}), tmp_path / "list.parquet")
    with pytest.raises(LayoutError, match="column"):
        list_product(_product(layout="manifest", path="list.parquet"), str(tmp_path))


@pytest.mark.parametrize("layout", ["mvtec", "mtd", "folder", "manifest"])
def test_a_missing_folder_is_one_line(tmp_path: Path, layout: str) -> None:
    with pytest.raises(LayoutError) as error:
        list_product(_product(layout=layout), str(tmp_path / "none"))
    assert "\n" not in str(error.value)


def test_maps_are_paired_by_name(tmp_path: Path) -> None:
    _files(tmp_path, "p/test/crack/1.png", "p/test/crack/2.png", "p/test/crack/3.png")
    _files(tmp_path, "m/test/crack/1.npy", "m/test/crack/3.npy", "m/test/crack/3.tiff", "m/test/other/2.npy")
    product = _product(layout="mvtec", maps="m")
    listed, _ = pair_maps(product, str(tmp_path), list_product(product, str(tmp_path)).images)
    maps = {image.path: image.map_uri for image in listed if image.map_uri}
    assert maps == {"p/test/crack/1.png": f"{tmp_path}/m/test/crack/1.npy"}
    assert {image.path: bool(image.problem) for image in listed} == {
        "p/test/crack/1.png": False,
        "p/test/crack/2.png": False,
        "p/test/crack/3.png": True,
    }


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    _files(tmp_path, "p/1.png")
    (before,) = list_product(_product(layout="folder"), str(tmp_path)).images
    (tmp_path / "p/1.png").write_bytes(b"longer")
    (after,) = list_product(_product(layout="folder"), str(tmp_path)).images
    assert before.stamp != after.stamp


def test_absolute_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    _files(tmp_path, "far/p/test/crack/1.png", "maps/test/crack/1.npy", "near/x.png")
    product = _product(layout="mvtec", path=f"{tmp_path}/far/p", maps=f"{tmp_path}/maps")
    (image,) = list_product(product, str(tmp_path / "near")).images
    assert image.uri == f"{tmp_path}/far/p/test/crack/1.png"
    (paired,) = pair_maps(product, str(tmp_path / "near"), [image]).images
    assert paired.map_uri == f"{tmp_path}/maps/test/crack/1.npy"
