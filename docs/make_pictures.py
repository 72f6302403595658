"""Makes the picture of the README from the report of a run on demo data: `make_pictures.py RUN`.

RUN is the last line of the output of `ancd-ray submit jobs/quickstart.yaml`. Requires Chromium.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1180, 2050  # pixels of the page that are shown


def main(run: Path) -> None:
    """Write docs/report.png from the report of a run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no Chromium on this machine; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "shot.png"
        options = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=10000"]
        options += [f"--user-data-dir={scratch}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}"]
        page = (run / "report.html").absolute().as_uri()
        subprocess.run([browser, *options, page], check=True, capture_output=True, timeout=120)
        picture = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
    target = Path(__file__).parent / "report.png"
    picture.quantize(128, method=Image.Quantize.MEDIANCUT).save(target, optimize=True)
    print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
