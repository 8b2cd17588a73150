"""`vj2-ddim benchmark reading`: shuffled transitions, against loading whole files for each batch.

The latter is the data set as it is usually written by hand: a batch's file is opened and loaded by
`file["embeddings"][:]`, and its transitions are taken out of it. It is given all it can gain: every
batch is of one file, in turn. Both hand over float32, of files that the machine has in its cache.
"""

import multiprocessing
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil

from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.settings import ReadingSpeedSettings
from vj2_ddim_benchmark.timing import take_turns
from vj2_ddim_plugin.cli.console import print_table, say
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.config import ModelConfig, RunSettings, TrainingConfig
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.data.trajectories import open_trajectories
from vj2_ddim_training.run import train_run

SPEC = ActionSpec(min_press_steps=1, max_press_steps=None, representation="raw")
READERS = ("plain loop", "h5", "pairs")
LOOKED_EVERY_S = 0.02  # at the memory


def reading(settings: ReadingSpeedSettings, json_file: Path | None) -> None:
    """Read batches of shuffled transitions in turns with a plain loop, and measure memory."""
    measured = measure_reading(settings)
    keys = ("examples_per_s", "ratio", "processor_ratio", "memory_mb")
    rows = [
        (name, *(f"{of[key]:,.1f}" for key in keys)) for name, of in measured["readers"].items()
    ]
    shape = [settings.trajectories, settings.num_steps, settings.num_tokens, settings.width]
    title = f"{settings.num_files} files of {shape} {settings.dtype}, {settings.batch_size} a batch"
    heading = ("reader", "examples/s", "times the plain loop", "in processor time", "memory MB")
    print_table(rows, heading, title=title, numbers=True)
    run = measured["run"]
    say(
        f"a training run over {run['gigabytes']:.1f} GB peaks at {run['memory_mb']:,.0f} MB, over "
        f"one file at {run['memory_of_one_file_mb']:,.0f} MB, both above an idle process"
    )
    write_json(json_file, measured)


def measure_reading(settings: ReadingSpeedSettings) -> dict[str, Any]:
    """Examples a second of each reader, medians of the turns; and the memory that each took."""
    use_threads(settings.threads)
    with tempfile.TemporaryDirectory(dir=settings.folder) as name:
        folder = Path(name)
        write_files(folder, settings)
        runs = [(reader, READER[reader](folder, settings)) for reader in READERS]
        seconds = take_turns(runs, 1 + settings.num_batches)
        wall, processor = (
            {reader: float(np.median(of[1:])) for reader, of in seconds[clock].items()}
            for clock in ("wall", "processor")
        )
        readers = {
            reader: {
                "examples_per_s": settings.batch_size / wall[reader],
                "ratio": wall["plain loop"] / wall[reader],
                "processor_ratio": processor["plain loop"] / processor[reader],
                "memory_mb": _alone(_some_batches, reader, folder, settings)[0],
            }
            for reader in READERS
        }
        run = {
            "gigabytes": settings.file_bytes * settings.num_files * settings.links / 1e9,
            "memory_mb": _alone(_train, folder / "many", settings)[0],
            "memory_of_one_file_mb": _alone(_train, folder / "one", settings)[0],
        }
    return {
        "readers": readers,
        "run": run,
        "settings": {**settings.to_dict(), "folder": None},
        "environment": environment(),
    }


def write_files(folder: Path, settings: ReadingSpeedSettings) -> None:
    """The same trajectories as HDF5, a state a chunk, as pairs, and as HDF5 many times over."""
    rng, num = np.random.default_rng(0), settings.trajectories
    for kind in ("h5", "pairs", "many", "one"):
        (folder / kind).mkdir()
    for i in range(settings.num_files):
        shape = (num, settings.num_steps, settings.num_tokens, settings.width)
        embeddings = rng.standard_normal(shape, np.float32).astype(settings.dtype)
        actions = generate_gestures(num * (shape[1] - 1), rng=rng).reshape(num, -1, 250, 3)
        path = folder / "h5" / f"{i:05d}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("embeddings", data=embeddings, chunks=(1, 1, *shape[2:]))
            file.create_dataset("actions", data=actions)
        for number in range(num):
            stem = f"{i:05d}_traj_{number:05d}"
            np.save(folder / "pairs" / f"{stem}_emb.npy", embeddings[number])
            np.save(folder / "pairs" / f"{stem}_act.npy", actions[number])
        if i == 0:
            (folder / "one" / path.name).hardlink_to(path)
        for link in range(settings.links):
            (folder / "many" / f"{i:05d}_{link:05d}.h5").hardlink_to(path)


def _plain(folder: Path, settings: ReadingSpeedSettings) -> Callable[[int], object]:
    files = sorted((folder / "h5").iterdir())

    def batch(turn: int) -> object:
        rng = np.random.default_rng(turn)
        with h5py.File(files[turn % len(files)]) as file:
            embeddings, actions = file["embeddings"][:], file["actions"][:]
        i = rng.integers(len(embeddings), size=settings.batch_size)
        t = rng.integers(embeddings.shape[1] - 1, size=settings.batch_size)
        both = (embeddings[i, step].astype(np.float32) for step in (t, t + 1))
        return *both, actions[i, t].astype(np.float32)

    return batch


def _ours(kind: str) -> Callable[[Path, ReadingSpeedSettings], Callable[[int], object]]:
    def reader(folder: Path, settings: ReadingSpeedSettings) -> Callable[[int], object]:
        data = open_trajectories(folder / kind, SPEC)

        def batch(turn: int) -> object:
            rng = np.random.default_rng(turn)
            return data.gather(rng.integers(len(data), size=settings.batch_size))

        return batch

    return reader


READER = {"plain loop": _plain, "h5": _ours("h5"), "pairs": _ours("pairs")}


def _some_batches(reader: str, folder: Path, settings: ReadingSpeedSettings) -> None:
    batch = READER[reader](folder, settings)
    for turn in range(settings.num_batches):
        batch(turn)


def _train(folder: Path, settings: ReadingSpeedSettings) -> None:
    """A run of the default model as `vj2-ddim train` makes it, of a few steps."""
    with tempfile.TemporaryDirectory() as save_dir:
        files = len(list(folder.iterdir()))
        total = files * settings.trajectories * (settings.num_steps - 1)
        share = min(1.0, settings.train_steps * settings.batch_size / total)
        how: dict[str, Any] = {"num_epochs": 1, "epoch_share": share, "wandb_mode": "disabled"}
        how |= {"batch_size": settings.batch_size, "num_threads": settings.threads}
        train_run(
            RunSettings(
                data_dir=folder,
                val_data_dir=folder,
                save_dir=Path(save_dir),
                model=ModelConfig(condition="latents"),
                training=TrainingConfig(**how),
            )
        )


def _alone(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:  # noqa: ANN401
    """What it returns in a process of its own, and what memory that took at its peak, in MB.

    Its own readers count too; memory that processes share is counted once.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # whose workers may start readers
        return pool.submit(_measured, work, *arguments).result()


def _measured(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:  # noqa: ANN401
    before, peak, ended = _memory_mb(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(LOOKED_EVERY_S):
            peak = max(peak, _memory_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = work(*arguments)
    finally:
        ended.set()
        watcher.join()
    return max(peak, _memory_mb()) - before, found


def _memory_mb() -> float:
    """Proportional set size of this process and of all that it started."""
    this = psutil.Process()
    total = 0
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.Error):  # one that has just ended
            total += process.memory_full_info().pss
    return total / 2**20
