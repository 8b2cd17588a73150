"""A chain as a short animation: the screen with the moving finger, and the goal beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from vj2_ddim_benchmark.chains.records import ChainRecord
from vj2_ddim_benchmark.chains.strokes import from_stroke
from vj2_ddim_benchmark.world.chains import Chains
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_benchmark.world.touch import NUM_STEPS, gesture_path
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path

__all__ = ["animate_chain", "animate_record", "telling_chain"]

MAX_FRAMES = 60
MOVING_FRAMES = 8  # of each gesture, unless there are many
FRAME_MS, REST_MS, LAST_MS = 70, 500, 1800
NUM_COLORS = 64
BORDER, HEAD = 8, 22  # pixels
PAPER, INK = (255, 255, 255), (30, 30, 30)


def animate_chain(path: Path, frames: Images, actions: ArrayLike, goal: Images) -> None:
    """Write a GIF that loops.

    Args:
        path: The file, written whole or not at all.
        frames: What the screen showed, uint8 `[m + 1, H, W, 3]`: before, and after each gesture.
        actions: The gestures `[m, 250, 3]`, at most 29.
        goal: What it should show, uint8 `[H, W, 3]`.

    Raises:
        ActionError: A gesture is not an array of numbers of that shape.
        DataError: There is not one frame more than there are gestures, there are too many, or the
            frames are not pictures of one size.
    """
    shown, blocks = np.asarray(frames), np.asarray(actions)
    limit = MAX_FRAMES // 2 - 1
    if len(shown) != len(blocks) + 1 or len(blocks) > limit or shown.shape[1:] != np.shape(goal):
        raise DataError(
            f"m gestures need m + 1 frames of the goal's size, and m at most {limit}; found "
            f"{len(blocks)} gestures, frames {shown.shape} and a goal {np.shape(goal)}"
        )
    pictures, times = zip(*_pictures(shown, blocks, np.asarray(goal)), strict=True)
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=list(times),
            loop=0,
            optimize=True,
        )


def animate_record(path: Path, chains: Chains, record: ChainRecord) -> None:
    """Animate what a planner did on a chain, from its raw result alone.

    Args:
        path: The GIF.
        chains: The problems of the run.
        record: One of its results.

    Raises:
        DataError: The record is not of these chains.
    """
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

    Raises:
        DataError: The planner has no results.
    """
    own = [record for record in records if record.planner == planner]
    if not own:
        raise DataError(f"there are no chains of planner {planner!r} to animate")
    return min(own, key=lambda record: (not record.solved, -record.length, record.problem))


def _pictures(
    frames: Images, actions: NDArray[np.floating], goal: Images
) -> Iterator[tuple[Image.Image, int]]:
    """Pictures and how many ms each is shown: rest, move, rest, ..."""
    num = len(actions)
    moving = min(MOVING_FRAMES, (MAX_FRAMES - num - 1) // max(num, 1))
    idle = np.zeros((NUM_STEPS, 3))
    beside = draw_gesture(goal, idle)
    for index, action in enumerate(actions):
        yield _page(draw_gesture(frames[index], idle), beside, f"{index} of {num}"), REST_MS
        for part in _parts(action, moving):
            touched = draw_gesture(frames[index], part)
            yield _page(touched, beside, f"gesture {index + 1} of {num}"), FRAME_MS
    yield _page(draw_gesture(frames[-1], idle), beside, f"{num} of {num}"), LAST_MS


def _parts(action: NDArray[np.floating], num: int) -> Iterator[NDArray[np.floating]]:
    """The gesture as it is drawn: its press cut off ever later, the last time not at all."""
    pressed = np.flatnonzero(action[:, 2] > 0.5)[: len(gesture_path(action))]
    for share in np.arange(1, num + 1) / num:
        part = action.copy()
        if len(pressed):
            part[pressed[int(np.ceil(share * len(pressed))) - 1] + 1 :] = 0.0
        yield part


def _page(screen: Images, goal: Images, caption: str) -> Image.Image:
    height, width = screen.shape[:2]
    page = Image.new("RGB", (2 * width + 3 * BORDER, height + HEAD + BORDER), PAPER)
    page.paste(Image.fromarray(screen), (BORDER, HEAD))
    page.paste(Image.fromarray(goal), (2 * BORDER + width, HEAD))
    words = ImageDraw.Draw(page)
    words.text((BORDER, 5), caption, fill=INK)
    words.text((2 * BORDER + width, 5), "goal", fill=INK)
    return page.quantize(NUM_COLORS, dither=Image.Dither.NONE)
