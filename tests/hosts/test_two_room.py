"""Inside the published host: `World(...).evaluate(...)` on TwoRoom with our solver and its own.

The bundle is untrained and so is the world model: this is about plumbing, not about success.
"""

import numpy as np
import pytest
import torch
from builders.hosts import LATENT
from stable_worldmodel.solver import CEMSolver

from vj2_ddim_benchmark.two_room import ENVIRONMENT, evaluation, import_stable_worldmodel
from vj2_ddim_benchmark.two_room.episodes import Recording, collect_episodes, load_positions
from vj2_ddim_benchmark.two_room.evaluation import EvaluationSettings
from vj2_ddim_benchmark.two_room.lewm import LeWMConfig, WorldModel, build_lewm
from vj2_ddim_benchmark.two_room.rules import choose_pairs
from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver

NUM_ENVS = 3
CASES = [(warm, block) for warm in (True, False) for block in (1, 5)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Twenty episodes of the host's expert."""
    return collect_episodes(tmp_path_factory.mktemp("run"), "tiny", Recording("test", 1.0, 20, 5))


@pytest.fixture
def make_world_model():
    def make(action_block):
        torch.manual_seed(1)
        config = LeWMConfig(
            patch_size=32, width=16, encoder_depth=1, predictor_depth=1, num_heads=2,
            embedding_width=LATENT, projection_width=16, action_block=action_block,
        )  # fmt: skip
        model = build_lewm(config).eval().requires_grad_(False)
        return WorldModel(model, config, np.zeros(2, np.float32), np.ones(2, np.float32))

    return make


def watched(patch):
    """Every action that the policy hands to the environments, from now on."""
    actions, policy = [], import_stable_worldmodel().policy.WorldModelPolicy
    get_action = policy.get_action

    def noting(this, info, **kwargs):
        actions.append(get_action(this, info, **kwargs).copy())
        return actions[-1].copy()

    patch.setattr(policy, "get_action", noting)
    return actions


def run(solver, world_model, recording, warm_start, block):
    settings = EvaluationSettings(
        goal_offset=10,
        eval_budget=8 * block if block == 1 else 12,
        horizon=10 // block,
        receding_horizon=1,
        action_block=block,
        warm_start=warm_start,
    )
    manifest = choose_pairs(load_positions(recording), NUM_ENVS, 0, settings.goal_offset)
    timed = evaluation.OneByOne(solver)
    policy = evaluation.policy_of(timed, world_model, settings)
    routes = evaluation.evaluate(policy, recording, manifest, settings)
    assert [route[0] for route in routes] == [pair.start for pair in manifest.pairs]
    return timed.seconds


def ours(bundle, model, **settings):
    settings = {"num_candidates": 4, "num_inference_steps": 2, **settings}
    return StableWorldModelSolver(str(bundle), model, provider="cpu", num_threads=1, **settings)


@pytest.mark.parametrize(("warm_start", "block"), CASES)
def test_our_solver_in_the_hosts_evaluation(
    recording, bundle, make_world_model, monkeypatch, warm_start, block
):
    """Every action finite and in bounds; the same seed gives the same run to the last bit."""
    world_model, runs = make_world_model(block), []
    for _ in range(2):
        actions = watched(monkeypatch)
        seconds = run(ours(bundle, world_model.model), world_model, recording, warm_start, block)
        monkeypatch.undo()
        assert len(seconds) >= NUM_ENVS * 2
        runs.append(np.stack(actions))
    alive = ~np.isnan(runs[0]).all(axis=-1)
    assert alive[0].all()
    assert np.isfinite(runs[0][alive]).all()
    assert np.abs(runs[0][alive]).max() <= 1
    np.testing.assert_array_equal(*runs)


def test_warm_start_reaches_the_solver(recording, bundle, make_world_model):
    """With it, every plan but the first of an environment has a start of the rest's length."""
    world_model = make_world_model(5)
    for warm_start in (True, False):
        solver = ours(bundle, world_model.model)
        starts = []
        solve = solver.solve

        def noting(info, init_action=None, solve=solve, starts=starts):
            starts.append(None if init_action is None else tuple(init_action.shape))
            return solve(info, init_action)

        solver.solve = noting
        run(solver, world_model, recording, warm_start, 5)
        assert starts[:NUM_ENVS] == [None] * NUM_ENVS
        assert set(starts[NUM_ENVS:]) == ({(1, 1, 10)} if warm_start else {None})


def test_the_hosts_own_solver_in_the_same_place(recording, make_world_model):
    world_model = make_world_model(5)
    solver = CEMSolver(world_model.model, num_samples=8, n_steps=2, topk=4)
    assert len(run(solver, world_model, recording, True, 5)) >= NUM_ENVS


def test_all_environments_in_one_call(recording, bundle, make_world_model):
    """One call for three environments gives what three calls give."""
    world_model = make_world_model(5)
    host = import_stable_worldmodel()
    rng = np.random.default_rng(0)
    info = {
        name: torch.tensor(rng.standard_normal((3, 1, 3, 64, 64)), dtype=torch.float32)
        for name in ("pixels", "goal")
    }
    info["action"] = torch.zeros(3, 1, 2)
    solver = ours(bundle, world_model.model)
    config = host.PlanConfig(horizon=2, receding_horizon=1, action_block=5)
    world = host.World(ENVIRONMENT, num_envs=3, image_shape=(64, 64))
    solver.configure(action_space=world.envs.action_space, n_envs=3, config=config)
    together = solver(info)
    alone = evaluation.OneByOne(solver).solve(info)
    torch.testing.assert_close(together["actions"], alone["actions"])
