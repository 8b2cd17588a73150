"""The runtime: plans with a DDIM denoiser on numpy and ONNX Runtime, nothing else."""

from vj2_ddim_plugin.interface import (
    ActionOptimizer,
    CostFn,
    PlanConstraints,
    PlanningProblem,
    PlanResult,
)
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec

__all__ = [
    "ActionOptimizer",
    "ActionSpec",
    "CostFn",
    "DDIMOptimizer",
    "NoiseSchedule",
    "PlanConstraints",
    "PlanResult",
    "PlanningProblem",
    "SearchSettings",
    "SessionSettings",
    "__version__",
]

__version__ = "0.1.0"


def _keep_old_methods() -> None:
    """SHIM: `spec.encode(actions)` and its like are functions of `vj2_ddim_plugin.gestures`."""
    from vj2_ddim_plugin import gestures

    for name in ("encode", "decode", "decode_checked", "is_valid", "project", "pressed", "release"):
        function = getattr(gestures, name)
        method = lambda self, values, function=function: function(values, self)  # noqa: E731
        method.__doc__ = function.__doc__
        setattr(ActionSpec, name, method)
    ActionSpec.diffused_bounds = property(gestures.diffused_bounds)  # type: ignore[attr-defined]


_keep_old_methods()
