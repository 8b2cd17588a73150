"""Broken models, mistyped manifests and odd hosts: nothing of it may become a plan."""

import numpy as np
import onnxruntime
import pytest
from builders.bundles import make_bundle
from builders.runtime import SCHEDULE, TOUCH

from vj2_ddim_plugin.errors import ActionError, ContextError, ProviderError, VJ2DDIMError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.onnx import session
from vj2_ddim_plugin.onnx.session import OnnxGraph
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_plugin.testing import GaussianModel, QuadraticCost


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


# 4. Arrays that are no arrays of numbers leave as raw numpy errors, not ContextError.
@pytest.mark.parametrize("init_action", [np.float64(0.5), [[1.0], [1.0, 2.0]], "x"])
def test_a_warm_start_that_is_no_array_is_a_context_error(init_action):
    with pytest.raises(ContextError, match="init_action"):
        DDIMOptimizer(GaussianModel(TOUCH, SCHEDULE)).optimize(
            PlanningProblem(init_action=init_action)
        )


@pytest.mark.parametrize("mean", ["x", [[1.0], [1.0, 2.0]], np.array([["a"]])])
def test_a_context_that_is_no_array_is_a_context_error(mean):
    with pytest.raises(ContextError, match="mean"):
        DDIMOptimizer(GaussianModel(TOUCH, SCHEDULE, conditional=True)).optimize(
            PlanningProblem({"mean": mean})
        )


# 5. A press whose bounds do not hold 0 and 1 can never be valid, and project cannot help.
def test_press_bounds_that_forbid_a_press_are_refused():
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
def test_a_step_that_is_not_expected_to_end_in_time_is_not_begun(clock, deadline, steps, stopped):
    class Slow(GaussianModel):
        calls = 0

        def denoise(self, sample, timestep, condition):
            self.calls += 1
            clock["s"] += 1.0
            return super().denoise(sample, timestep, condition)

    result = DDIMOptimizer(Slow(TOUCH, SCHEDULE), num_inference_steps=4).optimize(
        PlanningProblem(deadline_s=deadline)
    )
    assert result.num_denoiser_evaluations == steps
    assert result.stopped_because == stopped
