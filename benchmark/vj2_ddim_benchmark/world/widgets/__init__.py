"""The registry of widgets: one line each. Its order is the order of the state's columns."""

from __future__ import annotations

import numpy as np

from vj2_ddim_benchmark.world.widgets.carousel import Carousel
from vj2_ddim_benchmark.world.widgets.detour import Detour
from vj2_ddim_benchmark.world.widgets.keypad import Keypad
from vj2_ddim_benchmark.world.widgets.menu import Menu
from vj2_ddim_benchmark.world.widgets.panel import Panel
from vj2_ddim_benchmark.world.widgets.radio import Radio
from vj2_ddim_benchmark.world.widgets.scroll_list import ScrollList
from vj2_ddim_benchmark.world.widgets.slider import Slider
from vj2_ddim_benchmark.world.widgets.switch import Switch
from vj2_ddim_benchmark.world.widgets.tabs import Tabs
from vj2_ddim_benchmark.world.widgets.tray import Tray
from vj2_ddim_benchmark.world.widgets.twin import Twin
from vj2_ddim_benchmark.world.widgets.widget import Parts, Strokes, Widget

__all__ = [
    "KINDS",
    "MULTIMODAL_KINDS",
    "NUM_SLOTS",
    "SLOT_KINDS",
    "SLOT_TOLERANCE",
    "WIDGETS",
    "Parts",
    "Strokes",
    "Widget",
]

WIDGETS: tuple[Widget, ...] = (
    Switch(),
    Radio(),
    Keypad(),
    Slider(),
    Tray(),
    ScrollList(),
    Carousel(),
    Menu(),
    Twin(),
    Tabs(),
    Detour(),
    Panel(),
)

KINDS = tuple(widget.kind for widget in WIDGETS)
MULTIMODAL_KINDS = tuple(widget.kind for widget in WIDGETS if widget.multimodal)
SLOT_KINDS = np.repeat(np.arange(len(WIDGETS)), [widget.max_count for widget in WIDGETS])
"""`[S]`: the index in `WIDGETS` of each column of the state."""
SLOT_TOLERANCE = np.array([widget.tolerance for widget in WIDGETS])[SLOT_KINDS]
"""`[S]`: how far two states of a column may be apart and still count as the same."""
NUM_SLOTS = len(SLOT_KINDS)
