"""Archives as people have them, each with one peculiarity: a function writes the folder of a product.

The pictures are the tiles of the demo with three kinds of defect; `CASES` has the keys of each product in a job file.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ancd_ray.data.demo.generate import draw
from ancd_ray.data.images import turn_upright

Array = NDArray[Any]
KINDS = ("hole", "scratch", "stain")
EACH, GOOD, NORMALS, SIDE = 3, 2, 4, 96
QUERIES = EACH * len(KINDS) + GOOD


class Picture(NamedTuple):
    """A tile (H, W, 3) with its mask of 0 and 1, (H, W)."""

    kind: str
    name: str
    image: Array
    mask: Array

    @property
    def gray(self) -> Array:
        """The green channel."""
        return self.image[..., 1]


@cache
def pictures() -> list[Picture]:
    """Draw the test images, those of a kind one after the other, at last the good ones."""
    drawn = []
    for kind in (*KINDS, "good"):
        for index in range(GOOD if kind == "good" else EACH):
            sample = draw("tile", "test", kind, index, size=SIDE)
            drawn.append(Picture(kind, f"{index:03d}", sample.image[..., ::-1], sample.mask // 255))
    return drawn


@cache
def normals() -> list[Array]:
    """Draw normal images."""
    return [draw("tile", "train", "good", index, size=SIDE).image[..., ::-1] for index in range(NORMALS)]


def save(path: Path, picture: Array, **options: Any) -> None:
    """Write an image by the suffix of its name, which may have any characters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(
        buffer, Image.registered_extensions()[path.suffix.lower()], **options
    )
    path.write_bytes(buffer.getvalue())


def write_mvtec(
    folder: Path,
    image: Callable[[Array], Array] = lambda picture: picture,
    mask: Callable[[Picture], Array] = lambda picture: picture.mask * 255,
    path: Callable[[Picture], str] = lambda picture: f"{picture.kind}/{picture.name}",
    ending: Callable[[Picture], str] = lambda _: "_mask",
    suffix: str = ".png",
    **options: Any,
) -> None:
    """Write a folder like MVTec AD's; the arguments say what is different in it."""
    for number, picture in enumerate(normals()):
        save(folder / f"train/good/{number:03d}{suffix}", image(picture), **options)
    for picture in pictures():
        save(folder / f"test/{path(picture)}{suffix}", image(picture.image), **options)
        if picture.kind != "good":
            save(folder / f"ground_truth/{path(picture)}{ending(picture)}.png", mask(picture))


def numbered_masks(folder: Path) -> None:
    """Write masks with the number of the class: 1, 2, 3."""
    write_mvtec(folder, mask=lambda picture: picture.mask * np.uint8(1 + KINDS.index(picture.kind)))


def names_of_masks(folder: Path) -> None:
    """Write masks whose names end in another way for each class; one of them is lost."""
    endings = {"hole": "_gt", "scratch": "_label", "stain": "-01"}
    write_mvtec(folder, ending=lambda picture: endings[picture.kind])
    (folder / "ground_truth/hole/002_gt.png").unlink()


def turned(folder: Path) -> None:
    """Write JPEGs as a camera on its side does, with upright masks."""
    exif = Image.Exif()
    exif[274] = 6

    def lie_down(picture: Array) -> Array:
        return turn_upright(picture[:, : SIDE - 8], 8)  # the inverse; not square, so that a swap of sides is seen

    write_mvtec(folder, lie_down, lambda picture: picture.mask[:, : SIDE - 8] * 255, suffix=".jpg", exif=exif)


def dated(folder: Path) -> None:
    """Write folders by date below those of two classes."""

    def by_day(picture: Picture) -> str:
        is_dated = picture.kind in KINDS[:2] and picture.name == "002"
        return f"{picture.kind}/{'2024-05-02/' if is_dated else ''}{picture.name}"

    write_mvtec(folder, path=by_day)


def with_leftovers(folder: Path) -> None:
    """Write what notebooks and network drives leave behind."""
    write_mvtec(folder)
    for left in (".ipynb_checkpoints/000-checkpoint.png", "@eaDir/000.png", "hole/._000.png"):
        save(folder / "test" / left, np.zeros((SIDE, SIDE), np.uint8))


def not_utf8(folder: Path) -> None:
    """Write one file whose name is in Latin-1."""
    write_mvtec(folder)
    name = os.fsencode(folder / "test/hole/000.png")
    os.rename(name, name.replace(b"000", b"stra\xdfe"))  # noqa: PTH104


def twelve_bits(folder: Path) -> None:
    """Write the images of a camera of 12 bits in 16."""
    write_mvtec(folder, lambda picture: picture[..., 1].astype(np.uint16) * 16, suffix=".tif")


def eight_bits(folder: Path) -> None:
    """Write the same images in 8 bits."""
    write_mvtec(folder, lambda picture: picture[..., 1])


SIGNS = ("img {}", "part#{}", "50%{}0", "q?{}", "a&b={};", "[{}]", "'{}'")


def names_with_signs(folder: Path) -> None:
    """Write names that mean something else in a URI or a pattern."""
    for number, picture in enumerate(pictures()):
        save(folder / f"{SIGNS[number % len(SIGNS)].format(number)}.png", picture.image)
    for number, picture in enumerate(normals()):
        save(folder / f"normal #1/{number}.png", picture)


