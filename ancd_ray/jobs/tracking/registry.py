"""The registry of models in MLflow: versions, their aliases, and the way of a version to `champion` and back.

A version is what `models:/NAME/3` and `models:/NAME@champion` stand for. The content of its model is in a tag, by which
a model that is registered again is found. The version that was the champion before has the alias `previous`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ancd_ray.config.registration import CHAMPION, PREVIOUS
from ancd_ray.jobs.tracking.card import FIGURES, Card
from ancd_ray.jobs.tracking.served import MODEL_TAG, LoggedModel
from ancd_ray.jobs.tracking.store import TrackingProblem

_ALIAS_TAG = "ancd_ray.alias"  # the alias that was given when the model was registered
URI = "models:/"


@dataclass(frozen=True)
class Version:
    """A registered version of a model."""

    name: str
    number: int
    aliases: Sequence[str]
    created_at: datetime
    run: str | None  # id of the run in MLflow
    source: str
    card: str  # Markdown
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """Its URI, by which it is used everywhere."""
        return f"{URI}{self.name}/{self.number}"

    def describe(self) -> str:
        """Describe in a few words which version it is."""
        return f"{self.uri}{''.join(f' @{alias}' for alias in self.aliases)}"

    @property
    def product(self) -> str:
        """The product, if it is known."""
        return self.tags.get("product", "")

    @property
    def figures(self) -> dict[str, str]:
        """Its key figures: those against labels, or else the silhouette."""
        known = {name: self.tags[name] for name in FIGURES if name in self.tags}
        return {name: known[name] for name in known if name != "silhouette" or len(known) == 1}


def read_versions(client: Any, name: str) -> list[Version]:
    """Read the versions of a registered model, the newest first.

    Raises
    ------
    TrackingProblem
        There is no model of this name.
    """
    aliases = _read_aliases(client, name)
    found = _read_pages(client.search_model_versions, filter_string=f"name = {_quote(name)}")
    return sorted((_convert(each, aliases) for each in found), key=lambda each: -each.number)


def read_models(client: Any) -> dict[str, list[Version]]:
    """Read all registered models by name, with their versions, the newest first."""
    names = sorted(each.name for each in _read_pages(client.search_registered_models))
    return {name: read_versions(client, name) for name in names}


def find_version(client: Any, reference: str) -> Version:
    """Find the version that NAME, NAME@alias or NAME/version stands for; NAME is the champion, or else the newest.

    Raises
    ------
    TrackingProblem
        There is no such model, alias or version.
    """
    text = reference.removeprefix(URI)
    name, _, alias = text.partition("@")
    name, _, number = name.partition("/")
    versions = read_versions(client, name)
    if alias:
        found = [each for each in versions if alias in each.aliases]
    elif number:
        found = [each for each in versions if str(each.number) == number]
    else:
        found = [each for each in versions if CHAMPION in each.aliases] or versions[:1]
    if not found:
        raise TrackingProblem(f"{reference}: not registered; {_describe(name, versions)}")
    return found[0]


def add_version(
    client: Any, name: str, model: LoggedModel, make_card: Callable[[], Card], alias: str, keep_moved: bool = False
) -> Version:
    """Register a model with its card and give it an alias; a model with the same content is the version it was.

    Parameters
    ----------
    client
        MLflow's.
    name
        Of the registered model, which is created if there is none.
    model
        The model as an artifact of a run.
    make_card
        Makes its card, which becomes an artifact beside it; is called if the model is a new one.
    alias
        The alias of the version.
    keep_moved
        Whether an alias that the version was given once is not given again: jobs are repeated, and somebody may have
        decided otherwise meanwhile.
    """
    if not _exists(client, name):
        client.create_registered_model(name)
    for known in read_versions(client, name):
        if known.tags.get(MODEL_TAG) == model.digest or (known.run, known.source) == (model.run, model.source):
            break
    else:
        card = make_card()
        _log_card(client, model.run, card)
        tags = {**card.tags, MODEL_TAG: model.digest}
        client.create_model_version(name, model.source, model.run, tags, description=card.describe())
        known = next(each for each in read_versions(client, name) if each.tags.get(MODEL_TAG) == model.digest)
    if not (keep_moved and known.tags.get(_ALIAS_TAG) == alias):
        give_alias(client, known, alias)
        client.set_model_version_tag(name, str(known.number), _ALIAS_TAG, alias)  # last: a killed job gives it again
    return find_version(client, f"{name}/{known.number}")


def give_alias(client: Any, version: Version, alias: str) -> Version | None:
    """Give a version an alias; returns the champion until now, which gets the alias `previous`, if it is another."""
    replaced = None
    if alias == CHAMPION:
        champions = [each for each in read_versions(client, version.name) if CHAMPION in each.aliases]
        replaced = next((each for each in champions if each.number != version.number), None)
        if replaced:  # first: if this process is killed here, the champion is still named
            client.set_registered_model_alias(version.name, PREVIOUS, str(replaced.number))
    client.set_registered_model_alias(version.name, alias, str(version.number))
    return replaced


def roll_back(client: Any, name: str) -> tuple[Version, Version | None]:
    """Make the previous version the champion again; returns it and the version that was champion.

    The alias `previous` is gone then, so that a second rollback does not bring back what the first one took away.

    Raises
    ------
    TrackingProblem
        There is no such model, or no previous version.
    """
    versions = read_versions(client, name)
    previous = next((each for each in versions if PREVIOUS in each.aliases), None)
    if previous is None:
        raise TrackingProblem(
            f"{name}: has no version `{PREVIOUS}` to go back to; choose one with: ancd-ray models promote {name} "
            f"--version V; {_describe(name, versions)}"
        )
    champion = next((each for each in versions if CHAMPION in each.aliases), None)
    client.set_registered_model_alias(name, CHAMPION, str(previous.number))
    client.delete_registered_model_alias(name, PREVIOUS)
    return previous, champion


def read_classes(tags: Mapping[str, str]) -> list[tuple[str, int, str | None]]:
    """Read the classes in the tags of a version: name, number of regions, and most frequent label."""
    try:
        return [(str(name), int(regions), label) for name, regions, label in json.loads(tags.get("classes", "[]"))]
    except (ValueError, TypeError):  # a tag of another hand
        return []


def _log_card(client: Any, run: str, card: Card) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for path, data in {**card.pictures, "card.md": card.write().encode()}.items():
            file = Path(scratch) / path
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
        client.log_artifacts(run, scratch)


def _read_aliases(client: Any, name: str) -> dict[int, list[str]]:
    """Read the aliases of a registered model by version."""
    if not _exists(client, name):
        known = ", ".join(sorted(each.name for each in _read_pages(client.search_registered_models)))
        raise TrackingProblem(
            f"{name}: no model of this name is registered; "
            + (f"there are {known}" if known else "none is; register one with: ancd-ray models register RUN")
        )
    found: dict[int, list[str]] = {}
    for alias, number in sorted(client.get_registered_model(name).aliases.items()):
        found.setdefault(int(number), []).append(alias)
    return found


def _exists(client: Any, name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no such name
            raise
        return False
    return True


def _convert(found: Any, aliases: Mapping[int, Sequence[str]]) -> Version:
    number = int(found.version)
    return Version(
        name=found.name,
        number=number,
        aliases=aliases.get(number, ()),
        created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, timezone.utc),
        run=found.run_id or None,
        source=found.source or "",
        card=found.description or "",
        tags=dict(found.tags),
    )


def _read_pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _quote(name: str) -> str:
    """Quote a name for a filter of MLflow, which has no escapes."""
    return f'"{name}"' if "'" in name else f"'{name}'"


def _describe(name: str, versions: Sequence[Version]) -> str:
    """Describe in a few words which versions there are."""
    if not versions:
        return f"{name} has no versions"
    said = [f"{each.number}{''.join(f' @{alias}' for alias in each.aliases)}" for each in versions[:10]]
    return f"{name} has version{'s' * (len(said) > 1)} {', '.join(said)}{' and older ones' * (len(versions) > 10)}"
