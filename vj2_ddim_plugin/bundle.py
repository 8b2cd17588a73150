"""The bundle: a folder that holds all a planner needs to sample, and says what it holds.

```
BUNDLE/
├── bundle.json       this manifest
├── denoiser.onnx     sample [B, M, C], timestep [B], condition [B, S, W] -> model_output [B, M, C]
├── condition.onnx    the context -> condition, null_condition (conditional models only)
└── ranker.onnx       candidates [B, M, C], condition [B, S, W] -> predicted_cost [B] (if trained)
```
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import BundleError, VJ2DDIMError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec

__all__ = [
    "CONDITION", "DENOISER", "MANIFEST", "RANKER", "SCHEMA_VERSION", "Bundle", "GraphSpec",
    "dtype_of", "graph_specs", "read_bundle", "write_manifest",
]  # fmt: skip

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
DENOISER, CONDITION, RANKER = "denoiser.onnx", "condition.onnx", "ranker.onnx"
CONTENTS = ("action_spec", "schedule", "condition", "graphs", "parity", "provenance")
FIELDS = ("schema_version", *CONTENTS)
SECTION = {"file", "sha256", "inputs"}


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
class Bundle:
    """A bundle's manifest, checked against the files beside it."""

    folder: Path
    action_spec: ActionSpec  # what the sampler makes
    schedule: NoiseSchedule  # how it was noised
    condition: ConditionSpec  # what it is conditioned on
    graph_specs: Mapping[str, GraphSpec]  # by file name
    parity: Mapping[str, Any]  # the measured agreement with the checkpoint
    provenance: Mapping[str, Any]  # where the weights came from

    @property
    def graphs(self) -> dict[str, str]:
        """The sha256 of each graph by file name."""
        return {name: str(graph.sha256) for name, graph in self.graph_specs.items()}

    def path_of(self, name: str) -> Path | None:
        """Where a graph lies, for example `RANKER`; None for a bundle without it."""
        return self.folder / name if name in self.graph_specs else None


def write_manifest(
    folder: Path,
    *,
    action_spec: ActionSpec,
    schedule: NoiseSchedule,
    condition: ConditionSpec,
    parity: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write `bundle.json` for the graphs that already lie in `folder`, with their sha256."""
    found = {path.name: sha256_of(path) for path in sorted(folder.glob("*.onnx"))}
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "action_spec": action_spec.to_dict(),
        "schedule": schedule.to_dict(),
        "condition": condition.to_dict(),
        "graphs": {name: digest for name, digest in found.items() if name != RANKER},
        "parity": dict(parity),
        "provenance": dict(provenance),
    }
    if RANKER in found:  # a section of its own: the first plugins read bundles without rankers
        spec = graph_specs(action_spec, condition).get(RANKER)
        inputs = {} if spec is None else spec.described()
        manifest["ranker"] = {"file": RANKER, "sha256": found[RANKER], "inputs": inputs}
    text = json.dumps(manifest, indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_bundle(folder: Path | str) -> Bundle:
    """Read a bundle's manifest: every field present and consistent, every graph's sha256 right.

    Raises:
        BundleError: The folder, a file or a field is missing, unknown, changed or inconsistent.
    """
    folder = Path(folder)
    path, manifest = folder / MANIFEST, _read_manifest(folder)
    try:
        action_spec = ActionSpec.from_dict(manifest["action_spec"])
        schedule = NoiseSchedule.from_dict(manifest["schedule"])
        condition = ConditionSpec.from_dict(manifest["condition"])
    except (VJ2DDIMError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: {error}. Export the checkpoint again") from error
    conditional = [bool(condition.inputs), condition.num_tokens > 0, condition.width > 0]
    if set(conditional) != {condition.kind != "none"}:
        raise BundleError(
            f"{path}: condition is of kind {condition.kind!r} but has inputs "
            f"{sorted(condition.inputs)} and {condition.num_tokens} tokens of width "
            f"{condition.width}. Export the checkpoint again"
        )
    graphs = _checked_graphs(path, manifest, graph_specs(action_spec, condition))
    parity, provenance = manifest["parity"], manifest["provenance"]
    worst = parity.get("worst_error")
    if not isinstance(worst, float) or not 0 <= worst < math.inf:
        raise BundleError(
            f"{path}: field 'parity' has no finite 'worst_error'; found {worst!r}. Export the "
            f"checkpoint again"
        )
    return Bundle(folder, action_spec, schedule, condition, graphs, parity, provenance)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{path} is missing: {folder} is not a bundle. Make one with "
            f"'vj2-ddim export CHECKPOINT --out BUNDLE'"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not JSON: {error}. Export the checkpoint again") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema_version is {version!r}, this plugin reads {SCHEMA_VERSION}. Export "
            f"the checkpoint again with this version of the project"
        )
    missing, unknown = set(FIELDS) - set(manifest), set(manifest) - {*FIELDS, "ranker"}
    if missing or unknown:
        raise BundleError(
            f"{path}: missing fields {sorted(missing)}, unknown fields {sorted(unknown)}. Export "
            f"the checkpoint again"
        )
    for name in CONTENTS:
        if not isinstance(manifest[name], dict):
            raise BundleError(f"{path}: field {name!r} is not an object. Export again")
    return manifest


def _checked_graphs(
    path: Path, manifest: Mapping[str, Any], specs: Mapping[str, GraphSpec]
) -> dict[str, GraphSpec]:
    """The graphs that the manifest records, each found to be what it should be."""
    recorded: dict[str, Any] = dict(manifest["graphs"])
    if set(recorded) != (expected := set(specs) - {RANKER}):
        raise BundleError(
            f"{path}: graphs are {sorted(recorded)}, expected {sorted(expected)}. Export the "
            f"checkpoint again"
        )
    if "ranker" in manifest:
        recorded[RANKER] = _ranker_sha256(path, manifest["ranker"], specs)
    for name, digest in recorded.items():
        graph = path.parent / name
        if not graph.is_file():
            raise BundleError(f"{graph} is missing. Copy the whole folder, or export again")
        if (found := sha256_of(graph)) != digest:
            raise BundleError(
                f"{graph} was changed: its sha256 is {found[:12]}..., the manifest says "
                f"{str(digest)[:12]}.... Copy the bundle anew, or export again"
            )
    return {name: replace(specs[name], sha256=digest) for name, digest in recorded.items()}


def _ranker_sha256(path: Path, section: Any, specs: Mapping[str, GraphSpec]) -> object:  # noqa: ANN401
    """The sha256 in a manifest's section of the ranker, which must fit the bundle."""
    if not isinstance(section, dict) or set(section) != SECTION:
        found = sorted(section) if isinstance(section, dict) else section
        raise BundleError(
            f"{path}: field 'ranker' must hold {sorted(SECTION)}; found {found}. Export the "
            f"checkpoint again"
        )
    if section["file"] != RANKER or RANKER not in specs:
        raise BundleError(
            f"{path}: the ranker is {section['file']!r}; expected {RANKER!r} and a conditional "
            f"model. Export again"
        )
    if section["inputs"] != (expected := specs[RANKER].described()):
        raise BundleError(
            f"{path}: the ranker's inputs are {section['inputs']}, this bundle's are {expected}. "
            f"Export the checkpoint again with the ranker that was trained for it"
        )
    return section["sha256"]
