"""`deadline_s` of a planner, checked whenever it is set."""

from __future__ import annotations

import math

import numpy as np

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["DeadlineSetting"]


class DeadlineSetting:
    """An attribute: seconds, or None for no deadline.

    Raises:
        ConfigError: When it is set to anything else.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember the attribute's name."""
        self._name = name

    def __get__(self, planner: object, owner: type | None = None) -> float | None:
        """Seconds, or None; None of a class."""
        seconds: float | None = vars(planner)[self._name] if planner is not None else None
        return seconds

    def __set__(self, planner: object, seconds: float | None) -> None:
        """Check, and set."""
        if seconds is not None:
            is_number = isinstance(seconds, int | float | np.number)
            if not is_number or isinstance(seconds, bool) or math.isnan(seconds):
                raise ConfigError(
                    f"{self._name} must be a number of seconds, or None; found {seconds!r}"
                )
            seconds = float(seconds)
        vars(planner)[self._name] = seconds
