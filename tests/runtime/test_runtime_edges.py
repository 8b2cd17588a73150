"""Broken models, mistyped manifests and odd hosts: nothing of it may become a plan."""

import json
import math

import numpy as np
import onnxruntime
import pytest
from builders.bundles import make_bundle

from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import BundleError, ContextError, ProviderError, VJ2DDIMError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.onnx import session
from vj2_ddim_plugin.onnx.session import OnnxGraph
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost

SCHEDULE = NoiseSchedule(num_train_timesteps=100)


# 1. A denoiser that returns NaN gives a plan that is_valid: a tap at (0, 0).
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("representation", ["raw", "held", "path"])
@pytest.mark.parametrize("costly", [False, True])
def test_a_denoiser_that_returns_nan_never_becomes_a_plan(representation, costly):
    spec = ActionSpec(
        action_block=10, min_press_steps=2, max_press_steps=6, representation=representation
    )

    class Broken(GaussianModel):
        def denoise(self, sample, timestep, condition):
            return np.full_like(sample, np.nan)

    cost = QuadraticCost(np.zeros((10, 3))) if costly else None
    with pytest.raises(VJ2DDIMError):
        DDIMOptimizer(Broken(spec, SCHEDULE)).optimize(PlanningProblem(cost=cost))


# 2. ONNX Runtime's own fallback prints four lines to stdout, and the true cause is lost.
@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_a_cuda_that_refuses_to_start_is_not_printed(tmp_path, monkeypatch, capfd, provider):
    folder = make_bundle(tmp_path / "bundle", conditional=False)
    original = onnxruntime.InferenceSession._create_inference_session

    def create(self, providers, *rest):
        self._fallback_providers = ["CPUExecutionProvider"]
        if providers != ["CPUExecutionProvider"]:
            raise RuntimeError("CUDA driver version is insufficient")
        return original(self, providers, *rest)

    monkeypatch.setattr(session, "why_not", lambda provider: "")  # the driver is there
    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", create)
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    if provider == "auto":
        assert OnnxGraph(folder / "denoiser.onnx", "auto").provider == "CPUExecutionProvider"
    else:
        with pytest.raises(ProviderError, match="driver version is insufficient"):
            OnnxGraph(folder / "denoiser.onnx", "cuda")
    assert capfd.readouterr() == ("", "")


# 3. Mistyped or contradictory manifest fields are read as if they were fine.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("action_spec", "normalized"), "no"),
        (("action_spec", "horizon"), 1.5),
        (("action_spec", "action_block"), 10.5),
        (("action_spec", "min_press_steps"), 2.5),
        (("action_spec", "rate_hz"), None),
        (("action_spec", "channels"), ["x", "x", "press"]),
        (("schedule", "num_train_timesteps"), 20.5),
        (("condition", "kind"), "banana"),
        (("condition", "inputs"), {"goal": {"shape": "23", "dtype": "float32"}}),
        (("condition", "inputs"), {"goal": {"shape": [-2, 3], "dtype": "float32"}}),
        (("condition", "num_tokens"), 2.7),
        (("condition", "num_tokens"), math.inf),
        (("schema_version",), True),
        (("parity", "worst_error"), -1.0),
    ],
)
def test_a_mistyped_field_is_a_named_bundle_error(tmp_path, path, value):
    folder = make_bundle(tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_text())
    inner = manifest
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=path[-1]):
        read_bundle(folder)


# 4. Arrays that are no arrays of numbers leave as raw numpy errors, not ContextError.
@pytest.mark.parametrize("init_action", [np.float64(0.5), [[1.0], [1.0, 2.0]], "x"])
def test_a_warm_start_that_is_no_array_is_a_context_error(init_action):
    spec = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6)
    with pytest.raises(ContextError, match="init_action"):
        DDIMOptimizer(GaussianModel(spec, SCHEDULE)).optimize(
            PlanningProblem(init_action=init_action)
        )


@pytest.mark.parametrize("mean", ["x", [[1.0], [1.0, 2.0]], np.array([["a"]])])
def test_a_context_that_is_no_array_is_a_context_error(mean):
    spec = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6)
    with pytest.raises(ContextError, match="mean"):
        DDIMOptimizer(GaussianModel(spec, SCHEDULE, conditional=True)).optimize(
            PlanningProblem({"mean": mean})
        )


# 5. A press whose bounds do not hold 0 and 1 can never be valid, and project cannot help.
def test_press_bounds_that_forbid_a_press_are_refused():
    from vj2_ddim_plugin.errors import ActionError

    with pytest.raises(ActionError, match="press"):
        ActionSpec(action_high=(1.0, 1.0, 0.4))


