"""A Triton model repository of a bundle: the whole DDIM loop as one unrolled ONNX graph.

```
REPOSITORY/NAME/config.pbtxt
REPOSITORY/NAME/1/model.onnx    the context, noise [B, K, M, C] -> pred_original_sample [B, K, M, C]
```

Drawing noise, decoding and projecting stay with the client: there they are exact, and few numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vj2_ddim_plugin import ddim
from vj2_ddim_plugin.bundle import CONDITION, DENOISER, read_bundle
from vj2_ddim_plugin.errors import ConfigError, ParityError, VJ2DDIMError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.gestures import diffused_bounds
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx.session import OnnxGraph
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.serving.sampling import SampleRequest, answer_all
from vj2_ddim_training.data.gesture_files import require_replaceable

__all__ = ["export_triton"]

CONFIG, VERSION, GRAPH = "config.pbtxt", "1", "model.onnx"
NOISE, OUTPUT = "noise", "pred_original_sample"
SHAPES = ((1, 1), (2, 3), (3, 4))  # problems and candidates of the parity check
QUEUE_DELAY_US, MAX_BATCH_SIZE = 1000, 16


def export_triton(
    bundle: Path,
    repository: Path,
    search: SearchSettings,
    *,
    tolerance: float,
    overwrite: bool = False,
) -> float:
    """Write `repository/NAME`, where NAME is the bundle's folder; what else is there stays.

    Args:
        bundle: The bundle's folder.
        repository: The model repository, which Triton is started with.
        search: Whose steps, guidance and spacing the graph has; eta must be 0.
        tolerance: The largest relative error against the loop of the plugin.
        overwrite: Replace a model of this name.

    Returns:
        The error that was measured.

    Raises:
        BundleError: The bundle is incomplete, changed or inconsistent.
        ConfigError: A setting does not fit the bundle, or the model is there already.
        ParityError: The graph does not sample what the plugin samples; nothing is written.
    """
    if search.eta:
        raise ConfigError(f"eta must be 0 in a graph, which draws nothing; found {search.eta}")
    read, out = read_bundle(bundle), repository / bundle.resolve().name
    require_replaceable(out, (CONFIG, VERSION), overwrite)
    with BundleModel(read, "cpu") as model, atomic_path(out, folder=True) as folder:
        search.check_model(model)
        (folder / VERSION).mkdir()
        graph = unrolled(model, search)
        onnx.save(graph, folder / VERSION / GRAPH)
        error = _measured(model, search, folder / VERSION / GRAPH, tolerance)
        config = _config(out.name, model)
        (folder / CONFIG).write_text(config, encoding="utf-8")
    return error


class _Builder:
    """Nodes and weights of one graph, as they come together."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}
        self._count = 0

    def constant(self, value: Any, dtype: Any = np.float32) -> str:  # noqa: ANN401
        """The name of an array."""
        self._count += 1
        name = f"constant_{self._count}"
        self.weights[name] = numpy_helper.from_array(np.array(value, dtype), name)
        return name

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:  # noqa: ANN401
        """The name of what a node makes, `name` if it is given."""
        self._count += 1
        name = name or f"{kind}_{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def scaled(self, factors: Sequence[float], names: Sequence[str]) -> str:
        """A sum of known multiples of two arrays, in the order in which the plugin adds them."""
        parts = [
            self.node("Mul", name, self.constant(factor))
            for factor, name in zip(factors, names, strict=True)
        ]
        return self.node("Add", *parts)

    def inline(self, graph: Any, prefix: str, given: Mapping[str, str]) -> list[str]:  # noqa: ANN401
        """A copy of a graph between arrays that are there; its weights are shared by all copies."""
        weights = {weight.name: f"{graph.name}/{weight.name}" for weight in graph.initializer}
        for weight in graph.initializer:
            if (shared := weights[weight.name]) not in self.weights:
                self.weights[shared] = onnx.TensorProto()
                self.weights[shared].CopyFrom(weight)
                self.weights[shared].name = shared
        names = {"": "", **weights, **given}
        for number, node in enumerate(graph.node):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{prefix}/{node.name or number}"
            names |= {name: f"{prefix}/{name}" for name in node.output if name}
            for ends in (copy.input, copy.output):
                ends[:] = [names[name] for name in ends]
            self.nodes.append(copy)
        return [names[output.name] for output in graph.output]


