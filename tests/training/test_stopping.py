"""Signals that stop a training, the lock of what it writes, and a disk that is full."""

import errno
import signal
import subprocess
import sys
import threading

import pytest
from builders.runs import EPOCH, Line, make_loop
from builders.training import make_settings, write_data

from vj2_ddim_plugin.errors import ConfigError, VJ2DDIMError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_training import processes
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.processes import locked, stop_signals
from vj2_ddim_training.resumable import run_resumably
from vj2_ddim_training.run import train_run
from vj2_ddim_training.run_folder import RunFolder, Tracker


def from_a_thread():
    """As Weights & Biases does when a run is stopped on its page."""
    main = threading.main_thread().ident
    thread = threading.Thread(target=signal.pthread_kill, args=(main, signal.SIGINT))
    thread.start()
    thread.join()


STOPS = {
    "SIGINT": (lambda: signal.raise_signal(signal.SIGINT), KeyboardInterrupt, None),
    "SIGTERM": (lambda: signal.raise_signal(signal.SIGTERM), SystemExit, 143),
    "SIGHUP": (lambda: signal.raise_signal(signal.SIGHUP), SystemExit, 129),
    "wandb": (from_a_thread, KeyboardInterrupt, None),
}


@pytest.mark.parametrize("how", STOPS)
def test_every_stop_keeps_the_last_whole_step(tmp_path, how, caplog):
    stop, kind, code = STOPS[how]
    handlers = [signal.getsignal(number) for number in processes.STOPS]
    write_data(tmp_path / "data")
    settings = make_settings(tmp_path, evaluate_every=5)
    with pytest.raises(kind) as caught:
        train_run(settings, lambda done, total, line: stop() if done == EPOCH - 1 else None)
    assert getattr(caught.value, "code", None) == code
    saved = load_checkpoint(settings.save_dir / "checkpoint.pt")
    assert (saved.training["step"], saved.training["epoch"]) == (EPOCH - 1, 0)
    assert not (settings.save_dir / "run.lock").exists()
    assert "stopped after step 2" in caplog.text
    assert [signal.getsignal(number) for number in processes.STOPS] == handlers


@pytest.mark.parametrize("how", STOPS)
def test_every_training_of_the_loop_stops_alike(tmp_path, how):
    stop, kind, _ = STOPS[how]
    loop = make_loop(Line())
    loop.progress = lambda done, total, line: stop() if done == 4 else None
    with pytest.raises(kind):
        run_resumably(loop, tmp_path / "state", {})
    run_resumably(other := make_loop(Line()), tmp_path / "state", {})
    assert (loop.step, other.step) == (4, 3 * EPOCH)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_signal_that_is_ignored_or_taken_stays_so():
    heard = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    taken = signal.signal(signal.SIGTERM, lambda *_: heard.append("host"))
    try:
        with stop_signals():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
        assert heard == ["host"]
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, taken)


RACE = """
import sys
from pathlib import Path
from vj2_ddim_plugin.errors import ConfigError, VJ2DDIMError
from vj2_ddim_training.processes import locked
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    try:
        with locked(Path("lock")):
            with open("held", "x"): pass
            Path("held").unlink()
            print("held", flush=True)
    except ConfigError as error:
        assert "in use" in str(error)
"""


def test_of_many_starts_at_once_one_holds_the_lock(tmp_path):
    """The lock file goes and comes back, and each holder looks whether there is another."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    several = [subprocess.Popen([sys.executable, "-c", RACE], **pipes) for _ in range(6)]
    for process in several:
        assert process.stdout.readline() == "ready\n"
    for process in several:
        process.stdin.write("\n")
        process.stdin.flush()
    outcomes = [process.communicate()[0] for process in several]
    assert [process.returncode for process in several] == [0] * len(several)
    assert sum(outcome.count("held") for outcome in outcomes) >= 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"),
                                   OSError(errno.EROFS, "Read-only file system"),
                                   NotImplementedError("no flock")])  # fmt: skip
def test_a_file_system_without_locks_is_a_named_error(tmp_path, monkeypatch, error):
    def refuse(lock, timeout):
        raise error

    monkeypatch.setattr(processes.FileLock, "acquire", refuse)
    with pytest.raises(ConfigError, match=r"run.lock: cannot be locked.*save_dir"):
        RunFolder(tmp_path / "run").claim(resume=False, overwrite=False).__enter__()


def test_two_trainings_of_one_state_file(tmp_path):
    with locked(tmp_path / "state.lock"), pytest.raises(ConfigError, match="is in use"):
        run_resumably(make_loop(Line()), tmp_path / "state", {})


@pytest.mark.parametrize("what", ["run.json", "metrics.jsonl", "pictures", "checkpoint.pt"])
def test_a_full_disk_names_the_file_and_keeps_what_was_there(tmp_path, monkeypatch, what):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    broken = {
        "run.json": ("pathlib.Path.write_text", full),
        "metrics.jsonl": ("vj2_ddim_training.run_folder.finite", full),
        "pictures": ("matplotlib.figure.Figure.savefig", full),
        "checkpoint.pt": ("torch.save", full),
    }
    write_data(tmp_path / "data")
    settings = make_settings(tmp_path, picture_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(*broken[what])
        with pytest.raises(VJ2DDIMError, match=rf"No space left.*{what}|{what}.*No sp"):
            train_run(settings)
    assert not (settings.save_dir / "run.lock").exists()


def test_an_output_on_a_full_disk_is_named(tmp_path):
    said = r"plan\.npy: cannot be written \(No space left on device\)"
    with pytest.raises(OSError, match=said), atomic_path(tmp_path / "plan.npy"):
        raise OSError(errno.ENOSPC, "No space left on device")


TORN = [
    b'{"epoch": 2, "st',
    b'{"epoch": 2}',
    b"[2]",
    b"7",
    b"\x00\xff",
    b'{"step": 3}',
    b"[" * 99999,
]


@pytest.mark.parametrize("torn", TORN)
def test_a_line_of_metrics_that_was_cut_off(tmp_path, torn, caplog):
    folder = RunFolder(tmp_path)
    whole = b'{"epoch": 1, "step": 3}\n'
    folder.metrics.write_bytes(whole + torn)
    tracker = Tracker(folder, {}, TrainingConfig(wandb_mode="disabled"), resume=True)
    tracker.forget_after(1)
    assert folder.metrics.read_bytes() == whole
    tracker.forget_after(3)
    assert "of 3 epochs, 1 are there" in caplog.text
