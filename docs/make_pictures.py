"""Makes the pictures of the documentation: `make_pictures.py RUN` for the report of a run, `make_pictures.py night`.

RUN is the last line of the output of `ancd-ray submit jobs/quickstart.yaml`; the night is an example that is built from
demo images by tests/report/sample_night.py. Requires Chromium.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

COLORS = 256
DOCS = Path(__file__).absolute().parent
WIDTH = 1180  # pixels of a page that are shown
REPORT, NIGHT = 2050, 2900  # heights


def main(source: str) -> None:
    """Write docs/report.png from the report of a run, or docs/night.png."""
    if source != "night":
        print(take_picture(Path(source) / "report.html", REPORT, DOCS / "report.png"))
        return
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "night.html"
        page.write_text(render_night(), encoding="utf-8")
        print(take_picture(page, NIGHT, DOCS / "night.png"))


def render_night() -> str:
    """Render the night of the tests."""
    sys.path.insert(0, str(DOCS.parent / "tests" / "report"))
    from sample_night import busy_night

    from ancd_ray.jobs.nights.render import render

    return render(busy_night())


def take_picture(page: Path, height: int, target: Path) -> Path:
    """Write what a browser shows of a page as a PNG file with a palette."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no Chromium on this machine; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "shot.png"
        options = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=10000"]
        options += [f"--user-data-dir={scratch}/profile", f"--window-size={WIDTH},{height}", f"--screenshot={shot}"]
        subprocess.run([browser, *options, page.absolute().as_uri()], check=True, capture_output=True, timeout=120)
        picture = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
    picture.quantize(COLORS, method=Image.Quantize.MEDIANCUT).save(target, optimize=True)
    return target


if __name__ == "__main__":
    main(sys.argv[1])
