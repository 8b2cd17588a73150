"""The bundle: a folder that holds all a planner needs to sample, and says what it holds.

```
BUNDLE/
├── bundle.json       this manifest
├── denoiser.onnx     sample [B, M, C], timestep [B], condition [B, S, W] -> model_output [B, M, C]
├── condition.onnx    the context -> condition, null_condition (conditional models only)
└── ranker.onnx       candidates [B, M, C], condition [B, S, W] -> predicted_cost [B] (if trained)
```

Every graph is what the manifest says, its sha256 and all its weights inside; since version 2 of the
schema the manifest holds a sha256 of itself, too. These find what was damaged or mixed up; who can
write a bundle can write its digests.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from vj2_ddim_plugin.errors import BundleError, ConfigError, VJ2DDIMError
from vj2_ddim_plugin.files import read_json, require_regular_file, sha256_of, write_json
from vj2_ddim_plugin.graph_file import require_self_contained
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.settings import Settings, setting, shown
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec

__all__ = [
    "CONDITION", "DENOISER", "MANIFEST", "RANKER", "SCHEMA_VERSION", "Bundle", "GraphSpec",
    "Parity", "bundle_of", "dtype_of", "graph_specs", "read_bundle", "read_graph", "write_manifest",
]  # fmt: skip

SCHEMA_VERSION = 2
WITHOUT_DIGEST = 1  # the version before, which is read as well
MANIFEST = "bundle.json"
DENOISER, CONDITION, RANKER = "denoiser.onnx", "condition.onnx", "ranker.onnx"
CONTENTS = ("action_spec", "schedule", "condition", "graphs", "parity", "provenance")
FIELDS = ("schema_version", *CONTENTS)
SECTION = {"file", "sha256", "inputs"}
DIGEST = "manifest_sha256"
MOST_BYTES = 2**31  # of a graph: no protocol buffer is larger


@dataclass(frozen=True)
class GraphSpec:
    """One graph of a bundle."""

    inputs: Mapping[str, tuple[int, ...]]  # the shape of each, without the batch axis
    outputs: tuple[str, ...]
    sha256: str | None = None  # of the file, hexadecimal; None where it is not known yet

    def described(self) -> dict[str, dict[str, Any]]:
        """The inputs as a manifest holds them."""
        return {
            name: {"shape": list(shape), "dtype": dtype_of(name)}
            for name, shape in self.inputs.items()
        }


def dtype_of(name: str) -> str:
    """The dtype of a graph's input: all are float32 but the timestep."""
    return "int64" if name == "timestep" else "float32"


def graph_specs(action_spec: ActionSpec, condition: ConditionSpec) -> dict[str, GraphSpec]:
    """Every graph that a bundle may hold, by file name; the ranker's is optional."""
    sample, output = action_spec.diffused_shape, ("model_output",)
    if not condition.inputs:
        return {DENOISER: GraphSpec({"sample": sample, "timestep": ()}, output)}
    tokens = (condition.num_tokens, condition.width)
    return {
        DENOISER: GraphSpec({"sample": sample, "timestep": (), "condition": tokens}, output),
        CONDITION: GraphSpec(dict(condition.inputs), ("condition", "null_condition")),
        RANKER: GraphSpec({"candidates": sample, "condition": tokens}, ("predicted_cost",)),
    }


@dataclass(frozen=True)
class Parity(Settings):
    """How exactly a bundle samples what its checkpoint samples, as it was measured."""

    newer: ClassVar[Any] = ("ranker_error",)

    worst_error: float = setting(
        help="Largest difference of the samples, over their largest magnitude or 1.", low=0.0
    )
    tolerance: float = setting(help="The largest that was allowed.", low=0.0, high=1.0)
    batches: tuple[int, ...] = setting(help="Sizes of the batches that were compared.")
    num_inference_steps: int = setting(help="Steps of the sampling loop.", low=1, high=100_000)
    seed: int = setting(help="Of the inputs.", low=0, high=2**63 - 1)
    ranker_error: float | None = setting(
        None, "The same of the predicted costs; None without a ranker.", low=0.0
    )

    def check(self) -> None:
        """Nothing worse than the tolerance is exported."""
        if (worst := max(self.worst_error, self.ranker_error or 0.0)) > self.tolerance:
            raise ConfigError(f"parity is {worst:g}, above its own tolerance {self.tolerance:g}")


