"""What a whole data set is like, seen part by part: nothing is decided by its first rows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures import PATH_TOLERANCE, coarse_rounding, decode, encode, pressed
from vj2_ddim_plugin.gestures.segments import count_segments, longest_segment
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["ActionSurvey", "infer_action_spec", "moments_of", "usable_std"]

KNOT_CHOICES = (2, 3, 5, 9)
LEAST_DISPLACEMENT = 0.1  # unit of displacements, where touches hardly move
LEAST_STD = 0.05  # of a feature, as a share of the root mean square of all features' stds
LEAST_CHANGE = 1e-5  # that is no rounding, as a share of the values themselves


class ActionSurvey:
    """Press lengths, and the representations that invert, of all blocks that it is shown.

    Paths are tried with these numbers of knots, the fewest first.
    """

    def __init__(self, template: ActionSpec, knots: Sequence[int] = KNOT_CHOICES) -> None:
        self.template = template
        any_press: dict[str, Any] = {"min_press_steps": 0, "max_press_steps": None}
        any_press |= {"path_knots": None, "representation": "raw"}
        self._block = replace(template, horizon=1, **any_press)
        self.num_blocks = 0
        self.shortest, self.longest = template.action_block, 0
        self._moved, self._num_moved = 0.0, 0  # sum of squares, in halves of the ranges
        self.rounded = False  # whether a block inverts only up to what float16 rounds
        self._knots = [number for number in knots if number <= template.action_block]
        self._why: dict[str, str] = {}  # a representation does not invert

    def look(self, actions: FloatArray, where: str = "", *, limits: bool = True) -> None:
        """Look at blocks of `[n, L, A]` that lie in `where`.

        Without `limits`, as for held-out data, they do not count for the lengths of presses.
        """
        spec = self._block
        blocks = actions.reshape(-1, spec.action_block, spec.num_channels)
        self.num_blocks += len(blocks)
        if spec.press_channel is None or not len(blocks):
            return
        down = pressed(blocks, spec)
        start, stop = longest_segment(down)
        if limits:
            self.shortest = min(self.shortest, int((stop - start).min()))
            self.longest = max(self.longest, int((stop - start).max()))
            self._measure_displacements(blocks, down)
        segments = count_segments(down)
        if "path" not in self._why and (segments != 1).any():
            found = segments[segments != 1][0]
            words = "has no press" if found == 0 else f"has {found} presses"
            self._why["path"] = f"a block {words}{where and f' ({where})'}"
        while "path" not in self._why:
            shape: dict[str, Any] = {
                "path_knots": self._knots[0],
                "min_press_steps": self._knots[0],
            }
            bad = self._not_inverted(blocks, replace(spec, representation="path", **shape))
            if bad is None:
                break
            if len(self._knots) == 1:
                self._why["path"] = _fault_of(bad, spec, "a path is curved", where)
            del self._knots[:1]
        if "held" not in self._why:
            bad = self._not_inverted(blocks, replace(spec, representation="held"))
            if bad is not None:
                self._why["held"] = _fault_of(bad, spec, "a block has several presses", where)

    def _measure_displacements(self, blocks: FloatArray, down: NDArray[np.bool_]) -> None:
        """How far the touches of `[n, T, A]` reach along each coordinate."""
        axes, spec = self._block.coordinate_indices, self._block
        half = (spec.high_array - spec.low_array)[axes] / 2
        values, touched = blocks[..., axes] / half, np.expand_dims(down, -1)
        highest = np.max(values, axis=1, where=touched, initial=-np.inf)
        lowest = np.min(values, axis=1, where=touched, initial=np.inf)
        reach = np.where(touched.any(axis=1), highest - lowest, 0.0)
        self._moved += float(np.square(reach, dtype=np.float64).sum())
        self._num_moved += reach.size

    def displacement_scale(self) -> float:
        """The unit in which a path's displacements are as wide as places drawn evenly.

        Their root mean square, as far as a touch's reach tells it, is that of a uniform number of
        [-1, 1] then. In tenths, and no less than `LEAST_DISPLACEMENT`.
        """
        if not self._num_moved:
            return 1.0
        each = math.sqrt(self._moved / self._num_moved) / (self._knots[0] - 1)
        return round(min(max(math.sqrt(3.0) * each, LEAST_DISPLACEMENT), 1.0), 1)

    def _not_inverted(self, blocks: FloatArray, spec: ActionSpec) -> FloatArray | None:
        """The first of the blocks that does not come back from being diffused, or None."""
        span = spec.high_array - spec.low_array
        drift = np.abs(decode(encode(blocks, spec), spec) - blocks) / span
        bad = np.flatnonzero(drift.max(axis=(1, 2)) > PATH_TOLERANCE)
        within = drift[bad] <= PATH_TOLERANCE + coarse_rounding(blocks[bad], spec) / span
        fine = within.all(axis=(1, 2))
        self.rounded |= bool(fine.any())
        return blocks[bad[~fine][0]] if not fine.all() else None

    def spec(self, representation: str, displacement_scale: float | None = None) -> ActionSpec:
        """The template with what was seen: press lengths, knots, representation, its units.

        `auto` is the best representation that inverts exactly: `path` for straight and piecewise
        linear gestures, else `held`, else `raw`. One that cannot hold the actions is an
        `ActionError`.
        """
        template = self.template
        if template.press_channel is None:
            return replace(template, representation="raw", path_knots=None)
        longest = max(self.longest, 1)
        shortest = min(self.shortest, longest)
        with_settings = partial(
            replace, template, min_press_steps=shortest, max_press_steps=longest
        )
        if "path" not in self._why and shortest < self._knots[0]:
            self._why["path"] = f"a press of {shortest} steps has no {self._knots[0]} knots"
        if representation == "auto":
            kinds = (kind for kind in ("path", "held") if kind not in self._why)
            representation = next(kinds, "raw")
        if representation in self._why:
            raise ActionError(
                f"representation {representation!r} cannot hold these actions exactly: "
                f"{self._why[representation]}. Use representation 'auto' or 'raw'"
            )
        knots = None if "path" in self._why else self._knots[0]
        scale = displacement_scale if representation == "path" else 1.0
        scale = self.displacement_scale() if scale is None else scale
        return with_settings(
            representation=representation, path_knots=knots, displacement_scale=scale
        )

    def summary(self, spec: ActionSpec) -> str:
        """What was seen and chosen, and why, in one line."""
        seen = f"{self.num_blocks:,} action blocks"
        if spec.press_channel is None:
            names = ", ".join(spec.channels)
            return f"{seen} of {names}: no channel is named press, so they are no touches"
        why = "".join(f"; not {kind}: {fault}" for kind, fault in self._why.items())
        if spec.path_knots:
            why = f", {spec.path_knots} knots" + why
        if spec.displacement_scale != 1.0:
            why += f"; displacements in units of {spec.displacement_scale:g}"
        if self.rounded:
            why += "; what float16 rounds is allowed for"
        return (
            f"{seen}, presses of {self.shortest} to {self.longest} steps: representation "
            f"{spec.representation}{why}"
        )


def infer_action_spec(actions: FloatArray, representation: str, template: ActionSpec) -> ActionSpec:
    """`ActionSurvey.spec` of actions `[n, L, A]` that are all in memory."""
    survey = ActionSurvey(template)
    survey.look(actions)
    return survey.spec(representation)


def _fault_of(block: FloatArray, spec: ActionSpec, else_: str, where: str) -> str:
    """What is wrong with a block `[T, A]` that does not invert."""
    press, down = block[:, spec.press_index], pressed(block, spec)
    strange = press[np.abs(press - down) > PATH_TOLERANCE]
    hovering = np.abs(block[~down][:, spec.coordinate_indices]) > PATH_TOLERANCE
    fault = else_
    if len(strange):
        fault = f"press is {strange[0]:g} where it should be 0 or 1"
    elif hovering.any():
        fault = "coordinates are not 0 where the finger is up"
    return fault + (f" ({where})" if where else "")


def moments_of(parts: Iterable[Any]) -> tuple[FloatArray, FloatArray]:
    """Mean and population standard deviation `[D]` of all of `[..., D]`, in one pass.

    The deviation may be divided by, see `usable_std`. Chan et al. (1983), "Algorithms for computing
    the sample variance", equation 2.1.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for part in parts:
        rows = np.asarray(part, np.float64).reshape(-1, part.shape[-1])
        if not len(rows):
            continue
        here = rows.mean(axis=0)
        off = here - mean
        total = count + len(rows)
        squares = squares + np.square(rows - here).sum(axis=0) + off**2 * count * len(rows) / total
        mean, count = mean + off * len(rows) / total, total
    return mean, usable_std(np.sqrt(squares / max(count, 1)), mean)


def usable_std(std: FloatArray, mean: FloatArray) -> FloatArray:
    """Standard deviations `[D]` that may be divided by.

    A feature that is dead, or nearly so, counts as one of a twentieth of the others' spread (the
    root mean square of all): its drift must not drown them. Where all are dead, nothing is scaled.
    """
    spread, size = (float(np.sqrt(np.mean(np.square(each)))) for each in (std, mean))
    if spread <= LEAST_CHANGE * size or spread == 0.0:
        return np.ones_like(std)
    return np.maximum(std, LEAST_STD * spread)
