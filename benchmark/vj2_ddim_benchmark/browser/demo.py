"""Pictures to look at: goals reached in a browser by scripted gestures."""

from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from vj2_ddim_benchmark.browser.film import Shot, save_film
from vj2_ddim_benchmark.browser.oracle import draw_problem, perform, ways_to
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.pictures import draw_gesture
from vj2_ddim_plugin.files import atomic_path

PURPOSE = 8
SIZE, SHOWN_MS = 320, 900
COLUMNS = 2  # problems beside each other on the sheet


def draw_goals(folder: Path, *, num: int, split: str, seed: int) -> int:
    """Reach goals, and write `goals.png`, a sheet, and `goals.gif` into a folder.

    Each problem is a start with the gesture drawn over it, what came of it, and the goal. Returns
    how many were reached.
    """
    rng, reached = seeded(split, seed, PURPOSE, num=num), 0
    rows: list[list[Images]] = []
    with closing(Session(SIZE)) as session:
        for _ in range(num):
            problem = draw_problem(split, rng)
            goal = session.show(problem.page, problem.goal)
            start = session.show(problem.page, problem.state)
            ways = ways_to(problem)
            index, way = ways[rng.integers(len(ways))]
            action = perform(way, session.boxes()[index], rng)
            after, state = session.touch(action)
            reached += np.array_equal(state, problem.goal)
            rows.append([draw_gesture(start, action), after, goal])
    rows += [[np.zeros_like(rows[0][0])] * 3] * (-num % COLUMNS)
    lines = [np.concatenate(row, axis=1) for row in rows]
    sheet = [
        np.concatenate(lines[first : first + COLUMNS], axis=1)
        for first in range(0, len(lines), COLUMNS)
    ]
    with atomic_path(folder / "goals.png") as temporary:
        Image.fromarray(np.concatenate(sheet)).save(temporary, "PNG")
    pictures = (Image.fromarray(picture) for row in rows[:num] for picture in row[:2])
    save_film(folder / "goals.gif", [Shot(picture, SHOWN_MS) for picture in pictures])
    return reached
