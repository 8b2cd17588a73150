"""`SamplerModel`: what the optimizer needs of a trained model, and the one read from a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import Bundle, ConditionSpec, read_bundle
from vj2_ddim_plugin.engine.independence import Feeds, IndependentRows
from vj2_ddim_plugin.engine.providers import SessionSettings
from vj2_ddim_plugin.errors import BundleError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.ranker import Ranker, ranker_inputs
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.session import OnnxGraph

__all__ = ["BundleModel", "EncodedContext", "SamplerModel"]


class EncodedContext(NamedTuple):
    """Condition tokens `[B, S, W]`, and those of "no condition", for guidance."""

    condition: FloatArray
    null_condition: FloatArray


class SamplerModel(Protocol):
    """A denoiser with all that is needed to sample from it.

    It may also have an attribute `ranker`, a `Ranker` or None.
    """

    action_spec: ActionSpec
    schedule: NoiseSchedule
    condition: ConditionSpec

    @property
    def provider(self) -> str:
        """The execution provider that runs, or the name of another engine."""
        ...

    def encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        """Encode named arrays `[B, ...]`, once a plan; None for an unconditional model."""
        ...

    def denoise(
        self, sample: FloatArray, timestep: int, condition: FloatArray | None
    ) -> FloatArray:
        """One denoiser call: `[n, M, C]` at one timestep, with tokens `[n, S, W]`.

        The tokens are the same array in all calls of a loop, and are not changed in place.
        """
        ...

    def close(self) -> None:
        """Free what the model holds. Closing twice is fine."""
        ...


class BundleModel:
    """A bundle, loaded into ONNX Runtime; a context manager that closes it.

    Threads may share it; it can be pickled into another process (its folder need not exist there)
    and survives a fork. On the CPU, what a row gives does not depend on the rows beside it.

    Args:
        bundle: The bundle's folder, or its manifest already read.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`; by name it is strict.
        num_threads: Threads of one operator; None leaves ONNX Runtime's choice.
        provider_options: Passed to the GPU's provider as they are.
        allow_tf32: See `SessionSettings`, as for the next two.
        memory_limit_bytes: Of the GPU, for each graph.
        cuda_graph: Whether a GPU records and replays the graphs.

    Raises:
        BundleError: The bundle is incomplete, changed, or its graphs do not fit its manifest.
        ConfigError: A setting is unknown or out of range.
        ProviderError: The provider asked for is not the one that runs.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        provider: str = "auto",
        num_threads: int | None = None,
        provider_options: Mapping[str, Any] | None = None,
        *,
        allow_tf32: bool = False,
        memory_limit_bytes: int | None = None,
        cuda_graph: bool = False,
    ) -> None:
        settings = SessionSettings(
            provider, num_threads, provider_options, allow_tf32, memory_limit_bytes, cuda_graph
        )
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        self.action_spec, self.schedule = self.bundle.action_spec, self.bundle.schedule
        self.condition = self.bundle.condition
        inputs = {"sample": self.action_spec.diffused_shape, "timestep": ()}
        if self.condition.inputs:
            inputs["condition"] = (self.condition.num_tokens, self.condition.width)
        self._denoiser = self._load(self.bundle.denoiser_path, settings, inputs, ["model_output"])
        self._condition: IndependentRows | None = None
        if (path := self.bundle.condition_path) is not None:
            self._condition = self._load(
                path, settings, self.condition.inputs, ["condition", "null_condition"]
            )
        self._ranker: IndependentRows | None = None
        if (path := self.bundle.ranker_path) is not None:
            inputs = ranker_inputs(self.action_spec, self.condition)
            self._ranker = self._load(path, settings, inputs, ["predicted_cost"])

    @property
    def provider(self) -> str:
        """The execution provider that runs."""
        return self._denoiser.graph.provider

    def encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        """Run `condition.onnx`; None for an unconditional bundle.

        Raises:
            ProviderError: The run failed, or the model was closed.
        """
        if self._condition is None:
            return None
        condition, null_condition = self._condition.run(dict(context))
        return EncodedContext(condition, null_condition)

    def denoise(
        self, sample: FloatArray, timestep: int, condition: FloatArray | None
    ) -> FloatArray:
        """Run `denoiser.onnx` once.

        Raises:
            ProviderError: The run failed, or the model was closed.
        """
        feeds: Feeds = {"sample": sample, "timestep": _timesteps(len(sample), timestep)}
        if condition is not None:
            feeds["condition"] = condition
        return self._denoiser.run(feeds)[0]

    @property
    def ranker(self) -> Ranker | None:
        """Runs `ranker.onnx`; None for a bundle without one."""
        if (rows := self._ranker) is None:
            return None
        return lambda candidates, condition, /: rows.run(
            {"candidates": candidates, "condition": condition}
        )[0]

    def close(self) -> None:
        """Free all sessions. Closing twice is fine; running afterwards is a `ProviderError`."""
        for rows in (self._denoiser, self._condition, self._ranker):
            if rows is not None:
                rows.graph.close()

    def __enter__(self) -> BundleModel:
        """The model itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()

    def _load(
        self,
        path: Path,
        settings: SessionSettings,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: list[str],
    ) -> IndependentRows:
        """A graph whose inputs and outputs are those that the manifest says."""
        graph = OnnxGraph(path, settings, constant=["condition"])
        if list(graph.output_names) != outputs:
            raise BundleError(
                f"{path}: outputs are {list(graph.output_names)}, expected {outputs}. Export the "
                f"checkpoint again"
            )
        found = {key: tuple(shape[1:]) for key, shape in graph.input_shapes.items()}
        if set(found) != set(inputs) or not all(_fits(found[key], inputs[key]) for key in found):
            raise BundleError(
                f"{path}: inputs are {found} (without the batch axis), the manifest says "
                f"{dict(inputs)}. Export the checkpoint again"
            )
        return IndependentRows(graph, inputs, self.schedule.num_train_timesteps)


@lru_cache(maxsize=4096)
def _timesteps(rows: int, timestep: int) -> NDArray[np.int64]:
    """The same timestep for each row."""
    return np.full(rows, timestep, np.int64)


def _fits(found: tuple[Any, ...], expected: tuple[int, ...]) -> bool:
    """Whether a graph's shape, whose free axes have names, allows the manifest's."""
    return len(found) == len(expected) and all(
        not isinstance(size, int) or size == wanted
        for size, wanted in zip(found, expected, strict=True)
    )
