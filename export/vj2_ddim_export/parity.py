"""The parity gate: the exported bundle must sample what the checkpoint samples.

Not one step but the whole DDIM loop is compared, because a loop amplifies small errors; on fresh
random inputs, at batches 1, 2 and 3, because tracing likes to freeze a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vj2_ddim_plugin.ddim import Denoiser, ddim_sample
from vj2_ddim_plugin.errors import ParityError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.model import SamplerModel

__all__ = ["Parity", "measure_parity"]

BATCHES = (1, 2, 3)
NUM_INFERENCE_STEPS = 10


@dataclass(frozen=True)
class Parity:
    """The measured agreement.

    Attributes:
        worst_error: Largest difference of the sampled arrays, over their largest magnitude or 1.
        tolerance: What was allowed.
        batches: Batch sizes compared.
        num_inference_steps: DDIM steps of the loop.
        seed: Of the inputs.
    """

    worst_error: float
    tolerance: float
    batches: tuple[int, ...]
    num_inference_steps: int
    seed: int


def measure_parity(
    exported: SamplerModel, reference: SamplerModel, tolerance: float, seed: int
) -> Parity:
    """Compare two models on the whole sampling loop.

    Args:
        exported: The bundle's model.
        reference: The checkpoint's model.
        tolerance: Largest relative error allowed.
        seed: Of the random inputs.

    Returns:
        What was measured.

    Raises:
        ParityError: The bundle fails to run, or its outputs differ in shape, are not finite, or
            differ by more than the tolerance.
    """
    rng = np.random.default_rng(seed)
    worst = 0.0
    for batch in BATCHES:
        noise = rng.standard_normal((batch, *reference.action_spec.diffused_shape), np.float32)
        context = {
            name: rng.random((batch, *shape), np.float32)
            for name, shape in reference.condition.inputs.items()
        }
        expected = _sample(reference, noise, context)
        try:
            found = _sample(exported, noise, context)
        except Exception as failure:  # ONNX Runtime raises a dozen private types
            raise ParityError(
                f"batch {batch}: the bundle cannot run ({failure}). Nothing was written"
            ) from failure
        if found.shape != expected.shape:
            raise ParityError(
                f"batch {batch}: the bundle samples shape {found.shape}, the checkpoint "
                f"{expected.shape}"
            )
        scale = max(1.0, float(np.abs(expected).max()))
        error = float(np.abs(found - expected).max()) / scale
        if not error <= tolerance:  # also catches NaN
            raise ParityError(
                f"batch {batch}: after {NUM_INFERENCE_STEPS} steps the bundle differs from the "
                f"checkpoint by {error:.3g} of the largest value, above the tolerance "
                f"{tolerance:.3g}. Nothing was written"
            )
        worst = max(worst, error)
    return Parity(worst, tolerance, BATCHES, NUM_INFERENCE_STEPS, seed)


def _sample(model: SamplerModel, noise: FloatArray, context: dict[str, FloatArray]) -> FloatArray:
    encoded = model.encode(context)

    def under(condition: FloatArray | None) -> Denoiser:
        return lambda sample, timestep: model.denoise(sample, timestep, condition)

    samples = [
        ddim_sample(under(condition), noise, model.schedule, NUM_INFERENCE_STEPS)
        for condition in ([None] if encoded is None else encoded)
    ]
    return np.concatenate(samples, axis=0)
