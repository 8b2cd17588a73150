"""Pages with widgets that a test chooses."""

from dataclasses import replace

import numpy as np

from vj2_ddim_benchmark.browser.pages import Widget, draw_page


def page_of(*kinds, bullets=False, values=None):
    """A page with these widgets."""
    numbers = values or range(len(kinds))
    widgets = [
        Widget(kind, value, "Oak tide", ("Red", "Sky", "Fig"), 90, bullets)
        for kind, value in zip(kinds, numbers, strict=True)
    ]
    return replace(draw_page("train", np.random.default_rng(0)), widgets=tuple(widgets))
