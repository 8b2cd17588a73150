"""A chain as a short animation: the screen with the moving finger, and the goal beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vj2_ddim_benchmark.race.records import ChainRecord, from_stroke
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_benchmark.world.problems import Chains
from vj2_ddim_benchmark.world.touch import NUM_STEPS, gesture_path
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path

__all__ = ["animate_chain", "animate_record", "telling_chain"]

MAX_FRAMES = 60
MOVING_FRAMES = 8  # of each gesture, unless there are many
FRAMES_PER_S = 12
MOVE, REST, LAST = 1, 6, 20  # for how many frames a picture is shown
BORDER, HEAD = 8, 22  # pixels
DPI = 100


def animate_chain(path: Path, frames: Images, actions: ArrayLike, goal: Images) -> None:
    """Write a GIF that loops, whole or not at all.

    `frames` are what the screen showed, uint8 `[m + 1, H, W, 3]`: before, and after each of the
    gestures `actions` `[m, 250, 3]`, at most 29; `goal` is what it should show, uint8 `[H, W, 3]`.
    """
    shown, blocks = np.asarray(frames), np.asarray(actions)
    limit = MAX_FRAMES // 2 - 1
    if len(shown) != len(blocks) + 1 or len(blocks) > limit or shown.shape[1:] != np.shape(goal):
        raise DataError(
            f"m gestures need m + 1 frames of the goal's size, and m at most {limit}; found "
            f"{len(blocks)} gestures, frames {shown.shape} and a goal {np.shape(goal)}"
        )
    beside = draw_gesture(np.asarray(goal), np.zeros((NUM_STEPS, 3)))
    height, width = beside.shape[:2]
    size = 2 * width + 3 * BORDER, height + HEAD + BORDER
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    writer = PillowWriter(fps=FRAMES_PER_S)
    with atomic_path(path) as temporary, writer.saving(figure, str(temporary), DPI):
        for picture, caption, num in _pictures(shown, blocks):
            figure.clear()
            for left, image, words in (
                (BORDER, picture, caption),
                (2 * BORDER + width, beside, "goal"),
            ):
                figure.figimage(image, left, BORDER, origin="upper")
                figure.text(left / size[0], 1 - 6 / size[1], words, va="top", fontsize=9)
            for _ in range(num):  # equal pictures become one that is shown for longer
                writer.grab_frame()


def animate_record(path: Path, chains: Chains, record: ChainRecord) -> None:
    """Animate what a planner did on one of these chains, from its raw result alone."""
    start, goal = chains.start.select(record.problem), chains.goal.select(record.problem)
    screens = [start, *(start.with_state([state]) for state in record.states)]
    frames = np.concatenate([screen.render() for screen in screens])
    actions = np.zeros((0, NUM_STEPS, 3))
    if record.strokes:
        actions = np.stack([from_stroke(stroke) for stroke in record.strokes])
    animate_chain(path, frames, actions, goal.render()[0])


def telling_chain(records: Sequence[ChainRecord], planner: str) -> ChainRecord:
    """The one to show: of a planner's chains that were solved the longest, and of those the first.

    Without a solved one, the longest that was not.
    """
    own = [record for record in records if record.planner == planner]
    if not own:
        raise DataError(f"there are no chains of planner {planner!r} to animate")
    return min(own, key=lambda record: (not record.solved, -record.length, record.problem))


def _pictures(frames: Images, actions: NDArray[np.floating]) -> Iterator[tuple[Images, str, int]]:
    """Pictures, what is said over them, and for how many frames: rest, move, rest, ..."""
    num = len(actions)
    moving = min(MOVING_FRAMES, (MAX_FRAMES - num - 1) // max(num, 1))
    idle = np.zeros((NUM_STEPS, 3))
    for index, action in enumerate(actions):
        yield draw_gesture(frames[index], idle), f"{index} of {num}", REST
        for part in _parts(action, moving):
            yield draw_gesture(frames[index], part), f"gesture {index + 1} of {num}", MOVE
    yield draw_gesture(frames[-1], idle), f"{num} of {num}", LAST


def _parts(action: NDArray[np.floating], num: int) -> Iterator[NDArray[np.floating]]:
    """The gesture as it is drawn: its press cut off ever later, the last time not at all."""
    pressed = np.flatnonzero(action[:, 2] > 0.5)[: len(gesture_path(action))]
    for share in np.arange(1, num + 1) / num:
        part = action.copy()
        if len(pressed):
            part[pressed[int(np.ceil(share * len(pressed))) - 1] + 1 :] = 0.0
        yield part
