"""Reading of job files: YAML, `${VAR}`, overrides, validation; every error is one line that names the key."""

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
from ancd_ray.config.job import OF_THE_MODEL, Job
from ancd_ray.config.renamed import rename_keys
from ancd_ray.config.secrets import hide_secrets, hide_secrets_within
from ancd_ray.config.yaml_loader import MAX_BYTES, MAX_DEPTH, YamlProblem, parse_yaml

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")

_SHOWN = 100  # characters of a value that an error message repeats

Location = tuple[Union[str, int], ...]  # noqa: UP007  (evaluated at run time)


class JobError(AncdError):
    """The job is invalid; the message has one line for each problem."""

    exit_code = 2

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def load(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Read and validate a job file.

    Parameters
    ----------
    path
        YAML file; `-` for standard input.
    overrides
        `key.path=value` strings, whose values are YAML.

    Raises
    ------
    JobError
        The file, an override, a variable or a key is invalid; all problems are reported at once.
    """
    name = str(path)
    try:
        with sys.stdin.buffer if name == "-" else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise JobError(f"{path}: {error.strerror or error}") from error
    return validate(parse(data, name), overrides, name)


def parse(data: bytes, source: str) -> dict[str, Any]:
    """Parse the bytes of a job file; `source` is its name in messages.

    Raises
    ------
    JobError
        They are not YAML in UTF-8, not plain data, or no mapping.
    """
    if len(data) > MAX_BYTES:
        raise JobError(f"{source}: larger than {MAX_BYTES:,} bytes; that is no job file")
    try:
        document = parse_yaml(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise JobError(f"{source}: is not a text file in UTF-8") from error
    except YamlProblem as error:
        raise JobError(f"{source}:{error.line or 1}: {error}") from error
    if not isinstance(document, dict):
        raise JobError(f"{source}: a job file is a mapping with name, data, detector, ...; see jobs/quickstart.yaml")
    return document


def validate(document: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "job") -> Job:
    """Validate a parsed job file; see `load`."""
    tree = copy.deepcopy(dict(document))
    problems: list[str] = []
    for override in overrides:
        try:
            _apply_override(tree, override)
        except ValueError as error:
            problems.append(f"{_shorten(override)}: {error}")
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


def dump_resolved(job: Job) -> str:
    """Return the job as YAML, with all defaults filled in and credentials of URIs hidden."""
    left_out = set(OF_THE_MODEL) if job.mode == "classify" else set()
    document = hide_secrets_within(job.model_dump(mode="json", by_alias=True, exclude=left_out))
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _shorten(text: str) -> str:
    """Cut a text of the job to what fits into a line; its secrets are hidden first, whole."""
    line = " ".join(hide_secrets(text).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError("an override is written key.path=value")
    if key.count(".") > MAX_DEPTH:
        raise ValueError(f"the key is more than {MAX_DEPTH} levels deep")
    try:
        value = parse_yaml(text)
    except YamlProblem as error:
        raise ValueError(f"{error} (the value is YAML; quote it for the shell)") from error
    assign(tree, key, value)


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key in a parsed job file.

    Raises
    ------
    ValueError
        The key does not exist and cannot be added.
    """
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = _get_child(node, part, key)
    if isinstance(node, list):
        node[_parse_index(node, last, key)] = value
        return
    if not isinstance(node, dict):
        raise ValueError(f"{'.'.join(parents)} is a single value and has no keys")
    if last in ("name", "layout") and parents[-1:] == ["detector"] and node.get(last) != value:
        node.clear()  # another detector has other keys, so those of the old one are removed
    node[last] = value


def _get_child(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_parse_index(node, part, key)]
    if not isinstance(node, dict):
        raise ValueError(f"{part!r} in {key} is below a single value")
    return node[part]


def _parse_index(node: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ValueError(f"{part!r} in {key} is not an index of a list of {len(node)}")
    return int(part)


def _expand(node: Any, where: Location, problems: list[str]) -> Any:
    """Replace `${VAR}` and `${VAR:-default}` in all strings of a tree; unset variables are added to `problems`."""
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
                f"{_join_location(where)}: the environment variable {match['name']} is not set "
                f"(or write ${{{match['name']}:-default}})"
            )
        return value or ""

    return _VARIABLE.sub(replace, node)


def _join_location(where: Location) -> str:
    return ".".join(str(part) for part in where)


# --- messages of pydantic errors --------------------------------------------------------------------------------


def explain(error: ValidationError) -> list[str]:
    """Convert a pydantic error to one line per key; messages of the branches of a union are joined by "or"."""
    lines: dict[str, str] = {}
    places = [_untag(problem["loc"]) for problem in error.errors()]
    for problem, (where, parent) in zip(error.errors(), places, strict=True):
        key = _join_location(where)
        if problem["type"] == "too_short" and any(
            other[: len(where)] == where for other, _ in places if other != where
        ):
            continue  # the list is only too short because its items are invalid
        key, text = _explain_problem(problem, key, parent)
        if key in lines and text.startswith("input should be"):
            text = f"{lines[key].split(', not ')[0]} or {text.removeprefix('input should be ')}"
        lines[key] = text
    return [f"{key}: {text}" if key else text for key, text in lines.items()]  # those of the whole job name a key


def _explain_problem(problem: ErrorDetails, key: str, parent: type[BaseModel] | None) -> tuple[str, str]:
    """Return the key that a problem belongs to, and its message."""
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "extra_forbidden":
        return key, f"unknown key{_suggest(key.rpartition('.')[2], _list_keys(parent))}"
    if kind == "missing":
        return key, f"is missing{_MISSING.get(key, '')}"
    if kind == "union_tag_invalid":
        choices = [choice.strip(" '") for choice in context["expected_tags"].split(",")]
        return (
            f"{key}.{context['discriminator'].strip(chr(39))}",
            f"{context['tag']!r} is unknown{_suggest(context['tag'], choices)}",
        )
    if kind == "union_tag_not_found":
        return f"{key}.{context['discriminator'].strip(chr(39))}", "is missing"
    text = problem["msg"].removeprefix("Value error, ")
    shown = (
        f", not {_shorten(repr(given))}"
        if isinstance(given, str | int | float | bool | None) and kind != "value_error"
        else ""
    )
    return key, f"{text[0].lower()}{text[1:]}{shown}"


_MISSING = {"data.root": "; give it in the file or on the command line: data.root=/folder/of/the/archive"}


def _suggest(word: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(choices)}" if choices else ""


def _list_keys(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _untag(loc: Location) -> tuple[Location, type[BaseModel] | None]:
    """Remove the tags of unions, which pydantic adds, from a location; also return the model with its last key."""
    kept: list[str | int] = []
    candidates: list[Any] = [Job]
    parent: type[BaseModel] | None = None
    keyed = False  # whether the next part is a key of a mapping
    for part in loc:
        if keyed:
            kept.append(part)
            keyed = False
            continue
        tagged = [model for model in candidates if part in _list_tags(model)]
        if tagged and part not in _list_keys(candidates[0] if len(candidates) == 1 else None):
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
            candidates = [leaf for field in fields for leaf in _list_models(field.annotation)]
            keyed = any(get_origin(field.annotation) is dict for field in fields)
    return tuple(kept), parent


def _list_models(annotation: Any) -> list[Any]:
    """List all models in an annotation, also inside unions, tuples and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [leaf for argument in get_args(annotation) for leaf in _list_models(argument)]


def _list_tags(model: Any) -> set[Any]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return set()
    literals = [field.annotation for name, field in model.model_fields.items() if name in ("name", "layout")]
    return {value for literal in literals if get_origin(literal) is Literal for value in get_args(literal)}