@dataclass(frozen=True)
class Bundle:
    """A bundle's manifest, checked against the files beside it."""

    folder: Path
    action_spec: ActionSpec  # what the sampler makes
    schedule: NoiseSchedule  # how it was noised
    condition: ConditionSpec  # what it is conditioned on
    graph_specs: Mapping[str, GraphSpec]  # by file name
    parity: Mapping[str, Any]  # the measured agreement with the checkpoint
    provenance: Mapping[str, Any]  # where the weights came from
    manifest: Mapping[str, Any] = field(default_factory=dict)  # as it was read

    @property
    def digest(self) -> str:
        """The sha256 of what the manifest says: two bundles that share it are the same."""
        return _digest(self.manifest)

    @property
    def graphs(self) -> dict[str, str]:
        """The sha256 of each graph by file name."""
        return {name: str(graph.sha256) for name, graph in self.graph_specs.items()}


def write_manifest(
    folder: Path,
    *,
    action_spec: ActionSpec,
    schedule: NoiseSchedule,
    condition: ConditionSpec,
    parity: Parity,
    provenance: Mapping[str, Any],
) -> None:
    """Write `bundle.json` for the graphs that already lie in `folder`, with their sha256.

    Raises:
        BundleError: `provenance` holds what JSON cannot.
    """
    found = {path.name: sha256_of(path) for path in sorted(folder.glob("*.onnx"))}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "action_spec": action_spec.to_dict(),
        "schedule": schedule.to_dict(),
        "condition": condition.to_dict(),
        "graphs": {name: digest for name, digest in found.items() if name != RANKER},
        "parity": parity.to_dict(),
        "provenance": dict(provenance),
    }
    if RANKER in found:  # a section of its own: the first plugins read bundles without rankers
        spec = graph_specs(action_spec, condition).get(RANKER)
        inputs = {} if spec is None else spec.described()
        manifest["ranker"] = {"file": RANKER, "sha256": found[RANKER], "inputs": inputs}
    try:
        manifest = json.loads(json.dumps(manifest, allow_nan=False))  # as it will be read
        manifest[DIGEST] = _digest(manifest)
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"the provenance cannot be written as JSON: {error}") from error
    write_json(folder / MANIFEST, manifest)


