"""What `vj2-ddim train --judge pages` asks while it trains: how many goals are reached on pages."""

from contextlib import closing
from pathlib import Path

import numpy as np

from vj2_ddim_benchmark.assets.success import shares_of
from vj2_ddim_benchmark.browser.episode import pictures, reaches
from vj2_ddim_benchmark.browser.oracle import draw_problem
from vj2_ddim_benchmark.browser.session import Session
from vj2_ddim_benchmark.settings import SHIPPED_PAGES
from vj2_ddim_benchmark.world.layouts import seeded
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.validation import SuccessMeasure

PURPOSE = 13  # keeps the randomness apart from that of data with the same seed
SEED, SPLIT = 0, "validation"


def pages_success(world_model: str = "", num_problems: int = 150) -> SuccessMeasure:
    """Measures the share of goals that one sample of a model reaches on unseen pages, by touch.

    Args:
        world_model: The file of the one whose latents the model is trained on; the shipped one's
            if empty.
        num_problems: Validation pages, one gesture from their goal; they are seen only once.

    Returns:
        Called with a model, it touches the pages and returns `success`, and that by kind of widget.

    Raises:
        BrowserError: A browser failed again and again.
        ConfigError: Browser or kit are missing.
    """
    sees = WorldModel.load(Path(world_model) if world_model else SHIPPED_PAGES / "world_model.pt")
    size, rng = sees.config.screen_size, seeded(SPLIT, SEED, PURPOSE)
    problems = [draw_problem(SPLIT, rng) for _ in range(num_problems)]
    with closing(Session(size)) as session:
        seen = [sees.encode(np.stack(pictures(session, problem))) for problem in problems]

    def success(model: DiffusionModel) -> dict[str, float]:
        optimizer, reached = DDIMOptimizer(TorchSampler(model), num_candidates=1), []
        with closing(Session(size)) as session:
            for row, (goal, state) in enumerate(seen):
                context = {"state": state[None], "goal": goal[None]}
                plan = optimizer.optimize(PlanningProblem(context, None, seed=SEED + row))
                reached.append(reaches(session, problems[row], plan.actions[0]))
        return shares_of(np.array(reached), np.array([problem.kind for problem in problems]))

    return success
