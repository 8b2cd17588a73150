"""However many processes solve the problems, the results are the same but for the times."""

import gc
import sys
import threading
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
from builders.race import Dying, worker_settings, write_world_model

from vj2_ddim_benchmark.planners.registry import planners_of
from vj2_ddim_benchmark.race.folder import RaceFolder, gather, todo_list
from vj2_ddim_benchmark.race.records import Record, read_records
from vj2_ddim_benchmark.race.workers import import_ray, in_this_process, over_processes, over_ray
from vj2_ddim_plugin.errors import ConfigError, VJ2DDIMError

PLANNERS = ("random", "descent", "blurred")
NUM_PROBLEMS = 4


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = write_world_model(tmp_path_factory.mktemp("workers") / "world_model.pt")
    (descent,) = planners_of(["gradient-descent-adam-10"])
    (random,) = planners_of(["random-gestures-16"])
    planners = (
        random.variant("random"),
        descent.variant("descent"),
        random.variant("blurred", goal_noise=0.5),
    )
    tuned = {"random": {}, "descent": {"lr": 0.05, "start": "centre"}, "blurred": {}}
    return worker_settings(path, planners, tuned, NUM_PROBLEMS)


@pytest.fixture(scope="module")
def alone(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    return solve(out, in_this_process(settings.make()))


def solve(out, executor, workers=1):
    return gather(
        RaceFolder(out), PLANNERS, (None,), NUM_PROBLEMS, executor, kind=Record, workers=workers
    )


def timeless(records):
    """Without what may differ: the times, and how many worked beside."""
    return [replace(record, wall_ms=0.0, workers=0) for record in records]


def test_several_processes_give_what_one_gives(settings, alone, tmp_path):
    records = solve(tmp_path, over_processes(settings, 2), workers=2)
    assert timeless(records) == timeless(alone)
    assert {record.workers for record in records} == {2}
    assert read_records(tmp_path / "results.jsonl", Record) == records  # in the same order
    assert set(RaceFolder(tmp_path).read_cold()) == set(PLANNERS)
    assert any(a.final_cost != b.final_cost for a, b in zip(alone[::3], alone[1::3], strict=True))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_worker_that_dies_is_told_and_fewer_workers_go_on(settings, alone, tmp_path):
    """What was solved is kept, and the rest is made by one worker where two were too many."""
    with pytest.raises(ConfigError, match=r"one of 2 workers died.* again, with fewer workers"):
        solve(tmp_path, over_processes(Dying(settings, 3), 2), workers=2)
    kept = read_records(tmp_path / "results.jsonl", Record)
    assert timeless(kept) == timeless(alone)[: len(kept)]
    records = solve(tmp_path, in_this_process(settings.make()))
    assert timeless(records) == timeless(alone)
    assert [r.workers for r in records] == [2] * len(kept) + [1] * (len(alone) - len(kept))


def test_what_a_worker_raises_is_raised_here(settings, tmp_path):
    lost = replace(settings, world_model=tmp_path / "nothing.pt")
    with pytest.raises(VJ2DDIMError, match=r"nothing\.pt"):
        solve(tmp_path, over_processes(lost, 1))


def test_nothing_to_do_starts_nothing(settings):
    before = threading.active_count()
    lost = replace(settings, world_model=None)
    assert list(over_processes(lost, 4)([])) == []
    assert threading.active_count() == before


def test_a_missing_ray_names_the_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'vj2-ddim-benchmark\[ray\]'"):
        import_ray()


@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_gives_what_one_process_gives(settings, alone, tmp_path):
    pytest.importorskip("ray")
    records = solve(tmp_path / "run", over_ray(settings, "local", 2))
    assert timeless(records) == timeless(alone)
    assert list(over_ray(settings, "local")([])) == []
    lost = replace(settings, world_model=tmp_path / "nothing.pt")
    with pytest.raises(VJ2DDIMError, match=r"nothing\.pt"):
        list(over_ray(lost, "local")(todo_list(PLANNERS, (None,), 1)))
    with warnings.catch_warnings():  # Ray does not wait for the processes that it ends
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1:1", "refused"), ("ray://127.0.0.1:1", "refused"),
                            ("nowhere", "expected HOST:PORT"), ("", "expected HOST:PORT"),
                            ("a:²", "expected HOST:PORT")],
)  # fmt: skip
def test_a_cluster_that_does_not_answer_is_named(settings, monkeypatch, address, reason):
    never = SimpleNamespace(is_initialized=lambda: False, init=None)  # which must not be called
    monkeypatch.setitem(sys.modules, "ray", never)
    with pytest.raises(ConfigError, match=f"cannot join the Ray cluster '{address}'.*{reason}"):
        list(over_ray(settings, address)(todo_list(PLANNERS, (None,), 1)))
