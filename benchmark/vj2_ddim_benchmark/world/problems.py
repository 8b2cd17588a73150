"""Problems: a screen, and the same after one touch, or after two to five, one a widget.

A third of the one-gesture problems are of multimodal kinds: the average of their gestures fails.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.policies import choose_slots, num_alike, touch_slots
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world.touch import NUM_STEPS, Actions
from vj2_ddim_benchmark.world.widgets import KINDS, SLOT_KINDS, SLOT_TOLERANCE, WIDGETS
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

PERIOD = 36  # problems after which the kinds come round again
LENGTHS = (2, 3, 4, 5)  # of chains
SPARE = 4  # screens drawn for each wanted: nearly always enough have what is asked of them
MOST_SPARE = 256
ONE_GESTURE, CHAIN = 1, 3  # purposes, which keep the randomness of one seed apart


@dataclass(frozen=True)
class Goals:
    """n screens, and the same screens in the states to reach."""

    start: TouchScreen
    goal: TouchScreen

    def __len__(self) -> int:
        """n."""
        return self.start.num_screens

    def select(self, rows: ArrayLike) -> "Goals":
        """Some of them."""
        return Goals(self.start.select(rows), self.goal.select(rows))


@dataclass(frozen=True)
class TrueCost:
    """How many gestures from its goal each candidate leaves a screen, which is its own model."""

    goals: Goals

    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """Cost `[B, K]` of candidates `[B, K, 250, 3]`."""
        batch, num = candidates.shape[:2]
        rows = np.repeat(np.arange(batch), num)
        ended = self.goals.start.select(rows).execute(candidates.reshape(-1, *candidates.shape[2:]))
        return ended.state_distance(self.goals.goal.state[rows]).reshape(batch, num)


@dataclass(frozen=True)
class Problems(Goals):
    """n goals that one gesture reaches."""

    kind: NDArray[np.str_]  # [n], the kind of widget that must be touched
    actions: Actions  # [n, 250, 3], a gesture that reaches each goal


@dataclass(frozen=True)
class Chains(Goals):
    """n goals that several gestures reach, and no fewer."""

    length: IntArray  # [n], how many widgets differ; one gesture changes one widget
    actions: Actions  # [n, 5, 250, 3] that reach each goal; all zero after its length


def one_gesture_problems(num: int, *, split: str, seed: int, size: int = 64) -> Problems:
    """Draw problems, in random order, of screens with pictures of `size` x `size` pixels.

    The same split and seed give the same. A third are multimodal; within that third and the rest,
    equally many (give or take one) are of each kind.
    """
    rng = seeded(split, seed, ONE_GESTURE, num=num)
    first = int(rng.integers(PERIOD)) if num < PERIOD else 0  # of few problems, not always the same
    index = np.arange(first, first + num)  # every third one of a multimodal kind, each in turn
    several = np.flatnonzero([widget.multimodal for widget in WIDGETS])
    single = np.flatnonzero([not widget.multimodal and widget.active for widget in WIDGETS])
    others = single[(index - index // 3) % len(single)]
    in_turn = np.where(index % 3 == 2, several[index // 3 % len(several)], others)
    kinds = rng.permutation(in_turn)
    pool, rows = screens_with(kinds, split, seed, size)
    start = pool.select(rows)
    actions = touch_slots(start, choose_slots(start, rng, kinds), rng)
    return Problems(start, start.execute(actions), np.array(KINDS)[kinds], actions)


def screens_with(kinds: IntArray, split: str, seed: int, size: int) -> tuple[TouchScreen, IntArray]:
    """Screens, and the row of a different one for each of `kinds` `[num]` that has that kind."""
    spare = SPARE
    while spare <= MOST_SPARE:
        pool = TouchScreen.generate(spare * len(kinds) + 32, split=split, seed=seed, size=size)
        present = pool.layout.num_states > 1
        available = [present[:, kind == SLOT_KINDS].any(axis=1) for kind in range(len(KINDS))]
        taken = np.zeros(pool.num_screens, bool)
        rows = np.full(len(kinds), -1)
        # The rarest kind chooses its screens first, so that no other takes them.
        for kind in np.argsort([mask.sum() for mask in available]):
            wanted = np.flatnonzero(kinds == kind)
            found = np.flatnonzero(available[kind] & ~taken)[: len(wanted)]
            rows[wanted[: len(found)]] = found
            taken[found] = True
        if (rows >= 0).all():
            return pool, rows
        spare *= 2
    missing = KINDS[kinds[rows < 0][0]]
    raise ConfigError(
        f"too few screens of the {split} split have a {missing}; ask for fewer problems"
    )


def chain_problems(num: int, *, split: str, seed: int, size: int = 64) -> Chains:
    """Draw chains in random order, equally many (give or take one) of each length."""
    rng = seeded(split, seed, CHAIN, num=num)
    pool = TouchScreen.generate(SPARE * num + 32, split=split, seed=seed, size=size)
    wanted = np.resize(LENGTHS, num)
    rows, length = assign_lengths((pool.layout.num_states > 1).sum(axis=1), wanted)
    order = rng.permutation(num)
    start, length = pool.select(rows[order]), length[order]
    actions, goal = _touch_in_turn(start, length, rng)
    differ = (np.abs(goal.state - start.state) > SLOT_TOLERANCE).sum(axis=1)
    if (differ != length).any():
        row = int(np.flatnonzero(differ != length)[0])
        raise ConfigError(
            f"chain {row} of split {split!r} and seed {seed} changed {differ[row]} widgets, not "
            f"{length[row]}: a widget's own strokes do not change its state; mend the widget"
        )
    return Chains(start, goal, length, actions)


def assign_lengths(num_active: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """A screen for each chain wanted, `[n]` lengths, and the length it gets, longest first.

    Screens have `num_active` `[m]` widgets that can change. The longest chains choose first, among
    the least able screens; a length falls only where no screen that is left has as many widgets.
    """
    able = np.flatnonzero(num_active >= LENGTHS[0])
    if len(able) < len(wanted):
        raise ConfigError(
            f"{len(wanted)} chains need as many screens with at least {LENGTHS[0]} widgets that "
            f"have more than one state; found {len(able)} among {len(num_active)}; ask for fewer"
        )
    left = list(able[np.argsort(num_active[able], kind="stable")])
    asked, rows = np.sort(wanted)[::-1], []
    for length in asked:
        place = int(np.searchsorted(num_active[left], length))
        rows.append(left.pop(min(place, len(left) - 1)))
    return np.array(rows), np.minimum(asked, num_active[rows])


def _touch_in_turn(
    start: TouchScreen, length: IntArray, rng: np.random.Generator
) -> tuple[Actions, TouchScreen]:
    """Gestures `[n, 5, 250, 3]` on different widgets, and the screens after them."""
    active = start.layout.num_states > 1
    weight = active / np.maximum(num_alike(active), 1)  # a rare kind is as likely as a common one
    # The largest of weight / exponential is a draw by weight, the second a draw from the rest.
    slots = np.argsort(-weight / rng.exponential(size=weight.shape), axis=1)
    actions = np.zeros((start.num_screens, max(LENGTHS), NUM_STEPS, 3), np.float32)
    screens = start
    for step in range(max(LENGTHS)):
        rows = np.flatnonzero(length > step)
        if len(rows):
            actions[rows, step] = touch_slots(screens.select(rows), slots[rows, step], rng)
            screens = screens.execute(actions[:, step])
    return actions, screens


class TouchScreenEnv(gymnasium.Env[Images, NDArray[np.float32]]):
    """A phone screen to be brought into a goal state.

    Observations are pictures, uint8 `[size, size, 3]`; actions are blocks, float32 `[250, 3]` of x,
    y, press in [0, 1] at 500 Hz. The reward is 1 in the goal state, which ends the episode, and 0
    elsewhere. `info` holds `state` and `goal_state` (int `[S]`), `goal` (the goal's picture) and
    `state_distance`.

    The split (`"train"`, `"validation"` or `"test"`) says whose layouts to draw, the size how many
    pixels wide and high; a `ConfigError` says what is wrong with them.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(
        self, split: str = "train", size: int = 64, render_mode: str | None = None
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode must be 'rgb_array' or None; found {render_mode!r}")
        self.split, self.size, self.render_mode = split, size, render_mode
        self.screen = self.goal = TouchScreen.generate(1, split=split, seed=0, size=size)
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (NUM_STEPS, 3), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Start on a fresh screen, one gesture from its goal, or on a given one.

        The seed seeds this and all later resets. Options are `screen` (a `TouchScreen` of one) and
        `goal_state` (int `[S]`), or none; others are a `ConfigError`.
        """
        super().reset(seed=seed)
        if options:
            self.screen, self.goal = _screen_and_goal(options, self.size)
        else:
            seed = int(self.np_random.integers(2**31))
            problem = one_gesture_problems(1, split=self.split, seed=seed, size=self.size)
            self.screen, self.goal = problem.start, problem.goal
        return self._observation(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Images, float, bool, bool, dict[str, Any]]:
        """Perform one action block, `[250, 3]`; another shape is an `ActionError`."""
        self.screen = self.screen.execute(np.asarray(action)[None])
        reached = bool(self.screen.matches(self.goal.state)[0])
        return self._observation(), float(reached), reached, False, self._info()

    def render(self) -> Images | None:
        """The picture `[size, size, 3]`, or None without a render mode."""
        return self._observation() if self.render_mode == "rgb_array" else None

    def _observation(self) -> Images:
        return np.asarray(self.screen.render()[0])

    def _info(self) -> dict[str, Any]:
        return {
            "state": self.screen.state[0].copy(),
            "goal_state": self.goal.state[0].copy(),
            "goal": self.goal.render()[0],
            "state_distance": float(self.screen.state_distance(self.goal.state)[0]),
        }


def _screen_and_goal(options: dict[str, Any], size: int) -> tuple[TouchScreen, TouchScreen]:
    screen = options.get("screen")
    if set(options) != {"screen", "goal_state"} or not isinstance(screen, TouchScreen):
        raise ConfigError(
            f"options must hold a TouchScreen as 'screen' and its 'goal_state'; found "
            f"{sorted(options)}"
        )
    if screen.num_screens != 1 or screen.size != size:
        raise ConfigError(
            f"options: screen must be one screen of size {size}; found {screen.num_screens} of "
            f"size {screen.size}"
        )
    return screen, screen.with_state(np.asarray(options["goal_state"])[None])
