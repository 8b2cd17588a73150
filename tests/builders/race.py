"""Hand-made results, a small world model, and planners and worlds whose answers are known."""

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from builders.training import vj2_ddim
from vj2_ddim_benchmark.planners.description import PlannerAssets
from vj2_ddim_benchmark.race.records import ChainRecord, Record
from vj2_ddim_benchmark.race.workers import WorkerSettings
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoders import PatchEncoder
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.cli.app import COMMANDS, Command
from vj2_ddim_plugin.interface import PlanResult
from vj2_ddim_plugin.spec import ActionSpec

PLAN = Record("ddim", 0, "switch", True, True, 0.5, 10.0, 16, 160, None, "finished", 0.0, "CPU")
RECORDS = [
    PLAN,
    replace(PLAN, problem=1, kind="keypad", success=False, final_cost=1.5, wall_ms=20.0),
    replace(PLAN, problem=2, wall_ms=30.0),
    replace(
        PLAN, problem=3, kind="keypad", wall_ms=40.0, success_before_projection=False,
        final_cost=2.0,
    ),
    *(
        replace(
            PLAN, planner="gd", problem=i, kind="keypad" if i % 2 else "switch", success=i == 1,
            success_before_projection=None,
        )
        for i in range(4)
    ),
]  # fmt: skip
CHAIN = ChainRecord(
    "ddim", 0, 2, True, True, 0.0, None, [10.0, 30.0], 32, 320, [0.5, 0.25, 0.0],
    [[3.0, 40.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], []], [[1, 2], [1, 3]],
)  # fmt: skip
CHAINS = [
    CHAIN,
    replace(CHAIN, problem=1, length=3, wall_ms=[20.0, 20.0, 20.0], strokes=[[]] * 3),
    replace(CHAIN, problem=2, length=3, success=False, state_distance=2.0),
    replace(CHAIN, problem=3, success=False, stopped=False, wall_ms=[], strokes=[], states=[]),
    replace(CHAIN, planner="gd", success=False, stopped=False, state_distance=1.0),
]


def benchmark(*arguments):
    """`vj2-ddim benchmark`, be the distribution installed or not; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMMANDS, "benchmark", Command("vj2_ddim_benchmark.commands:app", "", ""))
        return vj2_ddim("benchmark", *arguments)


def cells_of(table):
    """The rows of a table, each a tuple of text."""
    return [tuple(row) for row in table.itertuples(index=False)]


def write_world_model(path, seed=0):
    """An untrained one that does not predict the same for every action."""
    pictures = TouchScreen.generate(40, split="train", seed=seed).render()
    torch.manual_seed(seed)
    encoder = PatchEncoder.fit(pictures, patch_size=8, token_dim=32)
    model = WorldModel(WorldModelConfig(width=32, num_layers=1, num_heads=2), encoder)
    torch.nn.init.normal_(model.predictor.write.weight, std=0.1)
    model.eval().save(path)
    return path


def latents_of(frames):
    return frames.reshape(len(frames), 1, -1).astype(np.float32)


class Seeing:
    """A world model whose latents are the pictures."""

    def encode(self, frames):
        return latents_of(frames)


def answer(actions, num=1, projection=0.0, cost=0.0):
    """A result of `num` problems that says it asked for 5 costs and denoised 9 rows."""
    zeros = np.zeros(num)
    return PlanResult(
        actions, zeros + cost, zeros[None], 5, 9, {"total": 0.0}, "fake", "finished",
        zeros + projection,
    )  # fmt: skip


def worker_settings(world_model, planners, tuned, num_problems, **changes):
    settings = {
        "planners": tuple(planners),
        "tuned": tuned,
        "world_model": world_model,
        "assets": PlannerAssets(ActionSpec(), None, 1, 0),
        "num_problems": num_problems,
        "split": "validation",
        "budgets": (None,),
    }
    return WorkerSettings(**{**settings, **changes})


@dataclass(frozen=True)
class Dying:
    """Settings whose worker dies at a problem, as one that is killed for want of memory."""

    settings: WorkerSettings
    problem: int

    @property
    def assets(self):
        return self.settings.assets

    def make(self):
        worker = self.settings.make()
        solve = worker.solve
        worker.solve = lambda todo: os._exit(1) if todo.problem == self.problem else solve(todo)
        return worker
