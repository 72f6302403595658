"""Names of files in annotations, matched with the files of an archive."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ancd_ray.data.layouts.file_names import match_files


def test_names_are_matched_with_files() -> None:
    paths = ["a/1.png", "b/1.png", "p/images/default/c 2.png", "d.png", "e/f.png", "0123abcd-g.png", "h.png", "z/h.png"]
    expected = {
        "a/1.png": "a/1.png",
        "images/b/1.png": "b/1.png",  # the name ends with the path
        "default\\c 2.png": "p/images/default/c 2.png",  # the path ends with the name
        "other/d.png": "d.png",
        "../../media/upload/4/0a1b2c3d-f.png": "e/f.png",
        "images\\0123abcd-g.png": "0123abcd-g.png",  # the file has the prefix itself
        "h.png": "h.png",
    }
    found = match_files(expected, paths)
    assert {name: match.path for name, match in found.items()} == expected
    for name in (
        "/data/upload/1/0a1b2c3d-c_2.png",
        "http://host/x/c%202.png?v=1",
        "/data/local-files/?d=default/c%202.png",
    ):
        assert match_files([name], paths)[name].path == "p/images/default/c 2.png"
    for name, reason in (
        ("c/1.png", "several"),
        ("x.png", "no image"),
        ("..\\", "no image"),
        ("12345-f.png", "no image"),
    ):
        match = match_files([name], paths)[name]
        assert match.path is None
        assert reason in str(match.reason)


def test_a_file_belongs_to_the_name_that_fits_best() -> None:
    found = match_files(["train/0.png", "test/0.png", "x/1.png", "y/1.png"], ["test/0.png", "1.png"])
    assert found["test/0.png"].path == "test/0.png"
    assert found["train/0.png"] == (None, "test/0.png fits 'test/0.png' as well")
    assert found["x/1.png"] == (None, "1.png fits 'y/1.png' as well")
    assert found["y/1.png"] == (None, "1.png fits 'x/1.png' as well")


@settings(max_examples=100)
@given(st.lists(st.text("ab/\\.-%0123d=?:", max_size=12)), st.lists(st.text("ab/.", min_size=1, max_size=4)))
def test_no_file_belongs_to_two_names(entries: list[str], paths: list[str]) -> None:
    found = match_files(entries, paths)
    taken = [match.path for match in found.values() if match.path is not None]
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(paths)
    assert all((match.path is None) == bool(match.reason) for match in found.values())
