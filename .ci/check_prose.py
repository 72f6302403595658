"""Finds words in the project's prose that .ci/words.txt discourages, and prints the preferred ones.

    python .ci/check_prose.py            # all files of the repository
    python .ci/check_prose.py FILE ...   # these files

Reads comments and docstrings of *.py, all of *.md, and comments of jobs/*.yaml; code in `backticks` is skipped. The
exit code is 1 if anything is found. Requires only the standard library.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WORDS = Path(__file__).with_name("words.txt")
BREAK = "\0"  # no phrase continues across it
_CODE_SPAN = re.compile(r"`[^`\n]*`")
_YAML_COMMENT = re.compile(r"(?:^|\s)#")


class Words(NamedTuple):
    """Discouraged words as one pattern with a group for each of them, and the preferred word of each group."""

    pattern: re.Pattern[str]
    preferred: list[str]


class Hit(NamedTuple):
    """A discouraged word in a text; lines are counted from 1."""

    line: int
    found: str
    preferred: str


def read_words(text: str) -> Words:
    """Parse lines of the form `found -> preferred`; empty lines and lines that start with # are skipped.

    Raises
    ------
    ValueError
        A line has another form, or a word is listed twice.
    """
    entries: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found, arrow, preferred = (part.strip() for part in line.partition(" -> "))
        if not (found and arrow and preferred) or found in entries:
            raise ValueError(f"line {number}: expected 'found -> preferred', once for each word: {line}")
        entries[found] = preferred
    if not entries:
        raise ValueError("it has no words")
    ordered = sorted(entries, key=len, reverse=True)  # alternatives are tried in order: longer words first
    groups = "|".join(f"({_as_pattern(found)})" for found in ordered)
    return Words(re.compile(rf"(?<![\w-])(?:{groups})(?![\w-])", re.IGNORECASE), [entries[found] for found in ordered])


def _as_pattern(found: str) -> str:
    return r"\s+".join(
        re.escape(word.removesuffix("*")) + (r"\w*" if word.endswith("*") else "") for word in found.split()
    )


def find_hits(prose: Sequence[str], words: Words) -> Iterator[Hit]:
    """Find all discouraged words in lines of prose."""
    text = "\n".join(_CODE_SPAN.sub(BREAK, line) if line.strip() else BREAK for line in prose)
    for match in words.pattern.finditer(text):
        assert match.lastindex is not None, "every alternative is a group"
        line = text.count("\n", 0, match.start()) + 1
        yield Hit(line, " ".join(match[0].split()), words.preferred[match.lastindex - 1])


def extract_markdown(text: str) -> list[str]:
    """Return the lines of a Markdown file."""
    return text.splitlines()


def extract_yaml(text: str) -> list[str]:
    """Return the comments of a YAML file, each on its own line; all other lines are BREAK."""
    prose = []
    for line in text.splitlines():
        start = _YAML_COMMENT.search(line)
        prose.append(_comment(line, start.end() - 1) if start else BREAK)
    return prose


def extract_python(text: str) -> list[str]:
    """Return the comments and docstrings of a Python file, each on its own lines; all other lines are BREAK.

    Raises
    ------
    SyntaxError, tokenize.TokenError
        The file is not valid Python.
    """
    lines = text.splitlines()
    prose = [BREAK] * len(lines)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            prose[row - 1] = _comment(lines[row - 1], column)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            prose[first:last] = lines[first:last]
            prose[first] = BREAK + prose[first]  # a docstring does not continue the comment above it
            prose[last - 1] += BREAK
    return prose


def _comment(line: str, column: int) -> str:
    """Return the comment that starts in a column; BREAK is put before a comment that follows code on its line."""
    return (BREAK if line[:column].strip() else "") + line[column:].lstrip("#")


def select_extractor(path: str) -> Callable[[str], list[str]] | None:
    """Return the function that extracts the prose of a file; None for files that are not checked."""
    name = PurePosixPath(path)
    if name.suffix == ".py":
        return extract_python
    if name.suffix == ".md":
        return extract_markdown
    if name.suffix == ".yaml" and name.parent == PurePosixPath("jobs"):
        return extract_yaml
    return None


def list_files() -> list[str]:
    """List the files that git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(path for path in set(listed.split("\0")) if path and (ROOT / path).is_file())


def main(arguments: Sequence[str]) -> int:
    """Print one line for each hit and return the exit code."""
    try:
        words = read_words(WORDS.read_text("utf-8"))
    except ValueError as error:
        print(f"{WORDS.name}: {error}", file=sys.stderr)
        return 2
    paths = [Path(path).resolve().relative_to(ROOT).as_posix() for path in arguments] or list_files()
    n_hits = n_files = 0
    for path in paths:
        prose_of = select_extractor(path)
        if prose_of is None:
            continue
        n_files += 1
        try:
            prose = prose_of((ROOT / path).read_text("utf-8"))
        except (SyntaxError, tokenize.TokenError, UnicodeDecodeError) as error:
            print(f"{path}: cannot be read: {error}", file=sys.stderr)
            return 2
        for hit in find_hits(prose, words):
            n_hits += 1
            print(f"{path}:{hit.line}: {hit.found} -> {hit.preferred}")
    print(f"{n_hits} discouraged words in {n_files} files", file=sys.stderr)
    return 1 if n_hits else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
