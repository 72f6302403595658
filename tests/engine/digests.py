"""Digests of the source that each stage's results depend on: its own module, and those of the method that it imports.

python -m tests.engine.digests     records those of today; a change of results needs a new `version` of the stage, too

Docstrings, comments and blank lines do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import tokenize
from pathlib import Path

from ancd_ray.engine.stage import Stage
from ancd_ray.jobs import flows
from ancd_ray.models.classify_images import ClassifyImages
from ancd_ray.stages.cut import Cut

RECORD = Path(__file__).with_name("digests.json")
# what results come from, beside the stage
FOLLOWED = ("ancd_ray.method", "ancd_ray.discovery", "ancd_ray.detectors", "ancd_ray.models.model", "ancd_ray.stages")


def stages() -> dict[str, type[Stage]]:
    """Every stage of the flows, by name."""
    found = [value for value in vars(flows).values() if isinstance(value, type) and issubclass(value, Stage)]
    found += [ClassifyImages, Cut]  # their flows are single stages
    return {stage.name: stage for stage in found}


def digest(module: str) -> str:
    """Digest of a module and of the modules of `FOLLOWED` that it imports, wherever the import stands."""
    seen: set[str] = set()
    todo = [module]
    total = hashlib.sha256()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        source = _source(name)
        todo += [found for found in _imports(ast.parse(source)) if found.startswith(FOLLOWED)]
    for name in sorted(seen):
        total.update(f"{name}\n{bare(_source(name))}\n".encode())
    return total.hexdigest()[:16]


def bare(source: str) -> str:
    """The source without docstrings, comments and blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            text = node.body[0]
            for row in range(text.lineno - 1, text.end_lineno or text.lineno):
                lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def current() -> dict[str, list[object]]:
    """Version and digest of every stage today."""
    return {name: [stage.version, digest(stage.__module__)] for name, stage in sorted(stages().items())}


def _imports(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.startswith("ancd_ray") and _file(name)]


def _file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _source(name: str) -> str:
    file = _file(name)
    assert file is not None
    return file.read_text("utf-8")


if __name__ == "__main__":
    RECORD.write_text(json.dumps(current(), indent=1) + "\n")
