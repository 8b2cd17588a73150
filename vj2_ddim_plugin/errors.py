"""Every error this project raises, as one tree.

```
VJ2DDIMError
├── ConfigError          settings that cannot work together, or a missing optional install
│   └── ScheduleError    a noise schedule or timestep request that cannot work
├── DataError            a data file that is missing, broken or of the wrong shape
├── ActionError          actions that do not fit their ActionSpec
├── ContextError         a planning problem whose context, cost or init_action is wrong
│   ├── ConstraintError  constraints that contradict one another, or that no candidate keeps
│   └── CostError        a cost that raised, or that ranks nothing
├── TrainingError        a training that has gone wrong: a loss or weights that are not finite
├── CheckpointError      a checkpoint that cannot be opened or does not say what it holds
├── BundleError          a bundle whose manifest or graphs are missing, changed or inconsistent
├── OutputError          a file or folder that cannot be written
├── ParityError          an exported bundle that does not agree with its checkpoint
├── ServingError         a request that a server refuses, or a server that does not answer
└── ProviderError        an execution provider that was asked for and is not running
```

A message says what was found, what was expected and what to do; it names the file or the field.
"""

__all__ = [
    "ActionError", "BundleError", "CheckpointError", "ConfigError", "ConstraintError",
    "ContextError", "CostError", "DataError", "OutputError", "ParityError", "ProviderError",
    "ScheduleError", "ServingError", "TrainingError", "VJ2DDIMError", "escaped",
]  # fmt: skip


def escaped(text: str) -> str:
    """The text with everything escaped that no terminal shows, of names of files above all."""
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return "".join(shown)


class VJ2DDIMError(Exception):
    """The root: catch this to catch everything the project raises on purpose."""

    def __str__(self) -> str:
        """The message, with what cannot be printed escaped."""
        return escaped(super().__str__())


class ConfigError(VJ2DDIMError, ValueError):
    """Settings that cannot work, alone or together, or an optional install that is missing."""


class ScheduleError(ConfigError):
    """A noise schedule, prediction type or timestep request that cannot work."""


class DataError(VJ2DDIMError, ValueError):
    """A data file or folder that is missing, broken, or of the wrong shape, type or range."""


class ActionError(VJ2DDIMError, ValueError):
    """Actions that do not fit the `ActionSpec` they were given to."""


class ContextError(VJ2DDIMError, ValueError):
    """A `PlanningProblem` whose context, cost, or init_action does not fit the optimizer."""


class ConstraintError(ContextError):
    """Constraints that contradict one another, or that no candidate of a plan keeps."""


class CostError(ContextError):
    """A cost that raised, returned a wrong shape, or is finite for no candidate."""


class TrainingError(VJ2DDIMError, RuntimeError):
    """A training that has gone wrong: its loss, its gradients or its weights are not finite."""


class CheckpointError(VJ2DDIMError, ValueError):
    """A checkpoint that cannot be opened, or that lacks a field it must have."""


class BundleError(VJ2DDIMError, ValueError):
    """A bundle whose manifest or graphs are missing, changed, unknown or inconsistent."""


class OutputError(VJ2DDIMError, OSError):
    """A file or folder that cannot be written, or that must not be replaced."""


class ParityError(VJ2DDIMError):
    """An exported bundle whose sampling loop does not agree with its checkpoint's."""


class ServingError(VJ2DDIMError, RuntimeError):
    """A request that a server refuses, with its HTTP status, or a server that does not answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ProviderError(VJ2DDIMError, RuntimeError):
    """An execution provider that was asked for by name and is not the one running."""
