"""`BrowserTouch-v0`: a page of a mobile UI kit in a browser, to be brought into a goal state."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vj2_ddim_benchmark.browser.chromium import BrowserError
from vj2_ddim_benchmark.browser.episode import pictures
from vj2_ddim_benchmark.browser.oracle import Problem, draw_problem
from vj2_ddim_benchmark.browser.pages import Page
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.browser.task_oracle import TaskProblem, draw_task_problem
from vj2_ddim_benchmark.browser.tasks import Snapshot, TaskSession, session_of, state_of
from vj2_ddim_benchmark.settings import PAGES
from vj2_ddim_benchmark.world.layouts import require_split, seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.touch import NUM_STEPS
from vj2_ddim_plugin.errors import ConfigError

PURPOSE = 5  # keeps the randomness apart from that of the touch screen


class BrowserTouchEnv(gymnasium.Env[Images, NDArray[np.float32]]):
    """A page to be brought into a goal state, by the action blocks of the touch screen.

    Observations are pictures, uint8 `[size, size, 3]`; actions are blocks, float32 `[250, 3]` of x,
    y, press in [0, 1] at 500 Hz. The reward is 1 in the goal state, which ends the episode, and 0
    elsewhere. `info` holds `state` and `goal_state` (int `[5]`, -1 where a widget is absent), the
    `goal`'s picture, `state_distance` (values apart) and `lost`: the browser failed, and nobody
    knows what the action did. The episode is truncated then, with the last picture and state that
    are known; the next `reset` starts another browser.

    The split (`"train"`, `"validation"` or `"test"`) says whose pages to draw, the size how many
    pixels wide and high; a `ConfigError` says what is wrong with them or not installed. With
    `pages="miniwob"` they are tasks of MiniWoB++, all or those named in `tasks`: states are then
    int `[3]` (task, seed, hash of the picture), and `state_distance` is 0 where the goal is reached
    within the task's tolerance, else 1.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(
        self, split: str = "train", size: int = 64, render_mode: str | None = None,
        pages: str = "kit", tasks: Sequence[str] = (),
    ) -> None:  # fmt: skip
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode must be 'rgb_array' or None; found {render_mode!r}")
        if pages not in PAGES:
            raise ConfigError(f"pages must be one of {', '.join(PAGES)}; found {pages!r}")
        require_split(split)
        self.tasks = tuple(tasks)
        self.split, self.size, self.render_mode = split, size, render_mode
        self.session = session_of(pages, size)
        self.problem: Problem | TaskProblem | None = None
        self._picture = self._goal = np.zeros((size, size, 3), np.uint8)
        self._seen: Any = None  # a state, or all that is seen of a task
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (NUM_STEPS, 3), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Start on a fresh page, one gesture from its goal, or on a given one.

        The seed seeds this and all later resets. Options are `page` (a `Page`), `state` and
        `goal_state` (int `[5]`), or none; others are a `ConfigError`. A `BrowserError` says that
        several browsers one after another did not show the page.
        """
        super().reset(seed=seed)
        if options and isinstance(self.session, Session):
            problem: Problem | TaskProblem = _problem_of(options)
        elif options:
            raise ConfigError(f"tasks of MiniWoB++ take no options; found {sorted(options)}")
        else:
            rng = seeded(self.split, int(self.np_random.integers(2**31)), PURPOSE)
            if isinstance(self.session, TaskSession):
                problem = draw_task_problem(self.session, self.split, rng, self.tasks)
            else:
                problem = draw_problem(self.split, rng)
        self._goal, self._picture = pictures(self.session, problem)
        self.problem = problem
        self._seen = problem.state if isinstance(problem, Problem) else None
        return self._picture.copy(), self._info(problem)

    def step(self, action: NDArray[np.float32]) -> tuple[Images, float, bool, bool, dict[str, Any]]:
        """Perform one action block, `[250, 3]`; another shape is an `ActionError`."""
        if self.problem is None:
            raise ConfigError("the episode is over or has not begun; call reset first")
        try:
            self._picture, self._seen = self.session.touch(action)
        except BrowserError:
            problem, self.problem = self.problem, None
            return self._picture.copy(), 0.0, False, True, self._info(problem, lost=True)
        info = self._info(self.problem)
        reached = info["state_distance"] == 0
        return self._picture.copy(), float(reached), reached, False, info

    def render(self) -> Images | None:
        """The picture `[size, size, 3]`, or None without a render mode."""
        return self._picture.copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the browser."""
        self.session.close()

    def _info(self, problem: Problem | TaskProblem, lost: bool = False) -> dict[str, Any]:
        if isinstance(problem, TaskProblem):
            state, goal = (state_of(problem.task, each) for each in (self._picture, self._goal))
            distance = float(not (isinstance(self._seen, Snapshot) and problem.reached(self._seen)))
        else:
            state, goal = self._seen, problem.goal
            distance = problem.page.distance(state, goal)
        return {
            "state": state.copy(),
            "goal_state": goal.copy(),
            "goal": self._goal.copy(),
            "state_distance": distance,
            "lost": lost,
        }


def _problem_of(options: dict[str, Any]) -> Problem:
    page = options.get("page")
    if set(options) != {"page", "state", "goal_state"} or not isinstance(page, Page):
        raise ConfigError(
            f"options must hold a Page as 'page', its 'state' and its 'goal_state'; found "
            f"{sorted(options)}"
        )
    return Problem(page, page.checked(options["state"]), page.checked(options["goal_state"]))
