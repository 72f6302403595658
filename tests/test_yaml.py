"""YAML that is broken, ambiguous or hostile: one line with file, line and way out, exit code 2, at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from ancd_ray.cli.main import main
from ancd_ray.config.load import JobError, load, parse, validate
from ancd_ray.config.yaml_loader import parse_yaml

HEAD = "name: a\ndata: {root: /x, products: [{name: p, layout: mvtec, path: p}]}\ndetector: {name: patchcore}\n"
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
MERGED_LAUGHS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)
)

HOSTILE = {
    "key_twice": ("train: {epochs: 1}\nmerge: {}\ntrain: {epochs: 2}\n", 6, "`train` is given twice (first in line 4)"),
    "key_twice_within": ("train: {epochs: 1, epochs: 2}\n", 4, "`epochs` is given twice"),
    "key_twice_quoted": ("train:\n  epochs: 1\n  'epochs': 2\n", 6, "`epochs` is given twice (first in line 5)"),
    "billion_laughs": (LAUGHS, None, "more than 100,000 values"),
    "billion_laughs_by_merging": (MERGED_LAUGHS, None, "more than 100,000 values"),
    "integer_of_5000_digits": (f"train: {{epochs: {'9' * 5000}}}\n", 4, "a number of 5,000 digits"),
    "self_reference": ("train: &a [*a]\n", 4, "contains itself"),
    "self_reference_in_a_mapping": ("train: &a\n  mu: {x: *a}\n", 5, "contains itself"),
    "deep_list": (f"train: {'[' * 100_000}\n", 4, "nesting depth"),  # libyaml's own limit is met first
    "deep_list_of_dashes": (f"train:\n{'- ' * 200}x\n", 5, "nested more than 50 levels"),
    "deep_mapping": ("".join(f"{' ' * i}a:\n" for i in range(200)), None, "nested more than 50 levels"),
    "nul": ("output: a\0b\n", 4, "control character U+0000"),
    "nul_escaped": ('output: "a\\0b"\n', 4, "control character U+0000"),
    "escape_byte": ("output: a\x1b[31mb\n", 4, "control character U+001B"),
    "two_documents": ("---\nname: b\n", 4, "second document"),
    "python_object": ("output: !!python/object/apply:os.system [id]\n", 4, "the tag !!python/object/apply:os.system"),
    "own_tag": ("output: !mine x\n", 4, "the tag !mine"),
    "tag_that_does_not_fit": ("train: {epochs: !!int x}\n", 4, "the tag !!int"),
    "timestamp_tag": ("output: !!timestamp 2026-13-45\n", 4, "the tag !!timestamp"),
    "key_that_is_no_text": ("1: 2\n", 4, "`1` is not text"),
    "key_that_is_a_list": ("? [a]\n: 2\n", 4, "is not text"),
    "unknown_anchor": ("train: *b\n", 4, "not valid YAML"),
    "tab": ("train:\n\tepochs: 1\n", 5, "not valid YAML"),
    "open_bracket": ("train: [\n", None, "not valid YAML"),
    "too_large": ("# " + "x" * 2_000_000, None, "larger than"),
    "many_values": ("output: [" + "1," * 200_000 + "]", 4, "more than 100,000 values"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml(name: str, tmp_path: Path) -> None:
    text, line, said = HOSTILE[name]
    file = tmp_path / "job.yaml"
    file.write_text(HEAD + text)
    start = time.monotonic()
    result = CliRunner().invoke(main, ["plan", str(file)])
    seconds = time.monotonic() - start
    assert result.exit_code == 2, result.output
    (shown,) = result.stderr.strip().splitlines()
    assert shown.startswith(f"error: {file}:{line}: " if line else f"error: {file}:"), shown
    assert said in shown
    assert len(shown) < 300 + len(str(file))
    assert seconds < 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=" + "9" * 5000, "a number of 5,000 digits"),
        ("train.views={bank: 2, bank: 3}", "given twice"),
        ("data.products=" + "[" * 100_000, "nest"),
        ("output=&a [*a]", "contains itself"),
        ("output=!!python/name:os.system", "tag"),
        ('output="a\\0b"', "control character"),
        ("a." * 5000 + "b=1", "levels deep"),
        ("train.epochs='" + "9" * 5000 + "'", "train.epochs"),
        ("output=---\n--- a", "second document"),
    ],
    ids=["digits", "twice", "deep", "self", "tag", "nul", "deep_key", "long_text", "documents"],
)
def test_hostile_override(override: str, said: str) -> None:
    with pytest.raises(JobError) as error:
        validate(parse_yaml(HEAD), [override])
    (line,) = error.value.lines
    assert said in line
    assert "\n" not in line
    assert len(line) < 400


@pytest.mark.parametrize("date", ["2026-13-45", "2026-01-02", "2026-01-02 03:04:05", "2001-12-14t21:59:43.10-05:00"])
def test_dates_are_text(date: str) -> None:
    assert validate(parse_yaml(f"{HEAD}output: {date}\n")).output == date
    assert validate(parse_yaml(HEAD), [f"output={date}"]).output == date


def test_aliases_and_merges_still_work() -> None:
    text = f"{HEAD}train: {{views: &v {{fresh: true}}}}\nmerge: {{<<: &m {{rule: area}}, tau_alpha: 3}}\n"
    job = validate(parse(text.encode(), "job.yaml"))
    assert job.train.views.fresh
    assert (job.merge.rule, job.merge.tau_alpha) == ("area", 3)
    nested = parse_yaml("a: {inner: &b {<<: {x: 1}, x: 2}}\nc: {<<: *b, y: 3}\n")
    assert nested["a"] == {"inner": {"x": 2}}, "a key beside << replaces the merged one; it is not given twice"


def test_endless_file() -> None:
    with pytest.raises(JobError, match="larger than"):
        load(Path("/dev/zero"))


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(HEAD.encode("utf-16"))
    with pytest.raises(JobError, match="UTF-8"):
        load(file)


def test_hostile_yaml_on_standard_input() -> None:
    result = CliRunner().invoke(main, ["plan", "-"], input=f"{HEAD}name: b\n")
    assert result.exit_code == 2
    assert result.stderr == "error: -:4: the key `name` is given twice (first in line 1); keep one\n"
