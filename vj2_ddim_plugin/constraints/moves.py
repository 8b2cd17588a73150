"""Gestures moved as little as possible, so that they keep what is asked of them.

All work on one block a row, `[n, T, A]`, in the planner's units. Rectangles that the finger may not
touch or cross while it is down are `[R, 4]`: `x_low, y_low, x_high, y_high`, edges included; x and
y are the first two channels but the press.
"""

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.gestures import held_blocks, outside_bounds, pressed, release
from vj2_ddim_plugin.gestures.segments import IntArray, longest_segment
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["clear_shift", "continue_blocks", "meet_fixed", "move_clear", "touches"]

MARGIN = 1e-4  # how far, as a share of the bounds, a moved gesture stays off an edge

Mask = NDArray[np.bool_]


def continue_blocks(blocks: FloatArray, frozen: FloatArray, spec: ActionSpec) -> FloatArray:
    """Blocks `[n, T, A]` that begin with what was sent, `frozen` `[n, m, A]`, without a jump.

    For touches there are three cases. If the finger has not come down yet, the gesture begins no
    earlier than now; one that would no longer fit is left out. If it came down and up again, the
    block's one gesture is over, and the rest is released. If it is down, it moves from where it is:
    the sampled path, plus what separates it from the finger, fading to nothing at its end. A finger
    that is out of bounds is lifted.
    """
    sent = frozen.shape[1]
    continued = blocks.copy()
    if spec.press_channel is not None and 0 < sent < spec.action_block:
        continued = _continue_gestures(blocks, frozen, spec)
    continued[:, :sent] = frozen
    return continued


def _continue_gestures(blocks: FloatArray, frozen: FloatArray, spec: ActionSpec) -> FloatArray:
    sent, steps = frozen.shape[1], np.arange(spec.action_block)
    began, ended = longest_segment(pressed(frozen, spec))
    down = (ended > began) & (ended == sent)
    start, stop = longest_segment(pressed(blocks, spec))
    held = held_blocks(blocks, spec)
    # still up: as sampled, but not before now; over, or too late for a gesture: released
    delayed = np.maximum(start, sent)
    length = np.minimum(stop - start, spec.action_block - delayed)
    absent = (ended > began) | (stop <= start) | (length < spec.min_press_steps)
    length = np.where(absent, 0, length)
    # down: until the sampled release, within the valid lengths; lifted at once where out of bounds
    shortest = np.maximum(sent, began + spec.min_press_steps)
    outside = outside_bounds(frozen[:, -1], spec).any(axis=1)
    stop, shortest = np.where(outside, sent, stop), np.where(outside, sent, shortest)
    longest = np.minimum(began + spec.longest_press, spec.action_block)
    lifted = np.clip(stop, shortest, np.maximum(longest, shortest))
    new_start, new_stop = np.where(down, sent, delayed), np.where(down, lifted, delayed + length)
    source = np.where(down[:, None], steps, steps - (delayed - start)[:, None])
    source = np.clip(source, 0, spec.action_block - 1)
    path = np.take_along_axis(held, source[:, :, None], axis=1)
    path += _fading_offset(held, frozen, down, new_stop)
    path = np.clip(path, spec.low_array, spec.high_array)
    path[..., spec.press_index] = (steps >= new_start[:, None]) & (steps < new_stop[:, None])
    return release(path, spec)


def _fading_offset(
    held: FloatArray, frozen: FloatArray, down: FloatArray, stop: IntArray
) -> FloatArray:
    """From the sampled path to the finger, `[n, T, A]`: whole now, nothing at the last step."""
    sent, steps = frozen.shape[1], np.arange(held.shape[1])
    offset = np.where(down[:, None], frozen[:, -1] - held[:, sent - 1], 0.0)
    share = (stop[:, None] - 1 - steps) / np.maximum(stop - sent, 1)[:, None]
    return np.asarray(np.clip(share, 0.0, 1.0)[..., None] * offset[:, None], held.dtype)


