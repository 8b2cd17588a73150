"""The ranker: a small graph in some bundles that predicts the planner's cost.

It reads the condition tokens, which are encoded once a plan anyway, so that ranking many candidates
costs about as much as one denoising step, however slow the planner's world model is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vj2_ddim_plugin.errors import BundleError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.interface import FloatArray

if TYPE_CHECKING:
    from vj2_ddim_plugin.actions import ActionSpec
    from vj2_ddim_plugin.bundle import ConditionSpec
    from vj2_ddim_plugin.model import SamplerModel

__all__ = ["RANKER", "Ranker", "predicted_cost", "ranker_inputs", "ranker_of", "ranker_section"]
__all__ += ["checked_section"]

RANKER = "ranker.onnx"
SECTION = {"file", "sha256", "inputs"}


class Ranker(Protocol):
    """Predicts a cost that is comparable among the candidates of one problem."""

    def __call__(self, candidates: FloatArray, condition: FloatArray, /) -> FloatArray:
        """Predict.

        Args:
            candidates: Diffused arrays `[n, M, C]`, normalized.
            condition: Condition tokens `[n, S, W]`; not changed in place.

        Returns:
            `[n]`, lower is better.
        """
        ...


def ranker_of(model: SamplerModel) -> Ranker | None:
    """The model's ranker: its attribute `ranker`, which a `SamplerModel` may have."""
    ranker: Ranker | None = getattr(model, "ranker", None)
    return ranker


def predicted_cost(
    ranker: Ranker, candidates: FloatArray, condition: FloatArray, spec: ActionSpec
) -> FloatArray:
    """The predicted cost `[B, K]` of candidates `[B, K, L, A]` in the planner's units.

    Args:
        ranker: The ranker.
        candidates: As they would be the plan.
        condition: Tokens `[B, S, W]`.
        spec: How candidates are brought into the form that is diffused.

    Raises:
        BundleError: The ranker returned another shape, or values that are not finite.
    """
    batch, count = candidates.shape[:2]
    diffused = spec.encode(spec.project(candidates)).reshape(batch * count, *spec.diffused_shape)
    rows = np.ascontiguousarray(diffused, np.float32)
    values = np.asarray(ranker(rows, np.repeat(condition, count, axis=0)))
    if values.shape != (len(rows),) or not np.isfinite(values).all():
        raise BundleError(
            f"the ranker returned shape {values.shape} with {int(np.sum(~np.isfinite(values)))} "
            f"values that are NaN or infinite, for {len(rows)} candidates. Check its weights, or "
            f"export the checkpoint again"
        )
    return values.reshape(batch, count)


def ranker_inputs(spec: ActionSpec, condition: ConditionSpec) -> dict[str, tuple[int, ...]]:
    """The shape of each input of `ranker.onnx` without the batch; all are float32."""
    return {
        "candidates": spec.diffused_shape,
        "condition": (condition.num_tokens, condition.width),
    }


def ranker_section(folder: Path, spec: ActionSpec, condition: ConditionSpec) -> dict[str, Any]:
    """What a manifest says of the `ranker.onnx` in `folder`; empty where there is none."""
    path = folder / RANKER
    if not path.is_file():
        return {}
    inputs = _described(ranker_inputs(spec, condition))
    return {"ranker": {"file": RANKER, "sha256": sha256_of(path), "inputs": inputs}}


def checked_section(
    manifest: Mapping[str, Any], path: Path, spec: ActionSpec, condition: ConditionSpec
) -> dict[str, str]:
    """The ranker's file name and sha256, as the manifest says; empty where it has no ranker.

    Args:
        manifest: The whole manifest.
        path: Where it lies, for messages.
        spec: What the bundle samples.
        condition: What it is conditioned on.

    Raises:
        BundleError: The section lacks a field, or says what does not fit the bundle.
    """
    if "ranker" not in manifest:
        return {}
    section = manifest["ranker"]
    if not isinstance(section, dict) or set(section) != SECTION:
        found = sorted(section) if isinstance(section, dict) else section
        raise BundleError(
            f"{path}: field 'ranker' must hold {sorted(SECTION)}; found {found}. Export the "
            f"checkpoint again"
        )
    if section["file"] != RANKER or not condition.inputs:
        raise BundleError(
            f"{path}: the ranker is {section['file']!r} of a model conditioned on "
            f"{condition.kind!r}; expected {RANKER!r} and a conditional model. Export again"
        )
    expected = _described(ranker_inputs(spec, condition))
    if section["inputs"] != expected:
        raise BundleError(
            f"{path}: the ranker's inputs are {section['inputs']}, this bundle's are {expected}. "
            f"Export the checkpoint again with the ranker that was trained for it"
        )
    return {RANKER: str(section["sha256"])}


def _described(inputs: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    return {name: {"shape": list(shape), "dtype": "float32"} for name, shape in inputs.items()}
