"""`SamplerModel`: what the optimizer needs of a trained model, and the one read from a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import Bundle, ConditionSpec, read_bundle
from vj2_ddim_plugin.errors import BundleError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.session import OnnxGraph

__all__ = ["BundleModel", "EncodedContext", "SamplerModel"]


class EncodedContext(NamedTuple):
    """Condition tokens `[B, S, W]`, and those of "no condition", for guidance."""

    condition: FloatArray
    null_condition: FloatArray


class SamplerModel(Protocol):
    """A denoiser with all that is needed to sample from it."""

    action_spec: ActionSpec
    schedule: NoiseSchedule
    condition: ConditionSpec
    provider: str

    def encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        """Encode named arrays `[B, ...]`, once a plan; None for an unconditional model."""
        ...

    def denoise(
        self, sample: FloatArray, timestep: int, condition: FloatArray | None
    ) -> FloatArray:
        """One denoiser call: `[n, M, C]` at one timestep, with tokens `[n, S, W]`."""
        ...


class BundleModel:
    """A bundle, loaded into ONNX Runtime.

    Args:
        bundle: The bundle's folder, or its manifest already read.
        provider: `auto`, `cpu` or `cuda`, see `OnnxGraph`.
        num_threads: Threads of one operator; None leaves ONNX Runtime's choice.
        provider_options: Passed to CUDA as they are.

    Raises:
        BundleError: The bundle is incomplete, changed, or its graphs do not fit its manifest.
        ProviderError: The provider asked for is not the one that runs.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        provider: str = "auto",
        num_threads: int | None = None,
        provider_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        self.action_spec, self.schedule = self.bundle.action_spec, self.bundle.schedule
        self.condition = self.bundle.condition

        def load(path: Path) -> OnnxGraph:
            return OnnxGraph(path, provider, num_threads, provider_options)

        self._denoiser = load(self.bundle.denoiser_path)
        path = self.bundle.condition_path
        self._condition = None if path is None else load(path)
        self.provider = self._denoiser.provider
        self._check_inputs()

    def encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        """Run `condition.onnx`; None for an unconditional bundle."""
        if self._condition is None:
            return None
        condition, null_condition = self._condition.run(context)
        return EncodedContext(condition, null_condition)

    def denoise(
        self, sample: FloatArray, timestep: int, condition: FloatArray | None
    ) -> FloatArray:
        """Run `denoiser.onnx` once."""
        feeds = {"sample": sample, "timestep": np.full(len(sample), timestep, np.int64)}
        if condition is not None:
            feeds["condition"] = condition
        return self._denoiser.run(feeds)[0]

    def _check_inputs(self) -> None:
        expected: dict[str, tuple[int, ...]] = {"timestep": ()}
        expected["sample"] = self.action_spec.diffused_shape
        graphs = [(self.bundle.denoiser_path.name, self._denoiser, expected)]
        if self._condition is not None:
            expected["condition"] = (self.condition.num_tokens, self.condition.width)
            graphs.append(("condition.onnx", self._condition, dict(self.condition.inputs)))
        outputs = {self.bundle.denoiser_path.name: ["model_output"]}
        outputs["condition.onnx"] = ["condition", "null_condition"]
        for name, graph, inputs in graphs:
            if list(graph.output_names) != outputs[name]:
                raise BundleError(
                    f"{self.bundle.folder / name}: outputs are {list(graph.output_names)}, "
                    f"expected {outputs[name]}. Export the checkpoint again"
                )
            found = {key: tuple(shape[1:]) for key, shape in graph.input_shapes.items()}
            if set(found) != set(inputs) or not all(
                _fits(found[key], inputs[key]) for key in found
            ):
                raise BundleError(
                    f"{self.bundle.folder / name}: inputs are {found} (without the batch axis), "
                    f"the manifest says {inputs}. Export the checkpoint again"
                )


def _fits(found: tuple[Any, ...], expected: tuple[int, ...]) -> bool:
    """Whether a graph's shape, whose free axes have names, allows the manifest's."""
    return len(found) == len(expected) and all(
        not isinstance(size, int) or size == wanted
        for size, wanted in zip(found, expected, strict=True)
    )