def meet_fixed(blocks: FloatArray, fixed: FloatArray, spec: ActionSpec) -> FloatArray:
    """Gestures into which the given entries of `fixed` fit; it is NaN where nothing is given.

    The press covers the steps given as pressed (or with a given coordinate), keeps out of those
    given as released, and stays of a valid length. The path is moved onto the given coordinates, by
    offsets that are linear in time between them. A row where one gesture cannot do all of this is
    left as it was. The given entries themselves are not written yet.
    """
    met = blocks.copy()
    held = held_blocks(blocks, spec)
    starts, stops = longest_segment(pressed(blocks, spec))
    press, axes = fixed[..., spec.press_index], spec.coordinate_indices
    lifted = press <= 0.5
    touched = (press > 0.5) | (~np.isnan(fixed[..., axes]).all(axis=2) & ~lifted)
    steps = np.arange(spec.action_block)
    for row in np.flatnonzero((touched | lifted).any(axis=1)):
        span = _press_span((starts[row], stops[row]), touched[row], lifted[row], spec)
        if span is None:
            continue
        path = held[row].copy()
        for axis in axes:
            given = np.flatnonzero(~np.isnan(fixed[row, :, axis]) & ~lifted[row])
            if len(given):
                offset = fixed[row, given, axis] - path[given, axis]
                path[:, axis] += np.interp(steps, given, offset)
        path = np.clip(path, spec.low_array, spec.high_array)
        path[:, spec.press_index] = (steps >= span[0]) & (steps < span[1])
        met[row] = release(path, spec)
    return met


def _press_span(
    span: tuple[int, int], touched: Mask, lifted: Mask, spec: ActionSpec
) -> tuple[int, int] | None:
    """First step and one past the last of a press that fits, near `span`; None where none does."""
    start, stop = span
    if not touched.any() and stop <= start:
        return 0, 0
    steps = np.arange(len(lifted))
    free_part = ~lifted & (steps >= start) & (steps < stop)
    core = np.flatnonzero(touched if touched.any() else _longest(free_part))
    if len(core) == 0 or lifted[core[0] : core[-1] + 1].any():
        return None
    first, last = int(core[0]), int(core[-1]) + 1
    low = int(np.max(steps[:first][lifted[:first]], initial=-1)) + 1
    high = int(np.min(steps[last:][lifted[last:]], initial=len(lifted)))
    begin = max(min(max(start, low), first), last - spec.longest_press)
    end = min(max(min(stop, high), last), begin + spec.longest_press)
    end = max(end, min(high, begin + spec.min_press_steps))
    begin = min(begin, max(low, end - spec.min_press_steps))
    return (begin, end) if spec.min_press_steps <= end - begin <= spec.longest_press else None


def _longest(steps: Mask) -> Mask:
    """Only the longest run of True."""
    (start,), (stop,) = longest_segment(steps[None])
    clock = np.arange(len(steps))
    return np.asarray((clock >= start) & (clock < stop))


def touches(
    blocks: FloatArray, rectangles: FloatArray, spec: ActionSpec, first_step: int = 0
) -> Mask:
    """Whether each block's finger touches or crosses a rectangle from `first_step` on, as `[n]`.

    Between two steps the finger moves straight: a fast drag does not jump over a narrow rectangle.
    """
    points, down = blocks[..., spec.coordinate_indices[:2]], pressed(blocks, spec)
    low, high = _boxes(points, down)
    near = (high[:, None] >= rectangles[:, :2]) & (low[:, None] <= rectangles[:, 2:])
    rows, which = np.nonzero(near.all(axis=-1))  # few: the rest need not be looked at closely
    steps = np.flatnonzero(down[rows].any(axis=0))
    touched = np.zeros(len(blocks), bool)
    if len(steps) == 0:
        return touched
    begin, end = max(int(steps[0]) - 1, 0), int(steps[-1]) + 1
    points, down = points[rows, begin:end], down[rows, begin:end]
    low, high = rectangles[which, None, :2], rectangles[which, None, 2:]
    hit = ((points >= low) & (points <= high)).all(axis=-1) & down
    crossed = _crosses(points[:, :-1], points[:, 1:], low, high)
    hit[:, 1:] |= crossed & down[:, :-1] & down[:, 1:]
    touched[rows[hit[:, max(first_step - begin, 0) :].any(axis=1)]] = True
    return touched


def _boxes(points: FloatArray, down: Mask) -> tuple[FloatArray, FloatArray]:
    """Lower and upper corner of where each finger is down, `[n, 2]` each; inside out if nowhere."""
    down = down[..., None]
    low = np.where(down, points, np.inf).min(axis=1, initial=np.inf)
    return low, np.where(down, points, -np.inf).max(axis=1, initial=-np.inf)


