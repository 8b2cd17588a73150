"""Pages of a mobile UI kit in a browser; importing it registers `BrowserTouch-v0`."""

import gymnasium

from vj2_ddim_benchmark.browser.chromium import BrowserError
from vj2_ddim_benchmark.browser.environment import BrowserTouchEnv
from vj2_ddim_benchmark.browser.pages import Page, draw_page
from vj2_ddim_benchmark.browser.session import Session

__all__ = ["BrowserError", "BrowserTouchEnv", "Page", "Session", "draw_page"]

ENTRY_POINT = "vj2_ddim_benchmark.browser.environment:BrowserTouchEnv"
gymnasium.register("BrowserTouch-v0", ENTRY_POINT, max_episode_steps=20)
