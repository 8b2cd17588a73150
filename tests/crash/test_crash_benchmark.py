"""A race that is killed at any moment goes on with all that was finished."""

import json
import random
from dataclasses import replace

import pytest
from builders.fuzz import MOMENTS
from builders.killed import Commands
from builders.race import write_world_model

from vj2_ddim_benchmark.race.records import ChainRecord, Record, read_records
from vj2_ddim_plugin.files import SCRATCH

SKETCHED = """
from functools import partial
from vj2_ddim_benchmark import benchmark
from vj2_ddim_benchmark.race import tasks
from vj2_ddim_benchmark.report import page, pictures
from vj2_ddim_plugin.files import atomic_path

def sketch(path, *what):
    with atomic_path(path) as temporary:
        temporary.write_bytes(next(iter(page.SIGNATURES[path.suffix[1:]])))

page.draw_success = page.draw_study = benchmark.animate_record = sketch
pictures.draw_landscape = pictures.draw_plans = sketch
benchmark.stop_distance_of = partial(tasks.stop_distance_of, num_pairs=40)
"""
"""To draw, and to look at pairs of screens, is most of a small race."""

RACE = ["benchmark", "run", "--world-model", "world_model.pt", "--num-problems", 3, "--threads", 1]
RACE += ["--planners", "random-gestures-16,gradient-descent-sgd-10", "--chains", 1]
RACE += ["--chain-planners", "random-gestures-16"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def command(root):
    write_world_model(root / "world_model.pt")
    commands = Commands(root, *RACE, "--out", "first", "--num-problems", 1, first=SKETCHED)
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def whole(root, command):
    status, seconds, said = command(*RACE, "--out", "whole")
    assert status == 0, said
    return root / "whole", seconds


def finished(folder):
    """The records of the race and of its chains, times aside."""
    files = ((folder / "results.jsonl", Record), (folder / "chains" / "results.jsonl", ChainRecord))
    return [
        [replace(each, wall_ms=[] if kind is ChainRecord else 0.0) for each in found]
        for path, kind in files
        if path.exists()
        for found in [read_records(path, kind)]
    ]


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_and_started_again(root, command, whole, moment):
    expected, seconds = whole
    folder, chosen = root / f"run_{moment}", random.Random(moment)
    kept = []
    for _ in range(2):
        status, _, said = command(*RACE, "--out", folder, life=chosen.uniform(0.0, 1.1 * seconds))
        assert status in (-9, 0), said
        for path in folder.rglob("*.json"):
            if not path.parent.name.startswith(SCRATCH):
                json.loads(path.read_text())  # whole, or not there
        kept.append(finished(folder) if folder.exists() else [])
    status, _, said = command(*RACE, "--out", folder)
    assert status == 0, said
    assert finished(folder) == finished(expected)
    for before, after in zip(kept, [*kept[1:], finished(folder)], strict=True):
        for some, more in zip(before, after, strict=False):
            assert some == more[: len(some)]  # what was finished stays, and is not done again
    names = [{path.relative_to(each) for path in each.rglob("*")} for each in (folder, expected)]
    assert names[0] == names[1]


def test_a_disk_that_fills_is_named_and_the_race_goes_on(root, command, whole):
    folder = root / "full"
    status, _, said = command(*RACE, "--out", folder, largest=3_000)
    assert status == 1, said
    assert "Traceback" not in said
    assert str(folder) in said
    status, _, said = command(*RACE, "--out", folder)
    assert status == 0, said
    assert finished(folder) == finished(whole[0])