# 6. linspace: floating point, then truncation, loses a timestep at 34 values of N (first 100).
def test_linspace_truncates_the_exact_quotient():
    for steps in range(2, 1001):
        wanted = [999 * (steps - 1 - k) // (steps - 1) for k in range(steps)]
        found = [t for t, _ in NoiseSchedule().timesteps(steps, spacing="linspace")]
        assert found == wanted, steps


# 7. A plan that was sampled to its last step says it was cut short.
@pytest.mark.parametrize(
    ("deadline", "steps", "stopped"), [(4.5, 4, "finished"), (3.5, 3, "deadline")]
)
def test_a_step_that_is_not_expected_to_end_in_time_is_not_begun(
    monkeypatch, deadline, steps, stopped
):
    from vj2_ddim_plugin.planning import search

    spec = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6)
    clock = {"now": 0.0}
    monkeypatch.setattr(search.time, "perf_counter", lambda: clock["now"])

    class Slow(GaussianModel):
        calls = 0

        def denoise(self, sample, timestep, condition):
            self.calls += 1
            clock["now"] += 1.0
            return super().denoise(sample, timestep, condition)

    result = DDIMOptimizer(Slow(spec, SCHEDULE), num_inference_steps=4).optimize(
        PlanningProblem(deadline_s=deadline)
    )
    assert result.num_denoiser_evaluations == steps
    assert result.stopped_because == stopped


# 8. A denoiser whose output has another shape is broadcast into plans; a condition graph without
# null_condition leaves as a raw unpacking error. The manifest check looks at inputs only.
def test_a_denoiser_of_another_output_shape_is_refused(tmp_path):
    from builders.bundles import save_graph, tensor
    from onnx import TensorProto, helper

    from vj2_ddim_plugin.bundle import write_manifest
    from vj2_ddim_plugin.spec import ConditionSpec

    spec = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6)
    inputs = [tensor("sample", ["B", 6, 1]), tensor("timestep", ["B"], TensorProto.INT64)]
    nodes = [helper.make_node("ReduceMean", ["sample"], ["model_output"], axes=[1], keepdims=1)]
    save_graph(tmp_path / "denoiser.onnx", nodes, inputs, [tensor("model_output", ["B", 1, 1])])
    write_manifest(
        tmp_path,
        action_spec=spec,
        schedule=SCHEDULE,
        condition=ConditionSpec(),
        parity={"worst_error": 0.0},
        provenance={},
    )
    with pytest.raises(BundleError, match="shape"):
        DDIMOptimizer.from_bundle(tmp_path, provider="cpu")


def test_a_condition_graph_without_null_condition_is_refused(tmp_path):
    from builders import bundles as test_bundle
    from builders.bundles import save_graph, tensor
    from onnx import helper

    from vj2_ddim_plugin.model import BundleModel

    folder = make_bundle(tmp_path / "bundle")
    nodes = [helper.make_node("Identity", ["goal"], ["condition"])]
    shape = ["B", 2, 3]
    save_graph(
        folder / "condition.onnx", nodes, [tensor("goal", shape)], [tensor("condition", shape)]
    )
    from vj2_ddim_plugin.bundle import write_manifest

    write_manifest(
        folder,
        action_spec=test_bundle.SPEC,
        schedule=test_bundle.SCHEDULE,
        condition=test_bundle.LATENTS,
        parity={"worst_error": 0.0},
        provenance={},
    )
    with pytest.raises(BundleError, match="null_condition"):
        BundleModel(folder, "cpu")


# 9. Weights outside the graph file are not hashed: the bundle loads after they were changed.
def test_weights_beside_the_graph_are_refused(tmp_path):
    import onnx
    from builders.bundles import tensor
    from onnx import TensorProto, helper, numpy_helper

    from vj2_ddim_plugin.bundle import write_manifest
    from vj2_ddim_plugin.spec import ConditionSpec

    weight = numpy_helper.from_array(np.full((6, 1), 0.5, np.float32), "weight")
    inputs = [tensor("sample", ["B", 6, 1]), tensor("timestep", ["B"], TensorProto.INT64)]
    nodes = [helper.make_node("Mul", ["sample", "weight"], ["model_output"])]
    graph = helper.make_graph(
        nodes, "tiny", inputs, [tensor("model_output", ["B", 6, 1])], initializer=[weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(
        model,
        tmp_path / "denoiser.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    write_manifest(
        tmp_path,
        action_spec=ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6),
        schedule=SCHEDULE,
        condition=ConditionSpec(),
        parity={"worst_error": 0.0},
        provenance={},
    )
    (tmp_path / "weights.bin").write_bytes(np.full((6, 1), 7.0, np.float32).tobytes())
    with pytest.raises(BundleError):
        DDIMOptimizer.from_bundle(tmp_path, provider="cpu")
