"""The newest result of each step and product: what it was made with, in one small file.

    <output>/newest/<step>/<product>.json

`plan` compares a step with it to say why the step has to run. Without the file (an output folder of an earlier version)
the newest one of all manifests is looked for. The result itself may have been deleted since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import Output, read_or_none

_FOLDER = "newest"
_KEPT = ("fingerprint", "version", "config", "inputs")  # keys of a manifest

Made = Mapping[str, Any]  # these keys


def record_newest(root: Folder, manifest: Mapping[str, Any]) -> None:
    """Record what a result was made with; the last one to be written is the newest."""
    _find_folder(root, manifest["step"]).write_json(f"{manifest['product']}.json", _keep(manifest), durable=False)


@dataclass(frozen=True)
class History:
    """The newest results in an output folder."""

    root: Folder
    _products: dict[str, dict[str, list[Folder]]] = field(default_factory=dict)  # step → product → folders of results

    def find(self, step: str, product: str) -> Made | None:
        """Return what the newest result of a step and product was made with; None if there never was one."""
        return read_or_none(_find_folder(self.root, step), f"{product}.json", _keep) or self._search(step, product)

    def _search(self, step: str, product: str) -> Made | None:
        if step not in self._products:  # listed once, for all products
            self._products[step] = {}
            for name in (self.root / "steps" / step).names():
                folder = self.root / "steps" / step / name
                self._products[step].setdefault(name.rpartition("-")[0], []).append(folder)
        found = [output.manifest for folder in self._products[step].get(product, []) if (output := Output.find(folder))]
        return max(found, key=lambda manifest: str(manifest["created_at"]), default=None)


def _find_folder(root: Folder, step: str) -> Folder:
    return root / _FOLDER / step


def _keep(document: Mapping[str, Any]) -> Made:
    return {key: document[key] for key in _KEPT}
