"""A training among other processes: the signals that stop it, and the lock of what it writes."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["hold_interrupts", "locked", "stop_signals"]

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
STOPS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


@contextmanager
def stop_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP stop what runs here as Ctrl-C does, with status 128 + their number.

    One that is ignored already (`nohup`), or handled by the host, stays so. Weights & Biases' stop
    is a Ctrl-C.
    """
    taken = [number for number in STOPS if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        taken = []  # Python delivers no signals there
    for number in taken:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextmanager
def hold_interrupts() -> Iterator[list[int]]:
    """Hold Ctrl-C and its like back until the block is done, so that it changes all or nothing.

    Gives the block those that came. Outside the main thread, where Python delivers no signals, this
    does nothing.
    """
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    handlers = [signal.signal(each, lambda number, frame: held.append(number)) for each in STOPS]
    try:
        yield held
    finally:
        for number, handler in zip(STOPS, handlers, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if held:
            signal.raise_signal(held[0])


@contextmanager
def locked(lock: Path, another: str = "place to write to") -> Iterator[None]:
    """Hold a lock of the operating system, which frees it when a process dies; `ConfigError`."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{lock.parent} is in use by the running process {_owner(lock)}. Give another "
            f"{another}, or wait for it to finish ({lock} is its lock)"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise ConfigError(
            f"{lock}: cannot be locked ({error}). Give another {another}: one that can be written "
            f"to, on a file system that has locks"
        ) from error
    try:
        with suppress(OSError):  # for the message above alone
            lock.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        with suppress(OSError):  # Windows cannot remove an open file, and need not
            lock.unlink()
        held.release()


def _owner(lock: Path) -> str:
    """The process that holds a lock, as it says itself."""
    with suppress(OSError, ValueError):
        return lock.read_text(encoding="ascii").strip() or "(not known)"
    return "(not known)"
