"""The registry of widgets. Its order is the order of the state's columns."""

import numpy as np

from vj2_ddim_benchmark.world.widgets.dragged import Detour, Slider, Tray
from vj2_ddim_benchmark.world.widgets.scrolled import Carousel, ScrollList, Tabs
from vj2_ddim_benchmark.world.widgets.tapped import Keypad, Menu, Panel, Radio, Switch, Twin
from vj2_ddim_benchmark.world.widgets.widget import Widget

WIDGETS: tuple[Widget, ...] = (
    Switch(), Radio(), Keypad(), Slider(), Tray(), ScrollList(), Carousel(), Menu(), Twin(), Tabs(),
    Detour(), Panel(),
)  # fmt: skip

KINDS = tuple(widget.kind for widget in WIDGETS)
MULTIMODAL_KINDS = tuple(widget.kind for widget in WIDGETS if widget.multimodal)
SLOT_KINDS = np.repeat(np.arange(len(WIDGETS)), [widget.max_count for widget in WIDGETS])
"""`[S]`: the index in `WIDGETS` of each column of the state."""
SLOT_TOLERANCE = np.array([widget.tolerance for widget in WIDGETS])[SLOT_KINDS]
"""`[S]`: how far two states of a column may be apart and still count as the same."""
NUM_SLOTS = len(SLOT_KINDS)
