"""The tree of classes in a real browser, in the reports of the quickstart and of a discovery from masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser

from ancd_ray.config.job import Job
from ancd_ray.config.load import load
from tests.conftest import REPO, Ran

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

STATE = """(() => {
  const section = document.querySelector("section.tree");
  const text = (element) => element.textContent;
  return {
    k: text(section.querySelector("output")),
    spoken: section.querySelector("input").getAttribute("aria-valuetext"),
    command: text(section.querySelector("code")),
    groups: [...section.querySelectorAll(".groups h4")].map(text),
    regions: [...section.querySelectorAll(".groups > article > p")].map((p) => parseInt(text(p).replace(",", ""))),
    pictures: section.querySelectorAll(".groups img").length,
    changes: [...section.querySelectorAll(".changes p")].map(text),
    colours: new Set([...section.querySelectorAll("path")].map((path) => path.style.stroke)).size,
    focused: document.activeElement === section.querySelector("input"),
    page: document.documentElement.scrollWidth,
  };
})()"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def quickstart(demo_root: Path, run_job: Callable[[Job], Ran], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The job of the quickstart over the small archive, whose normal images are told by their scores."""
    output = tmp_path_factory.mktemp("quickstart")
    cheap = ("detector.image_size=128", "detector.coreset=200", "resources.in_process_below=1000")
    return run_job(load(REPO / "jobs/quickstart.yaml", [f"data.root={demo_root}", f"output={output}", *cheap]))


def _press(tab: Browser, key: str, code: int) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        tab.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("name", "told"), [("quickstart", 1), ("clustered", 0)])
def test_the_slider_shows_every_number_of_classes(
    tab: Browser, quickstart: Ran, clustered: tuple[Job, Ran], name: str, told: int, width: int
) -> None:
    """`told` is the number of classes that scores of images tell, which are in no tree."""
    run = quickstart if name == "quickstart" else clustered[1]
    tab.resize(width, 900)
    tab.open(Path(run.folder.uri) / "report.html")
    first = tab.evaluate(STATE)
    n = len((run.folder / "models/tile").read_json("model.json")["classes"])
    assert first["k"] == str(n)
    assert len(first["groups"]) == n - told == first["colours"] - 1, "classes have colours, what is above them has none"
    assert not any("part of" in name or " + " in name for name in first["groups"]), "they are those of the run"
    assert first["command"].endswith(f"{run.folder.uri} --k {n}")
    assert first["page"] <= width
    tab.evaluate("document.querySelector('section.tree input').focus()")
    _press(tab, "ArrowLeft", 37)
    fewer = tab.evaluate(STATE)
    assert fewer["focused"]
    assert (fewer["k"], fewer["spoken"]) == (str(n - 1), f"{n - 1} classes")
    (joined,) = [name for name in fewer["groups"] if " + " in name]
    assert all(part in first["changes"][0] for part in joined.split(" + ")), "it was said which classes become one"
    assert sum(fewer["regions"]) == sum(first["regions"])
    assert fewer["pictures"] == first["pictures"] >= n - told
    _press(tab, "End", 35)
    most = tab.evaluate(STATE)
    assert len(most["groups"]) == int(most["k"]) - told == 12 - told
    assert "part of" in " ".join(most["groups"])
    assert len(most["changes"]) == 1, "leaves are not divided"
    assert most["command"].endswith("--k 12")
    assert most["page"] <= width
    _press(tab, "Home", 36)
    assert len(tab.evaluate(STATE)["groups"]) == 2
    assert tab.complaints() == []
