"""What `benchmark reading` says of readers and of their memory. No timing is asserted."""

import mmap
import subprocess
import sys
import time

import pytest

from vj2_ddim_benchmark.settings import ReadingSpeedSettings
from vj2_ddim_benchmark.timing import reading

HOLDS_100_MB = "held = bytearray(100 * 2**20); held[::4096] = b'1' * 25600; print(); input()"


def hold_in_another_process():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_100_MB], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        held = mmap.mmap(-1, 50 * 2**20, mmap.MAP_PRIVATE)  # not what an allocator has left over
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        looked = reading._memory_mb()
        time.sleep(0.3)  # until it was looked at
        process.communicate(b"\n")
    held.close()
    return None, looked


def test_memory_is_that_of_all_processes_at_its_peak_and_no_more_afterwards():
    for _ in range(20):  # another test's process leaves its share of libraries to us, or takes one
        before = reading._memory_mb()
        more, (_, looked) = reading._measured(hold_in_another_process)
        after = reading._memory_mb()
        if max(abs(looked - before - 155), after - before) < 15:
            break
    assert looked - before == pytest.approx(155, abs=15)  # and what Python itself takes
    assert more >= looked - before - 15
    assert after - before < 15


def test_every_reader_is_measured_and_a_run_over_all_files(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_alone", reading._measured)
    trained = []
    monkeypatch.setattr(
        reading, "_train", lambda folder, _: trained.append(len([*folder.iterdir()]))
    )
    sizes = dict(num_files=2, trajectories=3, num_steps=3, num_tokens=4, width=8, batch_size=4)
    small = ReadingSpeedSettings(**sizes, num_batches=1, links=2, train_steps=1, folder=tmp_path)
    measured = reading.measure_reading(small)
    assert list(measured["readers"]) == list(reading.READERS)
    assert measured["readers"]["plain loop"]["ratio"] == 1.0
    assert trained == [2 * 2, 1]  # many files, and one
    embeddings = 3 * 3 * 4 * 8 * 2
    assert measured["run"]["gigabytes"] == pytest.approx(2 * 2 * embeddings / 1e9)
    assert not list(tmp_path.iterdir())
