"""Five nights of a generated archive, as the commands that a person and a crontab would type.

    python examples/nightly/five_nights.py [FOLDER]

Holes, scratches and cracks are discovered first, and the model becomes the champion. Stains, which nobody has seen,
arrive from the third night on: they are called unknown, then found as a candidate for a new class, accepted, named, and
recognized in the last night. FOLDER (default: `five-nights`) has everything afterwards; look at
`runs/nightly/nights/index.html` first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
from deltalake import DeltaTable

from ancd_ray.data.demo.generate import generate
from ancd_ray.data.store import Folder
from ancd_ray.jobs.identity.tables import read_classes

NEW = "stain"
FIRST, EACH, NEW_EACH = 24, 4, 12  # images of a class: discovered, of a night, of the new one in a night
NIGHTS = 5

DISCOVER = """\
name: first
data: {root: archive, products: [{name: tile, layout: mvtec, path: tile, exclude: [good]}]}
detector: {name: ground_truth}
discovery: {method: ward}
resources: {in_process_below: 1000}
output: runs/first
"""
NIGHTLY = """\
name: nightly
mode: classify
model: models:/{product}@champion
reclassify: false
rediscover: {at: 15}
alerts: {}
data: {root: archive, products: [{name: tile, layout: mvtec, path: tile, exclude: [good]}]}
resources: {in_process_below: 1000}
output: runs/nightly
"""
QUERY = """
SELECT label, coalesce(classes.name, class_id) AS class, count(*) AS images
FROM images JOIN classes ON classes.id = class_id WHERE NOT is_unknown GROUP BY ALL ORDER BY ALL
"""


def main() -> None:
    """Tell the story in a folder."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "five-nights").resolve()
    folder.mkdir(parents=True)
    generate(folder / "source", images=260, normals=4, base=3, seed=3, size=96)
    kinds = sorted(each.name for each in (folder / "source/tile/test").iterdir() if each.name not in ("good", NEW))
    shutil.copytree(folder / "source/tile/ground_truth", folder / "archive/tile/ground_truth")
    (folder / "first.yaml").write_text(DISCOVER)
    (folder / "nightly.yaml").write_text(NIGHTLY)

    say("Before: the known kinds of defect are discovered, and the model becomes the champion.")
    arrive(folder, kinds, FIRST)
    run_folder = run(folder, "submit", "first.yaml").splitlines()[-1]
    run(folder, "models", "register", run_folder, "--name", "tile", "--alias", "champion")
    for night in range(1, NIGHTS + 1):
        say(f"Night {night}{': stains arrive' if night == 3 else ''}.")
        arrive(folder, kinds, EACH)
        if night >= 3:
            arrive(folder, [NEW], NEW_EACH)
        run(folder, "submit", "nightly.yaml")
        for class_id, row in read_classes(Folder(str(folder / "runs/nightly"))).items():
            if row["status"] == "candidate":
                say("In the morning a person looks at the report, accepts the candidate, and names it.")
                run(folder, "classes", "accept", "runs/nightly", class_id)
                run(folder, "classes", "name", "runs/nightly", class_id, NEW)
    say("What the tables say: label of the generator, class, number of images.")
    images, classes = (
        DeltaTable(str(folder / "runs/nightly/archive" / name)).to_pyarrow_dataset()
        for name in ("image_predictions", "classes")
    )
    with duckdb.connect() as connection:
        connection.register("images", images)
        connection.register("classes", classes)
        for row in connection.execute(QUERY).fetchall():
            print(*row, sep="\t")


def arrive(folder: Path, kinds: list[str], count: int) -> None:
    """Move the next images of some kinds into the archive."""
    for kind in kinds:
        target = folder / "archive/tile/test" / kind
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted((folder / "source/tile/test" / kind).iterdir())[:count]:
            file.rename(target / file.name)


def run(folder: Path, *arguments: str) -> str:
    """Run `ancd-ray` and return what it prints; exit code 3 says that there are alerts."""
    print("$ ancd-ray", *arguments, flush=True)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/runs/first/mlflow.db"}
    command = [sys.executable, "-m", "ancd_ray", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode not in (0, 3):
        raise SystemExit(ended.returncode)
    return ended.stdout


def say(text: str) -> None:
    """Print what happens next."""
    print(f"\n# {text}", flush=True)


if __name__ == "__main__":
    main()
