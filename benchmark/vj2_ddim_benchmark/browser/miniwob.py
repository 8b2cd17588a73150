"""MiniWoB++: pages of the web that others made, each of them a task with seeds without end."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vj2_ddim_benchmark.browser.driver import Files, View
from vj2_ddim_benchmark.browser.kit import TYPES
from vj2_ddim_benchmark.settings import SPLITS
from vj2_ddim_benchmark.world.layouts import require_split
from vj2_ddim_plugin.errors import ConfigError

PACKAGE, VERSION = "miniwob", "1.1.0"  # MIT
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
FOLDERS = ("core", "common", "miniwob")
VIEW = View(width=160, height=210, top=50, side=160, mobile=False)  # all but the instruction
NUM_SEEDS = 2**31


class Rule(NamedTuple):
    """How a task is touched, and how near counts as reached."""

    mouse: bool = False  # no touch moves it
    tolerance: float = 1.0  # in the task's pixels, of 160; what jumps is equal or 1 away
    any_number: bool = False  # whether numbers that it shows may differ: each pixel is another


TOUCHED = (
    "click-dialog", "click-tab", "click-widget", "click-menu", "click-collapsible",
    "click-option", "click-checkboxes", "use-spinner",
)  # fmt: skip
TOUCHED_ANYWHERE = (  # by how much, anything goes: not by jumps
    "circle-center", "find-midpoint", "bisect-angle", "drag-circle", "drag-shapes", "drag-cube",
    "draw-line", "draw-circle", "scroll-text-2",
)  # fmt: skip
TASKS = {
    **dict.fromkeys(TOUCHED, Rule()),
    "click-scroll-list": Rule(tolerance=4.0),  # a line is 8 high or more
    **dict.fromkeys(TOUCHED_ANYWHERE, Rule(tolerance=8.0)),
    "use-slider": Rule(True, 8.0, any_number=True),
    **dict.fromkeys(("drag-items", "drag-sort-numbers"), Rule(True)),
    **dict.fromkeys(("drag-box", "resize-textarea", "highlight-text"), Rule(True, 8.0)),
}
NOT_POSED = (  # no picture tells what was touched
    "click-test", "click-test-2", "click-button", "focus-text", "click-link", "click-color",
    "click-shape", "grid-coordinate",
)  # fmt: skip


class Task(NamedTuple):
    """A task and what its numbers are drawn from."""

    name: str
    seed: int

    @property
    def rule(self) -> Rule:
        """How it is touched."""
        return TASKS[self.name]


def draw_task(split: str, rng: np.random.Generator, names: tuple[str, ...] = ()) -> Task:
    """A task, one of these names if any, with a seed that only this split has.

    A `ConfigError` says that there is no such split or no such task.
    """
    require_split(split)
    if strangers := sorted(set(names) - set(TASKS)):
        raise ConfigError(f"no task {strangers[0]!r} is posed; use some of {', '.join(TASKS)}")
    name = str(rng.choice(list(names or TASKS)))
    return Task(name, len(SPLITS) * int(rng.integers(NUM_SEEDS)) + SPLITS.index(split))


def installed_html() -> Path | None:
    """The folder of its pages, if the package is there; the package itself needs Selenium."""
    found = find_spec(PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent / "html"


@cache
def task_files() -> Files:
    """All that its pages may ask for; a `ConfigError` that says how to install them."""
    folder = installed_html()
    if folder is None:
        raise ConfigError(
            f"pages of MiniWoB++ need the package {PACKAGE} {VERSION}, which is not installed: "
            f"run `{INSTALL}`"
        )
    files: Mapping[str, tuple[str, bytes]] = {
        f"/{path.relative_to(folder)}": (TYPES[path.suffix], path.read_bytes())
        for name in FOLDERS
        for path in sorted((folder / name).rglob("*"))
        if path.suffix in TYPES
    }
    return files
