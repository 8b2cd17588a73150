"""The registry of widgets: one line each. Its order is the order of the state's columns."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.widgets.carousel import Carousel
from vj2_ddim_benchmark.world.widgets.keypad import Keypad
from vj2_ddim_benchmark.world.widgets.switch import Switch
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget

__all__ = ["KINDS", "NUM_SLOTS", "SLOT_KINDS", "WIDGETS", "Parts", "Strokes", "Widget"]

WIDGETS: tuple[Widget, ...] = (
    Switch(),
    Keypad(),
    Carousel(),
)

KINDS = tuple(widget.kind for widget in WIDGETS)
SLOT_KINDS = np.repeat(np.arange(len(WIDGETS)), [widget.max_count for widget in WIDGETS])
"""`[S]`: the index in `WIDGETS` of each column of the state."""
NUM_SLOTS = len(SLOT_KINDS)