def _crosses(begin: FloatArray, end: FloatArray, low: FloatArray, high: FloatArray) -> Mask:
    """Whether segments `[..., 2]` meet the box from `low` to `high`: the slab method, `[...]`."""
    direction = end - begin
    still = direction == 0.0
    safe = np.where(still, 1.0, direction)
    first, second = (low - begin) / safe, (high - begin) / safe
    within = (begin >= low) & (begin <= high)
    enter = np.where(still, np.where(within, 0.0, np.inf), np.minimum(first, second))
    leave = np.where(still, np.where(within, 1.0, -np.inf), np.maximum(first, second))
    return np.asarray(np.maximum(enter.max(axis=-1), 0.0) <= np.minimum(leave.min(axis=-1), 1.0))


def clear_shift(
    low: FloatArray, high: FloatArray, rectangles: FloatArray, spec: ActionSpec
) -> tuple[FloatArray, Mask]:
    """The shortest shifts `[n, 2]` of boxes off every rectangle and in bounds, and if there is one.

    The shortest one puts each side of the box where it is, at a bound, or beside a rectangle, so
    these are tried.
    """
    axes = spec.coordinate_indices[:2]
    bounds, slack = (spec.low_array[axes], spec.high_array[axes]), spec.bound_slack[axes]
    gap = MARGIN * (bounds[1] - bounds[0])
    tries, beside, allowed = [], [], []
    for axis in (0, 1):
        first, last = low[:, axis, None], high[:, axis, None]
        lower, upper = rectangles[:, axis], rectangles[:, axis + 2]
        least, most = bounds[0][axis], bounds[1][axis]
        ends = [lower - gap[axis] - last, upper + gap[axis] - first]
        moves = np.concatenate([np.zeros_like(first), least - first, most - last, *ends], axis=1)
        first, last = first + moves, last + moves
        apart = (last[..., None] < lower) | (first[..., None] > upper)
        tries.append(moves)
        beside.append(apart.astype(np.float32))
        allowed.append((first >= least - slack[axis]) & (last <= most + slack[axis]))
    # how many rectangles a box meets, that is, is beside in neither direction, for each pair
    met = (1.0 - beside[0]) @ (1.0 - beside[1]).transpose(0, 2, 1)
    possible = (met == 0.0) & allowed[0][:, :, None] & allowed[1][:, None, :]
    distance = np.hypot(tries[0][:, :, None], tries[1][:, None, :])
    flat = np.where(possible, distance, np.inf).reshape(len(low), -1)
    best, count = flat.argmin(axis=1), tries[0].shape[1]
    rows = np.arange(len(low))
    shift = np.stack([tries[0][rows, best // count], tries[1][rows, best % count]], axis=1)
    return shift, np.asarray(np.isfinite(flat.min(axis=1)))


def move_clear(
    blocks: FloatArray, rectangles: FloatArray, spec: ActionSpec, sent: int = 0
) -> FloatArray:
    """Gestures that touch a rectangle, moved off it; the others as they were.

    A whole gesture is shifted as little as possible; one that fits nowhere becomes a tap or a hold
    near its first point. A finger that is already down (at step `sent - 1`) stays where it is until
    the shortest valid press is over, or is lifted at once where it must not stay.
    """
    moved = blocks.copy()
    rows = np.flatnonzero(touches(blocks, rectangles, spec, sent))
    if len(rows) == 0:
        return moved
    chosen = moved[rows]
    start, stop = longest_segment(pressed(chosen, spec))
    down = (sent > 0) & (start < sent)
    free = rows[~down]
    if len(free):
        moved[free] = _shifted(moved[free], rectangles, spec)
    shortest = np.maximum(sent, start + spec.min_press_steps)
    for row, last, end in zip(rows[down], shortest[down], stop[down], strict=True):
        moved[row, sent:last] = moved[row, sent - 1]
        moved[row, last:end] = 0.0
        if touches(moved[row : row + 1], rectangles, spec, sent)[0]:
            moved[row, sent:] = 0.0
    return moved


def _shifted(blocks: FloatArray, rectangles: FloatArray, spec: ActionSpec) -> FloatArray:
    axes = spec.coordinate_indices[:2]
    down, points = pressed(blocks, spec), blocks[..., axes]
    shift, found = clear_shift(*_boxes(points, down), rectangles, spec)
    first = points[np.arange(len(points)), down.argmax(axis=1)]
    tap_shift, _ = clear_shift(first, first, rectangles, spec)
    points = np.where(found[:, None, None], points + shift[:, None], (first + tap_shift)[:, None])
    shifted = blocks.copy()
    shifted[..., axes] = np.where(down[..., None], points, 0.0)
    return shifted
