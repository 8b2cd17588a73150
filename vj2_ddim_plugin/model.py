"""`SamplerModel`: what the optimizer needs of a trained model, and the one read from a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin import bundle as files
from vj2_ddim_plugin.bundle import Bundle, GraphSpec, read_bundle
from vj2_ddim_plugin.errors import BundleError, ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.onnx.rows import IndependentRows, example_feeds
from vj2_ddim_plugin.onnx.session import Feeds, OnnxGraph
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.settings import shown, with_changes
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec

__all__ = ["BundleModel", "CostPredictor", "EncodedContext", "SamplerModel", "ranker_of"]

FEW_ROWS = 2  # of the run that shows whether a graph is what its manifest says

CostPredictor = Callable[[FloatArray, FloatArray], FloatArray]
"""The ranker: diffused candidates `[n, M, C]` and condition tokens `[n, S, W]` to a cost `[n]` that
is comparable among the candidates of one problem, lower is better.

It reads the tokens, which are encoded once a plan anyway, so that ranking many candidates costs
about as much as one denoising step, however slow the world model is."""


class EncodedContext(NamedTuple):
    """Condition tokens `[B, S, W]`, and those of "no condition", for guidance."""

    condition: FloatArray
    null_condition: FloatArray


class SamplerModel(Protocol):
    """A denoiser with all that is needed to sample from it.

    It may also have an attribute `ranker`, a `CostPredictor` or None.
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


def ranker_of(model: SamplerModel) -> CostPredictor | None:
    """The model's ranker: its attribute `ranker`, which a `SamplerModel` may have."""
    return getattr(model, "ranker", None)


class BundleModel(AbstractContextManager["BundleModel"]):
    """A bundle, loaded into ONNX Runtime; a context manager that closes it.

    Threads may share it; it can be pickled into another process (its folder need not exist there)
    and survives a fork. On the CPU, what a row gives does not depend on the rows beside it.

    `bundle` is the bundle's folder, or its manifest already read; `session` says how to run its
    graphs, or names a provider; `changes` are fields of `SessionSettings` that differ from it.

    Raises:
        BundleError: The bundle is incomplete, changed, or its graphs do not fit its manifest.
        ConfigError: A setting is unknown or out of range.
        ProviderError: The provider asked for is not the one that runs; later, a run failed or the
            model was closed.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        session: SessionSettings | str | None = None,
        **changes: Any,  # noqa: ANN401
    ) -> None:
        if isinstance(session, str):
            session, changes = None, {"provider": session, **changes}
        self._session = with_changes(SessionSettings, session, changes)
        if not isinstance(bundle, Bundle | str | PathLike):
            raise ConfigError(f"expected the path of a bundle's folder; found {shown(bundle)}")
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        self.action_spec, self.schedule = self.bundle.action_spec, self.bundle.schedule
        self.condition = self.bundle.condition
        specs = self.bundle.graph_specs
        graphs = {name: self._load(self.bundle.folder / name, specs[name]) for name in specs}
        self._rows = {name: self._tried(graphs[name], specs[name]) for name in specs}
        self._denoiser = self._rows[files.DENOISER]

    @property
    def provider(self) -> str:
        """The execution provider that runs."""
        return self._denoiser.graph.provider

    def encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        """Run `condition.onnx`; None for an unconditional bundle."""
        if (rows := self._rows.get(files.CONDITION)) is None:
            return None
        return EncodedContext(*rows.run(dict(context)))

    def denoise(
        self, sample: FloatArray, timestep: int, condition: FloatArray | None
    ) -> FloatArray:
        """Run `denoiser.onnx` once."""
        feeds: Feeds = {"sample": sample, "timestep": _timesteps(len(sample), timestep)}
        if condition is not None:
            feeds["condition"] = condition
        return self._denoiser.run(feeds)[0]

    @property
    def ranker(self) -> CostPredictor | None:
        """Runs `ranker.onnx`; None for a bundle without one."""
        if (rows := self._rows.get(files.RANKER)) is None:
            return None
        return lambda candidates, condition, /: rows.run(
            {"candidates": candidates, "condition": condition}
        )[0]

    def close(self) -> None:
        """Free all sessions. Closing twice is fine; running afterwards is a `ProviderError`."""
        for rows in self._rows.values():
            rows.graph.close()

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _load(self, path: Path, spec: GraphSpec) -> OnnxGraph:
        """A graph whose inputs and outputs are those that the manifest says."""
        content = files.read_graph(path, spec.sha256)  # they may have been replaced meanwhile
        graph = OnnxGraph(content, self._session, constant=["condition"], name=str(path))
        if tuple(graph.output_names) != spec.outputs:
            raise BundleError(
                f"{path}: outputs are {list(graph.output_names)}, expected {list(spec.outputs)}. "
                f"Export the checkpoint again"
            )
        found = {name: (*shape[1:],) for name, shape in graph.input_shapes.items()}
        if set(found) != set(spec.inputs) or not all(
            _fits(found[name], spec.inputs[name])
            and graph.input_dtypes[name] == files.dtype_of(name)
            for name in found
        ):
            raise BundleError(
                f"{path}: inputs are {found} (without the batch axis) of {graph.input_dtypes}, the "
                f"manifest says {dict(spec.inputs)}. Export the checkpoint again"
            )
        return graph

    def _tried(self, graph: OnnxGraph, spec: GraphSpec) -> IndependentRows:
        """A graph that gives what a graph of ours gives."""
        timesteps = self.schedule.num_train_timesteps
        feeds = example_feeds(spec.inputs, timesteps, FEW_ROWS)
        for name, value in zip(spec.outputs, graph.first_run(feeds), strict=True):
            _check_output(f"{graph.name}: output {name!r}", value, self._shape_of(name))
        return IndependentRows(graph, spec.inputs, timesteps)

    def _shape_of(self, output: str) -> tuple[int, ...]:
        """The shape of one row of a graph's output."""
        if output == "model_output":
            return self.action_spec.diffused_shape
        tokens = (self.condition.num_tokens, self.condition.width)
        return () if output == "predicted_cost" else tokens


def _check_output(name: str, value: object, shape: tuple[int, ...]) -> None:
    """Raise `BundleError` for what a graph of ours does not give: anything but finite float32."""
    found, expected = type(value).__name__, (FEW_ROWS, *shape)
    if isinstance(value, np.ndarray):
        found = f"{value.dtype} of shape {value.shape}"
        if value.dtype == np.float32 and value.shape == expected:
            if (bad := int(np.sum(~np.isfinite(value)))) == 0:
                return
            found = f"{bad} values that are NaN or infinite"
    raise BundleError(
        f"{name} is {found}; expected finite float32 of shape {expected} for {FEW_ROWS} rows of "
        f"ordinary input. Export the checkpoint again"
    )


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