def _digest(manifest: Mapping[str, Any]) -> str:
    """The sha256 of everything else that a manifest says, however it is laid out."""
    said = {name: value for name, value in manifest.items() if name != DIGEST}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_bundle(folder: Path | str) -> Bundle:
    """Read a bundle's manifest: every field present and consistent, every graph's sha256 right.

    Raises:
        BundleError: The folder, a file or a field is missing, unknown, changed or inconsistent.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if os.path.isfile(folder) or not os.path.lexists(path):
        found = "is a file, not a bundle" if os.path.isfile(folder) else "is not a bundle"
        raise BundleError(
            f"{path} is missing: {folder} {found}. Name a bundle's folder, or make one with "
            f"'vj2-ddim export CHECKPOINT --out BUNDLE'"
        )
    bundle = bundle_of(read_json(path, BundleError), folder)
    for name, digest in bundle.graphs.items():
        read_graph(folder / name, digest)
    return bundle


def bundle_of(manifest: Mapping[str, Any], folder: Path) -> Bundle:
    """The bundle that a manifest describes; its graphs are not looked at.

    Raises:
        BundleError: A field is missing, unknown, changed or inconsistent.
    """
    path = folder / MANIFEST
    _check_fields(path, manifest)
    provenance, parity = manifest["provenance"], manifest["parity"]
    try:
        action_spec = ActionSpec.from_dict(manifest["action_spec"])
        schedule = NoiseSchedule.from_dict(manifest["schedule"])
        condition = ConditionSpec.from_dict(manifest["condition"])
        measured = Parity.from_dict(parity)
    except (VJ2DDIMError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: {error}. Export the checkpoint again") from error
    if (measured.ranker_error is None) != ("ranker" not in manifest):
        raise BundleError(
            f"{path}: a 'ranker' and the ranker_error of its 'parity' come together. Export the "
            f"checkpoint again"
        )
    if DIGEST in manifest and manifest[DIGEST] != (found := _digest(manifest)):
        raise BundleError(
            f"{path} was changed: its {DIGEST} would be {found[:12]}..., it says "
            f"{shown(manifest[DIGEST])}. Copy the bundle anew, or export again"
        )
    graphs = _named_graphs(path, manifest, graph_specs(action_spec, condition))
    return Bundle(folder, action_spec, schedule, condition, graphs, parity, provenance, manifest)


def _check_fields(path: Path, manifest: Mapping[str, Any]) -> None:
    version = manifest.get("schema_version")
    if type(version) is not int or version not in (WITHOUT_DIGEST, SCHEMA_VERSION):
        raise BundleError(
            f"{path}: schema_version is {shown(version)}, this plugin reads {WITHOUT_DIGEST} and "
            f"{SCHEMA_VERSION}. Export the checkpoint again with this version of the project"
        )
    fields = {*FIELDS, DIGEST} if version == SCHEMA_VERSION else set(FIELDS)
    missing, unknown = fields - set(manifest), set(manifest) - fields - {"ranker"}
    if missing or unknown:
        raise BundleError(
            f"{path}: missing fields {sorted(missing)}, unknown fields {shown(sorted(unknown))}. "
            f"Export the checkpoint again"
        )
    for name in CONTENTS:
        if not isinstance(manifest[name], dict):
            raise BundleError(f"{path}: field {name!r} is not an object. Export again")


def _named_graphs(
    path: Path, manifest: Mapping[str, Any], specs: Mapping[str, GraphSpec]
) -> dict[str, GraphSpec]:
    """The graphs that the manifest records, those that it should."""
    recorded: dict[str, Any] = dict(manifest["graphs"])
    if set(recorded) != (expected := set(specs) - {RANKER}):
        raise BundleError(
            f"{path}: graphs are {shown(sorted(recorded))}, expected {sorted(expected)}. Export "
            f"the checkpoint again"
        )
    if "ranker" in manifest:
        recorded[RANKER] = _ranker_sha256(path, manifest["ranker"], specs)
    return {name: replace(specs[name], sha256=digest) for name, digest in recorded.items()}


def read_graph(path: Path, sha256: object) -> bytes:
    """The bytes of a bundle's graph; `BundleError` unless they are all of it, and as recorded."""
    if not os.path.lexists(path):
        raise BundleError(f"{path} is missing. Copy the whole folder, or export again")
    require_regular_file(path, BundleError, "an ONNX graph")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BundleError(f"{path} is larger than {MOST_BYTES} bytes: no ONNX graph is")
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})") from error
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise BundleError(
            f"{path} was changed: its sha256 is {found[:12]}..., the manifest says "
            f"{str(sha256)[:12]}.... Copy the bundle anew, or export again"
        )
    require_self_contained(content, str(path))
    return content


def _ranker_sha256(path: Path, section: Any, specs: Mapping[str, GraphSpec]) -> object:  # noqa: ANN401
    """The sha256 in a manifest's section of the ranker, which must fit the bundle."""
    if not isinstance(section, dict) or set(section) != SECTION:
        found = shown(sorted(section) if isinstance(section, dict) else section)
        raise BundleError(
            f"{path}: field 'ranker' must hold {sorted(SECTION)}; found {found}. Export the "
            f"checkpoint again"
        )
    if section["file"] != RANKER or RANKER not in specs:
        raise BundleError(
            f"{path}: the ranker is {shown(section['file'])}; expected {RANKER!r} and a "
            f"conditional model. Export again"
        )
    if section["inputs"] != (expected := specs[RANKER].described()):
        raise BundleError(
            f"{path}: the ranker's inputs are {shown(section['inputs'])}, this bundle's are "
            f"{expected}. Export the checkpoint again with the ranker that was trained for it"
        )
    return section["sha256"]
