"""The runtime: plans with a DDIM denoiser on numpy and ONNX Runtime, nothing else.

What is named here is imported when it is first asked for: `import vj2_ddim_plugin.errors` and the
command line's help need neither numpy nor ONNX Runtime.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    "ActionOptimizer", "ActionSpec", "CostFn", "DDIMOptimizer", "NoiseSchedule", "PlanConstraints",
    "PlanResult", "PlanningProblem", "SearchSettings", "SessionSettings", "__version__",
]  # fmt: skip

__version__ = "0.1.0"

_MODULES = {
    "ActionSpec": "spec", "DDIMOptimizer": "optimizer", "NoiseSchedule": "schedule",
    "SearchSettings": "planning", "SessionSettings": "onnx",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what is asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'interface')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
