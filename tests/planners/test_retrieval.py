"""Retrieval against brute force."""

import numpy as np
import pytest
from builders.planners import SPEC, Known

from vj2_ddim_benchmark.planners import retrieval as module
from vj2_ddim_benchmark.planners.description import PlannerAssets
from vj2_ddim_benchmark.planners.registry import retrieval
from vj2_ddim_benchmark.planners.retrieval import FEATURES, Memory, RetrievalOptimizer, features_of
from vj2_ddim_benchmark.world.policies import random_policy
from vj2_ddim_plugin.errors import ConfigError, ContextError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.testing import QuadraticCost
from vj2_ddim_training.data.trajectories import write_trajectories_h5

NUM = 60
KNOWN = Known()
ASKED_STATE, ASKED_GOAL = np.random.default_rng(9).normal(size=(2, 5, 4, 3)).astype(np.float32)


def brute_force(kind, row):
    """Squared distances in float64, in plain loops over the transitions."""
    state, goal = ASKED_STATE[row].astype(float), ASKED_GOAL[row].astype(float)
    distances = []
    for before, after in zip(KNOWN.state.astype(float), KNOWN.goal.astype(float), strict=True):
        if kind == "both":
            distances.append(((before - state) ** 2).sum() + ((after - goal) ** 2).sum())
        else:
            distances.append((((after - before) - (goal - state)) ** 2).sum())
    return np.argsort(distances)


def context(rows=slice(None)):
    return {"state": ASKED_STATE[rows], "goal": ASKED_GOAL[rows]}


@pytest.mark.parametrize("kind", FEATURES)
def test_the_nearest_are_those_of_brute_force(kind):
    found = Memory.of(KNOWN, kind).nearest(ASKED_STATE, ASKED_GOAL, 7)
    for row in range(5):
        np.testing.assert_array_equal(found[row], brute_force(kind, row)[:7])


def test_the_kinds_differ_as_they_should():
    """A shift of both states by the same latents is the same difference, but far in both."""
    far = KNOWN.state + 50.0, KNOWN.goal + 50.0
    found = Memory.of(KNOWN, "difference").nearest(*far, 1)[:, 0]
    assert (found == np.arange(NUM)).mean() > 0.95  # adding 50 and taking it away costs digits
    found = Memory.of(KNOWN, "both").nearest(KNOWN.state, KNOWN.goal, 1)[:, 0]
    np.testing.assert_array_equal(found, np.arange(NUM))


def test_without_a_cost_the_nearest_is_done():
    result = RetrievalOptimizer(SPEC, Memory.of(KNOWN)).optimize(PlanningProblem(context()))
    expected = [KNOWN.actions[brute_force("both", row)[0]] for row in range(5)]
    np.testing.assert_array_equal(result.actions, expected)
    assert np.isnan(result.cost).all()
    assert result.num_cost_evaluations == 0
    assert result.history.shape == (0, 5)


@pytest.mark.parametrize("kind", FEATURES)
def test_with_a_cost_the_cheapest_of_the_nearest_is_done(kind):
    cost = QuadraticCost(random_policy(5, np.random.default_rng(3))[:, None])
    planner = RetrievalOptimizer(SPEC, Memory.of(KNOWN, kind), num_neighbours=8)
    result = planner.optimize(PlanningProblem(context(), cost))
    near = np.stack([KNOWN.actions[brute_force(kind, row)[:8]] for row in range(5)])
    costs = cost(near)
    np.testing.assert_array_equal(result.actions, near[np.arange(5), costs.argmin(axis=1)])
    np.testing.assert_array_equal(result.cost, costs.min(axis=1))
    assert result.num_cost_evaluations == 40


def test_transitions_are_read_chunk_by_chunk(monkeypatch):
    whole = Memory.of(KNOWN)
    monkeypatch.setattr(module, "ROWS_PER_CHUNK", 25)
    known = Known()
    memory = Memory.of(known)
    assert known.chunks == [1, 25, 25, 10]
    np.testing.assert_array_equal(memory.features, whole.features)
    np.testing.assert_array_equal(memory.actions, whole.actions)


def test_memory_is_bounded_by_taking_a_random_part():
    row = 24 * 4 + 750 * 4
    memory = Memory.of(KNOWN, max_bytes=20 * row + row // 2, seed=1)
    assert len(memory.actions) == 20
    assert memory.features.nbytes + memory.actions.nbytes == 20 * row
    whole = features_of(KNOWN.state, KNOWN.goal, "both")
    index = [int(np.flatnonzero((whole == f).all(axis=1))[0]) for f in memory.features]
    assert len(set(index)) == 20
    assert index != list(range(20))  # not simply the first ones
    np.testing.assert_array_equal(memory.actions, KNOWN.actions[index])
    other = Memory.of(KNOWN, max_bytes=20 * row, seed=2)
    assert (other.features != memory.features).any()


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="no transition"):
        Memory.of(KNOWN, max_bytes=100)
    with pytest.raises(ConfigError, match="no transitions"):
        Memory.of(Known(0))
    with pytest.raises(ConfigError, match="'cosine' are unknown"):
        Memory.of(KNOWN, "cosine")
    memory = Memory.of(KNOWN)
    for num in (0, NUM + 1):
        with pytest.raises(ConfigError, match="num_neighbours"):
            RetrievalOptimizer(SPEC, memory, num_neighbours=num)
    planner = RetrievalOptimizer(SPEC, memory)
    with pytest.raises(ContextError, match=r"\['goal'\]"):
        planner.optimize(PlanningProblem({"state": ASKED_STATE}))
    wide = np.zeros((1, 5, 3), np.float32)
    with pytest.raises(ContextError, match="30 features"):
        planner.optimize(PlanningProblem({"state": wide, "goal": wide}))


def test_it_is_built_from_the_training_split(tmp_path):
    rng = np.random.default_rng(4)
    embeddings = rng.normal(size=(3, 3, 4, 3)).astype(np.float32)
    actions = random_policy(6, rng).reshape(3, 2, 250, 3)
    splits = {"train": range(2), "validation": range(2, 3)}
    write_trajectories_h5(tmp_path, embeddings, actions, splits, layer_normed=False)
    entry = retrieval(1)
    assert not entry.with_cost
    planner = entry.build(PlannerAssets(SPEC, latents=tmp_path), {"features": "difference"})
    assert (planner.memory.kind, len(planner.memory.actions)) == ("difference", 4)
    asked = PlanningProblem({"state": embeddings[1:2, 1], "goal": embeddings[1:2, 2]})
    np.testing.assert_array_equal(planner.optimize(asked).actions[0], actions[1, 1])
