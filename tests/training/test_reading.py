"""Data read ahead by processes of their own: the same run, and errors that keep their words."""

import multiprocessing
import os
import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.runs import assert_equal, assert_same_run
from builders.training import (
    COSINE_V,
    make_examples,
    make_settings,
    make_spec,
    measure_the_loss_alone,
    press,
    write_data,
)

from vj2_ddim_plugin.errors import DataError, TrainingError
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.data.trajectories import open_trajectories, write_trajectories_h5
from vj2_ddim_training.examples import TransitionExamples
from vj2_ddim_training.loop import ShuffledTask
from vj2_ddim_training.reading import ReadAhead, ShareReader, num_readers
from vj2_ddim_training.run import train_run

LENGTH, NUM = 8, 12


@pytest.fixture
def transitions(tmp_path, monkeypatch):
    """Latents that are read from their files, batch by batch."""
    rng = np.random.default_rng(0)
    actions = np.stack([press(2, 6, *rng.random((2, 2)), length=LENGTH) for _ in range(NUM)])
    latents = rng.standard_normal((NUM // 2, 3, 4, 5), np.float32)
    splits = {"train": range(NUM // 2), "validation": []}
    blocks = actions.reshape(-1, 2, LENGTH, 3)
    write_trajectories_h5(tmp_path / "t", latents, blocks, splits, layer_normed=False)
    monkeypatch.setattr("vj2_ddim_training.examples.MOST_BYTES_IN_MEMORY", 0)
    spec = make_spec("raw", LENGTH, min_press_steps=1)
    return TransitionExamples(open_trajectories(tmp_path / "t", spec), spec)


def reader_of(examples, config=None, **share):
    order = ShuffledTask(len(examples), 1.0, 5, 2, 0)
    return ShareReader(order, examples, COSINE_V, config or TrainingConfig(), **share)


def test_workers_read_what_the_process_itself_reads(transitions):
    read = reader_of(transitions)
    ahead = ReadAhead(read, stop=6, num_workers=4)
    for step in (0, 1, 2, 3, 4, 5, 2):  # and once more from the midst
        assert_equal([*map(plain, ahead(step))], [*map(plain, read(step))])
    ahead.close()


def plain(share):
    return share._replace(draws=dict(share.draws._asdict()))._asdict()


def test_a_reader_that_is_spawned_reads_the_same(transitions):
    read = pickle.loads(pickle.dumps(reader_of(transitions)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(first_state, (read,))
    np.testing.assert_array_equal(found, first_state(reader_of(transitions)))


def first_state(read):
    return read(0)[0].inputs["state"].numpy()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shares_of_several_processes_are_the_batch(count):
    config = TrainingConfig(noises_per_example=2, accumulate=2)
    examples = make_examples(11)
    (whole,) = reader_of(examples, replace(config, accumulate=1))(2)
    shares = [
        share
        for index in range(count)
        for share in reader_of(examples, config, index=index, count=count)(2)
        if share.weight
    ]
    assert sum(share.weight for share in shares) == pytest.approx(1.0)
    for name in ("original", "inputs", "draws"):
        found = [getattr(share, name) for share in shares]
        wanted = getattr(whole, name)
        if name == "original":
            assert torch.equal(torch.cat(found), wanted)
        elif name == "inputs":
            assert torch.equal(torch.cat([each["sketch"] for each in found]), wanted["sketch"])
        else:
            for part, all_of in zip(zip(*found, strict=True), wanted, strict=True):
                assert torch.equal(torch.cat(part), all_of)


def test_a_run_does_not_depend_on_its_readers(tmp_path, monkeypatch):
    measure_the_loss_alone(monkeypatch)
    write_data(tmp_path / "data")
    train_run(make_settings(tmp_path, num_workers=0))
    train_run(replace(make_settings(tmp_path, num_workers=2), save_dir=tmp_path / "ahead"))
    for name in ("run", "ahead"):
        file = tmp_path / name / "checkpoint.pt"
        content = torch.load(file, weights_only=True)
        content["training"]["config"]["num_workers"] = None
        torch.save(content, file)
    assert_same_run(tmp_path / "ahead", tmp_path / "run")


def test_an_error_of_data_keeps_its_words(transitions, tmp_path):
    read = reader_of(transitions)
    ahead = ReadAhead(read, stop=6, num_workers=1)
    (tmp_path / "t" / "train_00000.h5").write_bytes(b"no longer")
    with pytest.raises(DataError, match=r"train_00000\.h5") as alone:
        read(0)
    with pytest.raises(DataError, match=r"train_00000\.h5") as found:
        ahead(0)
    assert str(found.value).splitlines() == str(alone.value).splitlines()


class Deadly:
    def __call__(self, step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step


def test_a_reader_that_dies_is_named():
    ahead = ReadAhead(Deadly(), stop=6, num_workers=1)
    with pytest.raises(TrainingError, match=r"reads data died .*num_workers=0"):
        list(map(ahead, range(6)))


def test_readers_are_started_where_data_lie_in_files(transitions, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)))
    assert num_readers(TrainingConfig(), make_examples(2)) == 0
    assert num_readers(TrainingConfig(), transitions) == 4
    assert num_readers(TrainingConfig(num_workers=9), transitions) == 9
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert num_readers(TrainingConfig(), transitions) == 2
