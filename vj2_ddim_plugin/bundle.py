"""The bundle: a folder that holds all a planner needs to sample, and says what it holds.

```
BUNDLE/
├── bundle.json       this manifest
├── denoiser.onnx     sample [B, M, C], timestep [B], condition [B, S, W] -> model_output [B, M, C]
├── condition.onnx    the context -> condition, null_condition (conditional models only)
└── ranker.onnx       candidates [B, M, C], condition [B, S, W] -> predicted_cost [B] (if trained)
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import BundleError, VJ2DDIMError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.ranker import RANKER, checked_section, ranker_section
from vj2_ddim_plugin.schedule import NoiseSchedule

__all__ = ["SCHEMA_VERSION", "Bundle", "ConditionSpec", "read_bundle", "write_manifest"]

SCHEMA_VERSION = 1
KINDS = ("none", "sketch", "latents")
MANIFEST = "bundle.json"
DENOISER = "denoiser.onnx"
CONDITION = "condition.onnx"
CONTENTS = ("action_spec", "schedule", "condition", "graphs", "parity", "provenance")
FIELDS = ("schema_version", *CONTENTS)
OPTIONAL = {"ranker"}


@dataclass(frozen=True)
class ConditionSpec:
    """What a model is conditioned on.

    Attributes:
        kind: `none`, `sketch` or `latents`.
        inputs: Shape of each named context array without its batch axis; all are float32.
        num_tokens: S, condition tokens the encoder makes; 0 for an unconditional model.
        width: W, the width of a token; 0 for an unconditional model.
    """

    kind: str = "none"
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    num_tokens: int = 0
    width: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with each input's shape and dtype."""
        inputs = {
            name: {"shape": list(shape), "dtype": "float32"} for name, shape in self.inputs.items()
        }
        return {**asdict(self), "inputs": inputs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConditionSpec:
        """The inverse of `to_dict`.

        Raises:
            BundleError: A field is missing or unknown, or an input is not float32.
        """
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise BundleError(f"condition spec has unknown fields {sorted(unknown)}")
        try:
            kind, sizes = values["kind"], [values["num_tokens"], values["width"]]
            if kind not in KINDS:
                raise BundleError(f"condition kind {kind!r} is unknown; use one of {KINDS}")
            if any(type(size) is not int for size in sizes):
                raise BundleError(f"condition num_tokens and width must be integers; found {sizes}")
            for name, entry in values["inputs"].items():
                if entry["dtype"] != "float32":
                    raise BundleError(
                        f"condition input {name!r} has dtype {entry['dtype']!r}; expected 'float32'"
                    )
                shape = entry["shape"]
                if not isinstance(shape, list) or any(type(n) is not int or n < 1 for n in shape):
                    raise BundleError(f"condition inputs: {name!r} has no such shape: {shape!r}")
            shapes = {name: tuple(entry["shape"]) for name, entry in values["inputs"].items()}
            return cls(kind, shapes, *sizes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"condition spec lacks or mistypes a field: {error}") from error


@dataclass(frozen=True)
class Bundle:
    """A bundle's manifest, checked against the files beside it.

    Attributes:
        folder: Where the bundle lies.
        action_spec: What the sampler makes.
        schedule: How it was noised.
        condition: What it is conditioned on.
        graphs: File name to sha256, the ranker's too where there is one.
        parity: The measured agreement with the checkpoint.
        provenance: Where the weights came from.
    """

    folder: Path
    action_spec: ActionSpec
    schedule: NoiseSchedule
    condition: ConditionSpec
    graphs: Mapping[str, str]
    parity: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def denoiser_path(self) -> Path:
        """The denoiser graph."""
        return self.folder / DENOISER

    @property
    def condition_path(self) -> Path | None:
        """The condition graph, or None for an unconditional model."""
        return self.folder / CONDITION if self.condition.inputs else None

    @property
    def ranker_path(self) -> Path | None:
        """The ranker's graph, or None for a bundle without one."""
        return self.folder / RANKER if RANKER in self.graphs else None


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
    graphs = sorted(path for path in folder.glob("*.onnx") if path.name != RANKER)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "action_spec": action_spec.to_dict(),
        "schedule": schedule.to_dict(),
        "condition": condition.to_dict(),
        "graphs": {path.name: sha256_of(path) for path in graphs},
        "parity": dict(parity),
        "provenance": dict(provenance),
        **ranker_section(folder, action_spec, condition),
    }
    text = json.dumps(manifest, indent=2, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_bundle(folder: Path | str) -> Bundle:
    """Read and check a bundle.

    Args:
        folder: The bundle's folder.

    Returns:
        Its manifest, every field present and consistent, every graph's sha256 right.

    Raises:
        BundleError: The folder, a file or a field is missing, unknown, changed or inconsistent.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    try:
        action_spec = ActionSpec.from_dict(manifest["action_spec"])
        schedule = NoiseSchedule.from_dict(manifest["schedule"])
        condition = ConditionSpec.from_dict(manifest["condition"])
    except (VJ2DDIMError, TypeError, ValueError) as error:
        raise BundleError(f"{folder / MANIFEST}: {error}. Export the checkpoint again") from error
    ranker = checked_section(manifest, folder / MANIFEST, action_spec, condition)
    graphs = _checked_graphs(folder, manifest["graphs"], ranker, conditional=bool(condition.inputs))
    conditional = [bool(condition.inputs), condition.num_tokens > 0, condition.width > 0]
    if set(conditional) != {condition.kind != "none"}:
        raise BundleError(
            f"{folder / MANIFEST}: condition is of kind {condition.kind!r} but has inputs "
            f"{sorted(condition.inputs)} and {condition.num_tokens} tokens of width "
            f"{condition.width}. Export the checkpoint again"
        )
    error_found = manifest["parity"].get("worst_error")
    if not isinstance(error_found, float) or not 0 <= error_found < math.inf:
        raise BundleError(
            f"{folder / MANIFEST}: field 'parity' has no finite 'worst_error'; found "
            f"{error_found!r}. Export the checkpoint again"
        )
    parity, provenance = manifest["parity"], manifest["provenance"]
    return Bundle(folder, action_spec, schedule, condition, graphs, parity, provenance)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{path} is missing: {folder} is not a bundle. Make one with "
            f"'vj2-ddim export CHECKPOINT --out BUNDLE'"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not JSON: {error}. Export the checkpoint again") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema_version is {version!r}, this plugin reads {SCHEMA_VERSION}. Export "
            f"the checkpoint again with this version of the project"
        )
    missing, unknown = set(FIELDS) - set(manifest), set(manifest) - set(FIELDS) - OPTIONAL
    if missing or unknown:
        raise BundleError(
            f"{path}: missing fields {sorted(missing)}, unknown fields {sorted(unknown)}. Export "
            f"the checkpoint again"
        )
    for name in CONTENTS:
        if not isinstance(manifest[name], dict):
            raise BundleError(f"{path}: field {name!r} is not an object. Export again")
    fields: dict[str, Any] = manifest
    return fields


def _checked_graphs(
    folder: Path, graphs: Mapping[str, str], ranker: Mapping[str, str], *, conditional: bool
) -> dict[str, str]:
    """The sha256 of each graph by file name, found to be true."""
    expected = {DENOISER, CONDITION} if conditional else {DENOISER}
    if set(graphs) != expected:
        raise BundleError(
            f"{folder / MANIFEST}: graphs are {sorted(graphs)}, expected {sorted(expected)}. "
            f"Export the checkpoint again"
        )
    recorded_graphs = {**graphs, **ranker}
    for name, recorded in recorded_graphs.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing. Copy the whole folder, or export again")
        found = sha256_of(path)
        if found != recorded:
            raise BundleError(
                f"{path} was changed: its sha256 is {found[:12]}..., the manifest says "
                f"{str(recorded)[:12]}.... Copy the bundle anew, or export again"
            )
    return recorded_graphs
