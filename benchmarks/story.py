"""Five nights of a product with labels: classes arrive over time, and one is held back until the third night.

    python benchmarks/story.py jobs/mtd.yaml data.root=/archive detector.name=ground_truth data.base=null \
        discovery.method=linked --held-back blowhole
    python benchmarks/story.py jobs/mtd.yaml data.root=/archive ...             every class in turn

Three fifths of the images of the other classes are discovered; the others arrive in equal parts over five nights, and
the held-back class over the last three. New classes are accepted as they are found. Measured are

- the AUROC of the novelty of images of the held-back class, against that of the other images of the nights, and the
  share of the latter that is called unknown (the rate of the job is 0.03);
- the candidate that has most of the class's regions among those that were unknown: its share of them (recall), its
  purity, and its night;
- the share of images whose class has another id after a discovery over everything, matched with the classes before, and
  ARI of the images that no discovery saw, against that of this last discovery over the same images.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from deltalake import DeltaTable
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from timing import describe_machine

from ancd_ray.config.job import Job
from ancd_ray.config.load import load, validate
from ancd_ray.data.store import Folder
from ancd_ray.engine.progress import Display
from ancd_ray.jobs import tracking
from ancd_ray.jobs.archive import Archive
from ancd_ray.jobs.classify.run import run as classify
from ancd_ray.jobs.identity.edits import set_status
from ancd_ray.jobs.identity.tables import read_classes, read_members
from ancd_ray.jobs.run import run as discover

NIGHTS, HELD_FROM, DISCOVERED = 5, 3, 0.6
POOL = 15  # unknown regions by which new classes are looked for: the sets are small
_COLUMNS = ("uri", "label", "mask", "role", "captured_at")


class Story:
    """An archive of one product that grows, in a folder."""

    def __init__(self, folder: Path, job: Job, held_back: str, seed: int) -> None:
        self.folder, self.job, self.held_back = folder, job, held_back
        product = job.data.products[0]
        listing = Archive(job.data.root).product(product, job.detector.reads_maps)
        self.rows: dict[str, dict[str, str]] = {}
        for image in listing.images:
            row = {"uri": self._copy(image.uri), "label": image.label or "", "role": image.role}
            row["mask"] = self._copy(image.mask_uris[0]) if image.mask_uris else ""
            self.rows[row["uri"]] = row
        self.found: dict[str, int] = {}  # the nights of candidates
        self.arrival = self._plan(np.random.default_rng(seed))

    def run(self) -> dict[str, Any]:
        """Run the nights and return what was measured."""
        self._write_listing(0)
        self.first = self._run(discover, self._make_job("discover", self._count_classes() - 1))
        model = str(self.first)
        night_job = {"mode": "classify", "model": model, "reclassify": False, "keep": "none"}
        night_job |= {"rediscover": {"at": POOL}, "output": str(self.folder / "night")}
        found = self.found
        for night in range(1, NIGHTS + 1):
            self._write_listing(night)
            self._run(classify, self._make_job("night", None, **night_job))
            root = Folder(str(self.folder / "night"))
            for class_id, row in read_classes(root).items():
                if row["status"] == "candidate":
                    found.setdefault(class_id, night)
                    set_status(root, class_id, "active")
        return {**self._measure_unknown(), **self._measure_candidates(found), **self._measure_identity()}

    def _measure_unknown(self) -> dict[str, float]:
        rows = [row for row in self._read("image_predictions") if self._night_of(row) > 0]
        novelty = {row["uri"]: row["novelty"] for row in rows}
        is_held = np.array([self._label_of(row) == self.held_back for row in rows])
        # of images that came before their class was known
        scores = np.array([novelty[row["uri"]] for row in rows])
        first = np.array([row["model"] == self._first_model(rows) for row in rows])
        # accepted classes take the rows that they were found among
        unknown = np.array(
            [
                row["is_unknown"] or (is_first and row["class_id"] in self.found)
                for row, is_first in zip(rows, first, strict=True)
            ]
        )
        return {
            "auroc": float(roc_auc_score(is_held[first], scores[first])),
            "known_unknown": float(unknown[~is_held].mean()),
            "held_unknown": float(unknown[is_held & first].mean()),
        }

    def _measure_candidates(self, found: Mapping[str, int]) -> dict[str, Any]:
        labels = {row["region_id"]: self._label_of(row) for row in self._read("region_predictions")}
        members = read_members(Folder(str(self.folder / "night")), self._product)
        of_class = {region: row["class_id"] for region, row in members.items() if row["class_id"] in found}
        unknown = {row["region_id"] for row in self._read("region_predictions") if row["is_unknown"]}
        held = [region for region in unknown | of_class.keys() if labels[region] == self.held_back]
        counts = Counter(of_class[region] for region in held if region in of_class)
        if not counts:
            return {"recall": 0.0, "purity": 0.0, "night": None, "candidates": len(found)}
        best, n = counts.most_common(1)[0]
        own = [labels[region] for region, class_id in of_class.items() if class_id == best]
        purity = own.count(self.held_back) / len(own)
        # the regions that were unknown when the candidate was found, or since
        return {"recall": n / len(held), "purity": purity, "night": found[best], "candidates": len(found)}

    def _measure_identity(self) -> dict[str, float]:
        """Discover over everything in the folder of the nights, and compare ids."""
        before = {row["uri"]: row for row in self._read("image_predictions")}
        last = self._run(discover, self._make_job("again", self._count_classes(), output=str(self.folder / "night")))
        document = (last / "models" / self._product).read_json("model.json")
        ids = {each["index"]: each["id"] for each in document["classes"]}
        names = (last / "image_predictions").names()
        after = {row["uri"]: row for name in names for row in (last / "image_predictions").read_table(name).to_pylist()}
        shared = [uri for uri in before if uri in after and not before[uri]["is_unknown"]]
        changed = np.mean([before[uri]["class_id"] != ids[after[uri]["cls"]] for uri in shared])
        unseen = [uri for uri in shared if self._night_of(before[uri]) > 0]
        labels = [self._label_of(before[uri]) for uri in unseen]
        return {
            "changed": float(changed),
            "ari_nights": float(adjusted_rand_score(labels, [before[uri]["class_id"] for uri in unseen])),
            "ari_again": float(adjusted_rand_score(labels, [after[uri]["cls"] for uri in unseen])),
        }

    # --- the archive

    @property
    def _product(self) -> str:
        return self.job.data.products[0].name

    def _plan(self, rng: np.random.Generator) -> dict[str, int]:
        """Return the night on which each image arrives; 0: it is discovered."""
        arrival = {}
        for row in self.rows.values():
            if row["role"] != "query":
                arrival[row["uri"]] = 0
            elif row["label"] == self.held_back:
                arrival[row["uri"]] = int(rng.integers(HELD_FROM, NIGHTS + 1))
            else:
                is_first = rng.random() < DISCOVERED
                arrival[row["uri"]] = 0 if is_first else int(rng.integers(1, NIGHTS + 1))
        return arrival

    def _copy(self, uri: str) -> str:
        source = Path(uri)
        target = self.folder / "archive" / "files" / f"{len(list(self._files))}-{source.name}"
        self._files.append(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        return f"files/{target.name}"

    @property
    def _files(self) -> list[Path]:
        return self.__dict__.setdefault("_copied", [])

    def _write_listing(self, night: int) -> None:
        with (self.folder / "archive" / "list.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            for uri, row in self.rows.items():
                if self.arrival[uri] <= night:
                    writer.writerow({**row, "captured_at": f"2026-01-{self.arrival[uri] + 1:02d}T22:00:00"})

    def _count_classes(self) -> int:
        return len({row["label"] for row in self.rows.values() if row["role"] == "query"})

    def _make_job(self, name: str, classes: int | None, **keys: Any) -> Job:
        product = self.job.data.products[0]
        own = {"name": product.name, "layout": "manifest", "path": "list.csv", "mask_threshold": product.mask_threshold}
        document: dict[str, Any] = {
            "name": name,
            "data": {"root": str(self.folder / "archive"), "products": [own]},
            "resources": {"in_process_below": 1_000_000},
            "output": str(self.folder / "discover"),
        }
        if classes is not None:
            given = self.job.model_dump(
                include={"detector", "mebin", "backbone", "train", "merge", "discovery"}, by_alias=True
            )
            document |= {**given, "classes": {"novel": classes}}
        return validate({**document, **keys})

    def _run(self, what: Any, job: Job) -> Folder:
        display = Display("story")
        with patch.object(tracking, "find_store", return_value=None), display.running():
            return what(job, None, display)

    # --- what is known of rows

    def _read(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (
            DeltaTable(str(self.folder / "night" / "archive" / table)).to_pyarrow_table().to_pylist()
        )
        return rows

    def _night_of(self, row: Mapping[str, Any]) -> int:
        return self.arrival["files/" + row["uri"].rpartition("/")[2]]

    @staticmethod
    def _label_of(row: Mapping[str, Any]) -> str:
        return str(row["label"])

    @staticmethod
    def _first_model(rows: Sequence[Mapping[str, Any]]) -> str:
        return str(Counter(row["model"] for row in rows if row["day"].day <= HELD_FROM).most_common(1)[0][0])


def main() -> None:
    """Tell the story of the classes that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--held-back", nargs="+", help="classes; default: each in turn")
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    job = load(asked.job, asked.overrides)
    listing = Archive(job.data.root).product(job.data.products[0], job.detector.reads_maps)
    held_back = asked.held_back or [label for label in listing.labels if label != "good"]
    print(describe_machine())
    print("| held back | AUROC | unknown of known · of it | recall · purity | night | candidates | changed | ARI |")
    print("|---|---|---|---|---|---|---|---|")
    for label in held_back:
        for seed in range(asked.seeds):
            with tempfile.TemporaryDirectory() as folder:
                found = Story(Path(folder), job, label, seed).run()
            cells = [label, f"{found['auroc']:.3f}", f"{found['known_unknown']:.3f} · {found['held_unknown']:.2f}"]
            cells += [f"{found['recall']:.2f} · {found['purity']:.2f}", str(found["night"]), str(found["candidates"])]
            cells += [f"{found['changed']:.3f}", f"{found['ari_nights']:.3f} · {found['ari_again']:.3f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