SCAN, PIT = (4000, 500), 16


def line_scans(folder: Path) -> None:
    """Write long line scans, each with one small defect."""
    rng = np.random.default_rng(0)
    for kind, (height, width) in {"pit": (PIT, PIT), "scratch": (4, PIT)}.items():
        for number in range(3):
            image = rng.normal(140, 4, SCAN).astype(np.uint8)
            mask = np.zeros(SCAN, np.uint8)
            y, x = int(rng.integers(100, SCAN[0] - 100)), int(rng.integers(100, SCAN[1] - 100))
            image[y : y + height, x : x + width] = 20
            mask[y : y + height, x : x + width] = 255
            save(folder / f"test/{kind}/{number}.jpg", image)
            save(folder / f"ground_truth/{kind}/{number}_mask.png", mask)


def _write_manifest(
    folder: Path, header: str, separator: str = ",", end: str = "\n", slash: str = "/", encoding: str = "utf-8"
) -> None:
    lines = [header]
    for picture in pictures():
        image, mask = f"line 1/{picture.kind}/{picture.name}.png", f"masks/{picture.kind}-{picture.name}.png"
        save(folder / image, picture.image)
        if picture.kind == "good":
            mask = ""
        else:
            save(folder / mask, picture.mask * 255)
        below = f"{folder.name}{slash}"
        cells = (f"{below}{image}", picture.kind, f"{below}{mask}" if mask else "")
        lines.append(separator.join(cell.replace("/", slash) for cell in cells))
    (folder / "list.csv").write_bytes((end.join(lines) + end).encode(encoding))


def list_of_excel(folder: Path) -> None:
    """Write a table as a German spreadsheet does."""
    _write_manifest(folder, "Image File;Class;Mask", ";", "\r\n", encoding="utf-8-sig")


def list_of_windows(folder: Path) -> None:
    """Write a table with paths of Windows."""
    _write_manifest(folder, "path,label,mask", slash="\\", end="\r\n", encoding="utf-16")


def padded_list(folder: Path) -> None:
    """Write a table with blanks after its commas."""
    _write_manifest(folder, "uri, label, mask", ", ")


def coco(folder: Path) -> None:
    """Write a box around each defect, as an annotation tool does."""
    document: dict[str, list[Any]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": kind} for number, kind in enumerate(KINDS, 1)],
    }
    for number, picture in enumerate(pictures()):
        name = f"{picture.kind}_{picture.name}.png"
        save(folder / "images/default" / name, picture.image)
        document["images"].append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        if picture.mask.any():
            rows, columns = np.nonzero(picture.mask)
            x0, x1, y0, y1 = (int(edge) for edge in (columns.min(), columns.max(), rows.min(), rows.max()))
            ring = [x0, y0, x1, y0, x1, y1, x0, y1]
            about = {"id": number, "image_id": number, "category_id": 1 + KINDS.index(picture.kind)}
            document["annotations"].append({**about, "segmentation": [ring], "bbox": [x0, y0, x1 - x0, y1 - y0]})
    (folder / "annotations").mkdir()
    (folder / "annotations/instances_default.json").write_text(json.dumps(document))


def visa(folder: Path) -> None:
    """Write VisA's folders: masks with numbers, JPEGs in capitals."""
    for picture in pictures():
        kind = "Normal" if picture.kind == "good" else "Anomaly"
        save(folder / f"Data/Images/{kind}/{picture.kind}{picture.name}.JPG", picture.image)
        if picture.kind != "good":
            save(folder / f"Data/Masks/Anomaly/{picture.kind}{picture.name}.png", picture.mask)


def btad(folder: Path) -> None:
    """Write BTAD's folders."""
    for picture in pictures():
        kind = "ok" if picture.kind == "good" else "ko"
        save(folder / f"test/{kind}/{picture.kind}{picture.name}.bmp", picture.image)
        if picture.kind != "good":
            save(folder / f"ground_truth/ko/{picture.kind}{picture.name}.png", picture.mask * 255)


MASKS = {"name": "ground_truth"}
LIST = {"layout": "manifest", "detector": MASKS}
MVTEC = {"layout": "mvtec", "detector": MASKS}
CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "numbered": (numbered_masks, MVTEC),
    "names": (names_of_masks, MVTEC),
    "turned": (turned, MVTEC),
    "dated": (dated, MVTEC),
    "leftovers": (with_leftovers, MVTEC),
    "latin": (not_utf8, MVTEC),
    "twelve": (twelve_bits, {"layout": "mvtec"}),
    "eight": (eight_bits, {"layout": "mvtec"}),
    "signs": (names_with_signs, {"layout": "folder", "normals": "normal #1", "novel": 3}),
    "scans": (line_scans, MVTEC),
    "excel": (list_of_excel, {**LIST, "path": "excel/list.csv"}),
    "windows": (list_of_windows, {**LIST, "path": "windows/list.csv"}),
    "padded": (padded_list, {**LIST, "path": "padded/list.csv"}),
    "coco": (coco, {"layout": "coco", "detector": MASKS}),
    "visa": (visa, {"layout": "visa", "detector": MASKS}),
    "btad": (btad, {"layout": "btad", "detector": MASKS}),
}
