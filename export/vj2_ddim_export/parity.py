"""The parity gate: the exported bundle must sample what the checkpoint samples.

Not one step but the whole DDIM loop is compared, because a loop amplifies small errors; on fresh
random inputs, at batches 1, 2 and 3, because tracing likes to freeze a batch. Where there is a
ranker, what it predicts of these samples is compared as well.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from vj2_ddim_plugin.bundle import Parity
from vj2_ddim_plugin.ddim import ddim_sample
from vj2_ddim_plugin.errors import ParityError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.model import SamplerModel, ranker_of

__all__ = ["BATCHES", "NUM_INFERENCE_STEPS", "measure_parity"]

BATCHES = (1, 2, 3)
NUM_INFERENCE_STEPS = 10


def measure_parity(
    exported: SamplerModel, reference: SamplerModel, tolerance: float, seed: int
) -> Parity:
    """Compare two models on the whole sampling loop, and their rankers if the reference has one.

    A bundle that fails to run, or whose outputs differ in shape, are not finite, or differ by more
    than the tolerance, is a `ParityError`.
    """
    rng = np.random.default_rng(seed)
    errors: dict[str, list[float]] = {"samples": [], "predicts": []}
    compared: dict[str, Compared] = {"samples": _sample}
    if ranker_of(reference) is not None:
        compared["predicts"] = _predict
    for batch in BATCHES:
        noise = rng.standard_normal((batch, *reference.action_spec.diffused_shape), np.float32)
        shapes = reference.condition.inputs.items()
        context = {name: rng.random((batch, *shape), np.float32) for name, shape in shapes}
        for does, function in compared.items():
            expected = function(reference, noise, context)
            try:
                found = function(exported, noise, context)
            except Exception as failure:  # ONNX Runtime raises a dozen private types
                raise ParityError(
                    f"batch {batch}: the bundle cannot run ({failure}). Nothing was written"
                ) from failure
            errors[does].append(_error(batch, does, found, expected, tolerance))
    worst = max(errors["samples"])
    ranker_error = max(errors["predicts"], default=None)
    return Parity(worst, tolerance, BATCHES, NUM_INFERENCE_STEPS, seed, ranker_error)


Compared = Callable[[SamplerModel, FloatArray, dict[str, FloatArray]], FloatArray]


def _error(
    batch: int, does: str, found: FloatArray, expected: FloatArray, tolerance: float
) -> float:
    """The largest difference over the largest magnitude or 1; too large is a `ParityError`."""
    if found.shape != expected.shape:
        raise ParityError(
            f"batch {batch}: the bundle {does} shape {found.shape}, the checkpoint {expected.shape}"
        )
    scale = max(1.0, float(np.abs(expected).max()))
    error = float(np.abs(found - expected).max()) / scale
    if not error <= tolerance:  # also catches NaN
        what = f"after {NUM_INFERENCE_STEPS} steps the bundle differs"
        if does == "predicts":
            what = "the bundle's ranker differs"
        raise ParityError(
            f"batch {batch}: {what} from the checkpoint by {error:.3g} of the largest value, above "
            f"the tolerance {tolerance:.3g}. Nothing was written"
        )
    return error


def _sample(model: SamplerModel, noise: FloatArray, context: dict[str, FloatArray]) -> FloatArray:
    denoisers = [
        partial(model.denoise, condition=tokens) for tokens in model.encode(context) or [None]
    ]
    sample = partial(ddim_sample, schedule=model.schedule, num_inference_steps=NUM_INFERENCE_STEPS)
    return np.concatenate([sample(denoiser, noise) for denoiser in denoisers], axis=0)


def _predict(model: SamplerModel, noise: FloatArray, context: dict[str, FloatArray]) -> FloatArray:
    encoded, ranker = model.encode(context), ranker_of(model)
    if encoded is None or ranker is None:
        raise ParityError("it has no ranker")
    return ranker(noise, encoded.condition)
