"""Reads a job file: YAML, `${VAR}`, overrides, validation; every error in one line that names the key."""

from __future__ import annotations

import copy
import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.config.renamed import rename_keys

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
CREDENTIALS = re.compile(r"//[^/@\s\"]+@")  # user:password of a URI

Location = tuple[Union[str, int], ...]  # noqa: UP007  (a runtime alias; Python 3.10 reads it either way)


class JobError(AncdError):
    """The job cannot run as it is written: one line for each thing that is wrong."""

    exit_code = 2

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def load(path: Path, overrides: Sequence[str] = ()) -> Job:
    """The job of a YAML file (`-`: standard input), with `key.path=value` overrides (values are YAML).

    Raises:
        JobError: the file, an override, a variable or any key is wrong; all of them at once.
    """
    try:
        document = yaml.safe_load(sys.stdin if str(path) == "-" else path.read_text("utf-8"))
    except OSError as error:
        raise JobError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: is not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise JobError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(document, dict):
        raise JobError(f"{path}: a job file is a mapping with name, data, detector, ...; see jobs/quickstart.yaml")
    return validate(document, overrides, str(path))


def validate(document: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "job") -> Job:
    """The job of a parsed document; see `load`."""
    tree = copy.deepcopy(dict(document))
    problems: list[str] = []
    for override in overrides:
        try:
            _apply(tree, override)
        except ValueError as error:
            problems.append(f"{override}: {error}")
    try:
        tree = rename_keys(_expand(tree, (), problems))
    except ValueError as error:
        problems.append(f"{source}: {error}")
    try:
        job = Job.model_validate(tree)
    except ValidationError as error:
        problems += [f"{source}: {line}" for line in explain(error)]
    if problems:
        raise JobError(*problems)
    return job


def resolved(job: Job) -> str:
    """The job as YAML with every default filled in and credentials of URIs hidden."""
    text = yaml.safe_dump(job.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
    return CREDENTIALS.sub("//***@", text)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError("an override is written key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError("the value is not valid YAML; quote it for the shell") from error
    assign(tree, key, value)


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Puts a value at a dotted key of a job's document.

    Raises:
        ValueError: the key leads nowhere.
    """
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = _child(node, part, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
        return
    if not isinstance(node, dict):
        raise ValueError(f"{'.'.join(parents)} is a single value and has no keys")
    if last in ("name", "layout") and parents[-1:] == ["detector"] and node.get(last) != value:
        node.clear()  # another detector has other keys: those of the old one go with it
    node[last] = value


def _child(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, key)]
    if not isinstance(node, dict):
        raise ValueError(f"{part!r} in {key} is below a single value")
    return node[part]


def _index(node: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ValueError(f"{part!r} in {key} is no place of a list of {len(node)}")
    return int(part)


def _expand(node: Any, where: Location, problems: list[str]) -> Any:
    """The tree with `${VAR}` and `${VAR:-default}` replaced in every string."""
    if isinstance(node, dict):
        return {key: _expand(value, (*where, key), problems) for key, value in node.items()}
    if isinstance(node, list):
        return [_expand(value, (*where, index), problems) for index, value in enumerate(node)]
    if not isinstance(node, str):
        return node

    def replace(match: re.Match[str]) -> str:
        default: str | None = match["default"]
        value = os.environ.get(match["name"], default)
        if value is None:
            problems.append(
                f"{_dotted(where)}: the environment variable {match['name']} is not set "
                f"(or write ${{{match['name']}:-default}})"
            )
        return value or ""

    return _VARIABLE.sub(replace, node)


def _dotted(where: Location) -> str:
    return ".".join(str(part) for part in where)


# --- pydantic's errors, for people ------------------------------------------------------------------------------


def explain(error: ValidationError) -> list[str]:
    """One line a key; the branches of a union that all failed are joined by "or"."""
    lines: dict[str, str] = {}
    places = [_untag(problem["loc"]) for problem in error.errors()]
    for problem, (where, parent) in zip(error.errors(), places, strict=True):
        key = _dotted(where)
        if problem["type"] == "too_short" and any(
            other[: len(where)] == where for other, _ in places if other != where
        ):
            continue  # the list is only empty because what was in it is wrong
        key, text = _say(problem, key, parent)
        if key in lines and text.startswith("input should be"):
            text = f"{lines[key].split(', not ')[0]} or {text.removeprefix('input should be ')}"
        lines[key] = text
    return [f"{key or 'job'}: {text}" for key, text in lines.items()]


def _say(problem: ErrorDetails, key: str, parent: type[BaseModel] | None) -> tuple[str, str]:
    """The key that a problem belongs to, and what is wrong with it."""
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "extra_forbidden":
        return key, f"unknown key{_did_you_mean(key.rpartition('.')[2], _keys(parent))}"
    if kind == "missing":
        return key, f"is missing{_MISSING.get(key, '')}"
    if kind == "union_tag_invalid":
        choices = [choice.strip(" '") for choice in context["expected_tags"].split(",")]
        return (
            f"{key}.{context['discriminator'].strip(chr(39))}",
            f"{context['tag']!r} is unknown{_did_you_mean(context['tag'], choices)}",
        )
    if kind == "union_tag_not_found":
        return f"{key}.{context['discriminator'].strip(chr(39))}", "is missing"
    text = problem["msg"].removeprefix("Value error, ")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool | None) and kind != "value_error" else ""
    return key, f"{text[0].lower()}{text[1:]}{shown}"


_MISSING = {"data.root": "; give it in the file or on the command line: data.root=/folder/of/the/archive"}


def _did_you_mean(word: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(choices)}" if choices else ""


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _untag(loc: Location) -> tuple[Location, type[BaseModel] | None]:
    """The location as it is written in the file (pydantic adds the tags of unions), and the model with its last key."""
    kept: list[str | int] = []
    candidates: list[Any] = [Job]
    parent: type[BaseModel] | None = None
    keyed = False  # the part is a key of a mapping
    for part in loc:
        if keyed:
            kept.append(part)
            keyed = False
            continue
        tagged = [model for model in candidates if part in _tags(model)]
        if tagged and part not in _keys(candidates[0] if len(candidates) == 1 else None):
            candidates = tagged
            continue
        models = [model for model in candidates if isinstance(model, type) and issubclass(model, BaseModel)]
        parent = models[0] if models else None
        if isinstance(part, str) and not models:
            continue  # a branch of a plain union, such as `int` or `literal['measured']`
        kept.append(part)
        if isinstance(part, str):
            fields = [
                field for model in models for name, field in model.model_fields.items() if part in (name, field.alias)
            ]
            candidates = [leaf for field in fields for leaf in _leaves(field.annotation)]
            keyed = any(get_origin(field.annotation) is dict for field in fields)
    return tuple(kept), parent


def _leaves(annotation: Any) -> list[Any]:
    """Every model that an annotation may hold, through unions, tuples and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [leaf for argument in get_args(annotation) for leaf in _leaves(argument)]


def _tags(model: Any) -> set[Any]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return set()
    literals = [field.annotation for name, field in model.model_fields.items() if name in ("name", "layout")]
    return {value for literal in literals if get_origin(literal) is Literal for value in get_args(literal)}
