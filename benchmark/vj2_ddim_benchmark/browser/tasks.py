"""Tasks of MiniWoB++ in a browser: shown, touched, and posed as problems by hidden gestures."""

import re
import time
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.browser.chromium import BrowserError, Chromium
from vj2_ddim_benchmark.browser.driver import ORIGIN, TouchedPage, Touches
from vj2_ddim_benchmark.browser.kit import Installation
from vj2_ddim_benchmark.browser.miniwob import TASKS, VIEW, Task, task_files
from vj2_ddim_benchmark.browser.session import BrowserSession, Session
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_plugin.gestures.segments import IntArray

FIRST = f"{ORIGIN}/miniwob/click-test.html"  # a browser hovers otherwise on its first page
SCRIPTS = ("clock.js", "miniwob.js")
LONGEST_PRESS_S = 0.4  # by the wall; from 0.5 s on the browser takes it for a long press
RELEASE_S, WAIT_S = 1.0, 0.01
NUM_NUMBERS = 3  # of a state

NUMBER = re.compile(r"^(\w+\|)-?\d+(?=\|)", re.MULTILINE)  # the text of an element

Use = tuple[str, list[float]]
"""What gesture an element may obey, and its left, top, width and height in 320ths."""


class Snapshot(NamedTuple):
    """All that is seen of a task: what each element looks like, and where they are."""

    looks: str
    places: NDArray[np.float64]

    def near(self, other: "Snapshot", tolerance: float, any_number: bool = False) -> bool:
        """Whether all looks the same and nothing is further apart than so many pixels.

        Texts that are numbers may differ where that is said.
        """
        looks = [each.looks for each in (self, other)]
        if any_number:
            looks = [NUMBER.sub(r"\1", each) for each in looks]
        if looks[0] != looks[1]:
            return False
        return bool(np.abs(self.places - other.places).max() <= tolerance)


def state_of(task: Task, picture: Images) -> IntArray:
    """A state `[3]` for data: the task's place among all, its seed, a hash of its picture.

    So a touch changes it where it changes what is seen, and only there.
    """
    digest = sha256(picture.tobytes()).digest()
    hashed = int.from_bytes(digest[:8], "big") >> 1
    return np.array([list(TASKS).index(task.name), task.seed, hashed], np.int64)


def _released(touched: TouchedPage) -> None:
    """Wait until nothing looks pressed: that the browser ends by the wall, 0.15 s after a tap."""
    deadline = time.monotonic() + RELEASE_S
    while touched.evaluate("document.querySelector(':active') !== null"):
        if time.monotonic() > deadline:
            raise BrowserError(f"something looks pressed {RELEASE_S} s after a touch")
        time.sleep(WAIT_S)


class TaskSession(BrowserSession[Task, Snapshot]):
    """Shows tasks and has them touched, by a finger or a mouse as each wants it."""

    view = VIEW

    def __init__(self, size: int = 64, installed: Installation | None = None) -> None:
        """Nothing is started yet; a `ConfigError` where MiniWoB++ is missing."""
        super().__init__(size, installed)
        self._files = task_files()

    def show(self, task: Task) -> tuple[Images, Snapshot]:
        """Begin a task's episode; returns its picture `[size, size, 3]` and what is seen.

        Raises:
            BrowserError: The browser failed, or the page threw.
        """
        with self._closed_on_errors():
            touched = self._opened()
            touched.mouse = task.rule.mouse
            touched.leave()  # else the next page is hovered over where this one was touched last
            touched.navigate(f"{ORIGIN}/miniwob/{task.name}.html")
            touched.begin(f"miniwob.start({task.seed})")
            self._shown = task
            return touched.picture(), self._read(task, touched)

    def uses(self) -> list[Use]:
        """What can be touched now, and how."""
        with self._closed_on_errors():
            task, touched = self._showing()
            found = touched.evaluate(f"miniwob.targets({int(task.rule.mouse)})")
        return [(str(use), box) for use, *box in found]

    def _open(self, browser: Chromium) -> TouchedPage:
        touched = TouchedPage(browser, self._files, self.size, self.view, SCRIPTS)
        touched.navigate(FIRST)
        return touched

    def _perform(self, touched: TouchedPage, frames: Touches) -> None:
        touched.touch(frames, LONGEST_PRESS_S)
        _released(touched)
        touched.rest()  # what looks released may ask for another icon

    def _read(self, shown: Task, touched: TouchedPage) -> Snapshot:
        """What is seen."""
        looks, places = touched.evaluate("miniwob.state()")
        return Snapshot(looks, np.array(places, float))


def session_of(pages: str, size: int) -> Session | TaskSession:
    """For pages of the kit or of MiniWoB++; a `ConfigError` where what they need is missing."""
    return TaskSession(size) if pages == "miniwob" else Session(size)