def unrolled(model: BundleModel, search: SearchSettings) -> Any:  # noqa: ANN401
    """The loop of a bundle as one ONNX model; batch and number of candidates are free."""
    build, shape = _Builder(), model.action_spec.diffused_shape
    denoiser = _loaded(model, DENOISER)
    sample = build.node("Reshape", NOISE, build.constant([-1, *shape], np.int64))
    rows = build.node("Shape", sample, start=0, end=1)
    conditions: list[dict[str, str]] = [{}]
    if names := list(model.condition.inputs):
        encoded = build.inline(
            _loaded(model, CONDITION).graph, "condition", dict(zip(names, names, strict=True))
        )
        conditions = [{"condition": _repeated(build, each, model)} for each in encoded]
    low, high = (build.constant(bound) for bound in diffused_bounds(model.action_spec))
    for number, (at, to) in enumerate(search.pairs(model.schedule, search.steps(model.schedule))):
        timestep = build.node("Expand", build.constant([at], np.int64), rows)
        given = {"sample": sample, "timestep": timestep}
        outputs = [
            build.inline(denoiser.graph, f"step_{number}_{kind}", given | condition)[0]
            for kind, condition in enumerate(conditions[: 1 if search.guidance_scale == 1.0 else 2])
        ]
        output = outputs[0]
        if len(outputs) == 2:
            more = build.node("Sub", output, outputs[1])
            scaled = build.node("Mul", build.constant(search.guidance_scale), more)
            output = build.node("Add", outputs[1], scaled)
        step = ddim.affine_step(model.schedule, at, to, 0.0)
        x0 = build.scaled((step.x0_of_sample, step.x0_of_output), (sample, output))
        x0 = build.node("Min", build.node("Max", x0, low), high)
        sample = build.scaled((step.prev_of_x0, step.prev_of_sample), (x0, sample))
    build.node("Reshape", x0, build.node("Shape", NOISE), name=OUTPUT)
    arrays = {**model.condition.inputs, NOISE: ("candidates", *shape)}
    value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    graph = helper.make_graph(
        build.nodes,
        "ddim",
        [value(name, shape=["batch", *of]) for name, of in arrays.items()],
        [value(OUTPUT, shape=["batch", "candidates", *shape])],
        list(build.weights.values()),
    )
    opset, version = denoiser.opset_import, denoiser.ir_version
    made = helper.make_model(graph, opset_imports=opset, ir_version=version)
    onnx.checker.check_model(made)
    return made


def _loaded(model: BundleModel, name: str) -> Any:  # noqa: ANN401
    """A graph of the bundle under a name of its own, which its weights get."""
    found = onnx.load(model.bundle.folder / name)
    found.graph.name = name
    return found


def _repeated(build: _Builder, tokens: str, model: BundleModel) -> str:
    """Condition tokens `[B, S, W]` once for each candidate, `[B * K, S, W]`."""
    sizes = (model.condition.num_tokens, model.condition.width)
    one = build.constant([1], np.int64)
    count = build.node("Shape", NOISE, start=1, end=2)
    batch = build.node("Shape", NOISE, start=0, end=1)
    width = build.constant(sizes, np.int64)
    apart = build.node("Unsqueeze", tokens, one)
    whole = build.node("Concat", batch, count, width, axis=0)
    several = build.node("Expand", apart, whole)
    return build.node("Reshape", several, build.constant([-1, *sizes], np.int64))


def _measured(model: BundleModel, search: SearchSettings, path: Path, tolerance: float) -> float:
    """The largest error of the graph against the plugin's loop, relative to the values."""
    rng, worst = np.random.default_rng(0), 0.0
    pairs = search.pairs(model.schedule, search.steps(model.schedule))
    with OnnxGraph(path, "cpu") as graph:
        for batch, count in SHAPES:
            context = {
                name: rng.standard_normal((batch, *of), np.float32)
                for name, of in model.condition.inputs.items()
            }
            shape = (batch, count, *model.action_spec.diffused_shape)
            noise = rng.standard_normal(shape, np.float32)
            (found,) = graph.run({**context, NOISE: noise})
            asked = SampleRequest(batch, search, (OUTPUT,), context, pairs, sample=noise)
            (answer,) = answer_all(model, [asked])
            if isinstance(answer, VJ2DDIMError):
                raise answer
            expected = answer[OUTPUT]
            scale = max(1.0, float(np.abs(expected).max()))
            error = float(np.abs(found - expected).max()) / scale
            if found.shape != shape or not error <= tolerance:
                raise ParityError(
                    f"the unrolled graph differs from the loop by {error:.3g}, above the tolerance "
                    f"{tolerance:.3g}. Nothing was written"
                )
            worst = max(worst, error)
    return worst


def _config(name: str, model: BundleModel) -> str:
    """`config.pbtxt`: what Triton is told of the graph."""
    shape = model.action_spec.diffused_shape

    def array(of: str, dims: Sequence[int]) -> str:
        sizes = ", ".join(map(str, dims))
        return f'  {{\n    name: "{of}"\n    data_type: TYPE_FP32\n    dims: [ {sizes} ]\n  }}'

    inputs = {**model.condition.inputs, NOISE: (-1, *shape)}
    described = ",\n".join(array(of, dims) for of, dims in inputs.items())
    return f"""name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH_SIZE}
input [
{described}
]
output [
{array(OUTPUT, (-1, *shape))}
]
dynamic_batching {{
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
}}
parameters {{
  key: "manifest_sha256"
  value {{ string_value: "{model.bundle.digest}" }}
}}
"""
