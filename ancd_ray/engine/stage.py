"""Stages, which define computations, and steps, which are stages applied to artifacts of a product.

The fields of a stage are both executed and hashed. The fingerprint of a step is the digest of the name, version and
fields of its stage, of the product, and of the fingerprints of the steps that made its inputs. Steps with the same
fingerprint have the same result; other changes of the job do not affect it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

from pydantic import BaseModel

from ancd_ray.data.store import Folder, digest
from ancd_ray.engine.artifacts import KINDS, Artifact

if TYPE_CHECKING:
    from ancd_ray.engine.calls import Resources
    from ancd_ray.engine.context import Context
    from ancd_ray.engine.outputs import Output, Result
    from ancd_ray.engine.shards import Work


def unhashed(default: Any) -> Any:
    """Declare a field of a stage that does not affect its result."""
    return field(default=default, metadata={"hashed": False})


@dataclass(frozen=True)
class Stage(ABC):
    """A computation on artifacts.

    Subclasses are frozen dataclasses with a `name`, a `version` (increased when results change, which invalidates
    earlier results and all that depend on them), and two inner classes whose annotations are roles: `In`, a dataclass
    of the artifacts that are read, and `Out`, of those that are made.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    In: ClassVar[type]
    Out: ClassVar[type]

    @property
    def resources(self) -> Resources:
        """Resources that its workers need; see `runtime.Resources`."""
        return "light"

    @property
    def reads(self) -> Sequence[str]:
        """Roles that it reads, given its fields; by default all of `In`."""
        return list(get_roles(self.In))

    @property
    def makes(self) -> Sequence[str]:
        """Roles that it makes, given its fields; by default all of `Out`."""
        return list(get_roles(self.Out))

    @property
    def passes(self) -> int:
        """How often it goes over what it reads, given its fields; its cost is estimated by it."""
        return 1

    @property
    def n_images(self) -> int | None:
        """Number of images that it lists; None if it reads artifacts."""
        return None

    @property
    def is_training(self) -> bool:
        """Whether it is one computation in one process, which takes long whatever the number of images."""
        return False

    @abstractmethod
    def run(self, context: Context, inputs: Any) -> Result | Work:
        """Compute the result from `inputs`, an instance of `In`; a generator that divides its work by `context.map`."""

    @cached_property
    def hashed(self) -> dict[str, Any]:
        """The fields that the result depends on, as JSON-like values."""
        return {f.name: _to_plain(getattr(self, f.name)) for f in fields(self) if f.metadata.get("hashed", True)}

    def for_travel(self) -> Stage:
        """Return the stage without large fields that are only needed before it runs."""
        return self


@dataclass(frozen=True)
class ArtifactRef:
    """An artifact of a step that may not have run yet."""

    step: Step
    role: str
    kind: type[Artifact]

    def bind(self, output: Output) -> Artifact:
        """Return the artifact, from the output of its step."""
        return self.kind(output, self.role)


@dataclass(frozen=True)
class Step:
    """A stage for a product; `inputs` are the artifacts that it reads, by role."""

    stage: Stage
    product: str
    inputs: Mapping[str, ArtifactRef]

    @property
    def name(self) -> str:
        """Name of its stage."""
        return self.stage.name

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that the result depends on."""
        inputs = {role: (ref.step.fingerprint, ref.role) for role, ref in self.inputs.items()}
        return compute_fingerprint(self.stage, self.product, inputs)

    @cached_property
    def n_images(self) -> int:
        """Number of images of its product, or of the base set if there are more."""
        if self.stage.n_images is not None:
            return self.stage.n_images
        return max((ref.step.n_images for ref in self.inputs.values()), default=0)

    @property
    def outputs(self) -> dict[str, ArtifactRef]:
        """The artifacts that it makes, by role."""
        kinds = get_roles(self.stage.Out)
        return {role: ArtifactRef(self, role, kinds[role]) for role in self.stage.makes}

    def folder(self, root: Folder) -> Folder:
        """Return the folder of its result."""
        return root / "steps" / self.name / f"{self.product}-{self.fingerprint}"

    def for_travel(self) -> Step:
        """Return the step for another process, without the archive's listing of its catalog."""
        inputs = {role: replace(ref, step=ref.step.for_travel()) for role, ref in self.inputs.items()}
        return replace(self, stage=self.stage.for_travel(), inputs=inputs)


class Flow:
    """The steps of a product in dependency order; artifacts are connected by role."""

    def __init__(self, product: str) -> None:
        self.product = product
        self.steps: list[Step] = []
        self.artifacts: dict[str, ArtifactRef] = {}

    def add(self, stage: Stage, **inputs: ArtifactRef | None) -> Step:
        """Append a stage; its inputs are the artifacts of the flow with the same roles.

        Parameters
        ----------
        stage
            The stage to add.
        **inputs
            Artifacts by role to use instead, such as those of another flow; None for a missing optional one.
        """
        found = {role: inputs.get(role, self.artifacts.get(role)) for role in stage.reads}
        wired = {role: ref for role, ref in found.items() if ref is not None}
        _check_wiring(stage, wired)
        step = Step(stage, self.product, wired)
        for role, ref in step.outputs.items():
            assert role not in self.artifacts, f"{role} of {self.product} is made twice"
            self.artifacts[role] = ref
        self.steps.append(step)
        return step


def compute_fingerprint(stage: Stage, product: str, inputs: Mapping[str, tuple[str, str]]) -> str:
    """Compute the digest of a step; `inputs` are the fingerprints of the steps that it reads, and their roles."""
    read = {role: list(source) for role, source in inputs.items()}
    return digest([stage.name, stage.version, product, stage.hashed, read])[:16]


@cache
def get_roles(declared: type) -> dict[str, type[Artifact]]:
    """Return the kind of artifact of each role of an `In` or `Out`."""
    return {role: _get_kind(hint) for role, hint in get_type_hints(declared).items()}


def _get_kind(hint: Any) -> type[Artifact]:
    options = [option for option in (get_args(hint) or (hint,)) if option is not type(None)]
    (kind,) = options
    assert kind in KINDS.values(), f"{hint} is no kind of artifact"
    return kind  # type: ignore[no-any-return]


def _check_wiring(stage: Stage, wired: Mapping[str, ArtifactRef]) -> None:
    kinds = get_roles(stage.In)
    for role, hint in get_type_hints(stage.In).items():
        is_optional = type(None) in get_args(hint)
        assert role in wired or is_optional or role not in stage.reads, f"{stage.name} needs {role}"
    for role, ref in wired.items():
        assert ref.kind is kinds[role], f"{stage.name} reads {role} as {kinds[role].kind}, it is {ref.kind.kind}"


def _to_plain(value: Any) -> Any:
    """Convert the value of a field to JSON-like data."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if is_dataclass(value) and not isinstance(value, type):
        return _to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(inner) for inner in value]
    return value
