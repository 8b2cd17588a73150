"""A headless Chromium of one's own, spoken to through two pipes in its DevTools protocol.

It listens on no port, and ends with the process that started it: it exits when its pipes close. Its
profile is locked by that process, so that whoever starts a browser next removes what was left.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import VJ2DDIMError
from vj2_ddim_plugin.process import tell_of_forks

START_TIMEOUT_S = 30.0  # a first start reads 200 MB from the disk
PROFILE, LOCK = "vj2-ddim-profile-", "owner"  # a folder's prefix, and what in it is locked
ABOVE_THEIRS = 10  # descriptors from here on are none of those that the browser gets
FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "mute-audio"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
    *("disable-extensions", "disable-breakpad", "hide-scrollbars", "force-color-profile=srgb"),
    # A frame is drawn when it is asked for, whole, and by one thread.
    *("enable-begin-frame-control", "run-all-compositor-stages-before-draw"),
    *("disable-threaded-animation", "disable-threaded-scrolling", "disable-checker-imaging"),
    *("disable-image-animation-resync", "enable-surface-synchronization"),
    *("disable-new-content-rendering-timeout", "disable-partial-raster"),
    "disable-features=WaitForLateScrollEvents",
    "host-resolver-rules=MAP * ~NOTFOUND",  # no name leads anywhere
    "remote-debugging-pipe",
)

Message = dict[str, Any]


class BrowserError(VJ2DDIMError, RuntimeError):
    """A browser that cannot be started, has ended or hangs, or a page that threw."""


class PageError(BrowserError):
    """A page that threw: it would throw again."""


class Chromium:
    """One browser process; after a `BrowserError` it is to be closed, and another started."""

    timeout_s = 3.0  # a browser that says nothing for so long is taken for hung

    def __init__(self, binary: Path | str, scale: float = 1.0) -> None:
        """Start it.

        Args:
            binary: The program itself; a script around it would not hand the pipes on.
            scale: Pixels of a picture for each CSS pixel, across.

        Raises:
            BrowserError: It cannot be started, or says nothing.
        """
        self.on_event: Callable[[Message], None] = lambda event: None
        self._answers: dict[int, Message] = {}
        self._ignored: set[int] = set()
        self._last_id, self._buffer = 0, b""
        profile, lock = _own_profile()
        (theirs_in, self._writer), (self._reader, theirs_out) = os.pipe(), os.pipe()
        os.set_blocking(self._writer, False)
        try:
            self.pid = _spawn(str(binary), theirs_in, theirs_out, profile, scale)
        except OSError as error:
            _release(None, (self._writer, self._reader, lock), profile)
            raise BrowserError(f"{binary}: cannot be started ({error.strerror})") from error
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._ends = self._writer, self._reader, lock
        self._end = weakref.finalize(self, _release, self.pid, self._ends, profile)
        tell_of_forks(self)
        try:
            self.wait(self.send("Browser.getVersion"), START_TIMEOUT_S)
        except BrowserError as error:
            said = (profile / "log").read_text(errors="replace").strip()[-500:]
            self.close()
            raise BrowserError(f"{binary}: {error}; it said: {said or 'nothing'}") from error

    def send(self, method: str, session: str | None = None, **parameters: object) -> int:
        """Send a command, to a page's session or the browser; returns the id to wait for."""
        if not self._end.alive:
            raise BrowserError("the browser has ended")
        self._last_id += 1
        message: Message = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        left = memoryview(json.dumps(message).encode() + b"\0")
        while len(left):
            if not select.select([], [self._writer], [], self.timeout_s)[1]:
                raise BrowserError("the browser reads nothing; it hangs")
            try:
                left = left[os.write(self._writer, left) :]
            except BlockingIOError:
                continue  # the pipe has room, but for less than is taken at once
            except OSError as error:
                raise BrowserError("the browser has ended") from error
        return self._last_id

    def tell(self, method: str, session: str | None = None, **parameters: object) -> None:
        """Send a command whose result nobody waits for."""
        self._ignored.add(self.send(method, session, **parameters))

    def wait(self, message_id: int, timeout_s: float | None = None) -> Message:
        """The result of a command; a `BrowserError` if it was refused or none comes in time."""
        deadline = time.monotonic() + (timeout_s or self.timeout_s)
        while message_id not in self._answers:
            self.read(deadline - time.monotonic())
        answer = self._answers.pop(message_id)
        if "error" in answer:
            raise BrowserError(f"the browser refused: {answer['error'].get('message')}")
        result: Message = answer["result"]
        return result

    def call(self, method: str, session: str | None = None, **parameters: object) -> Message:
        """Send a command and wait for its result."""
        return self.wait(self.send(method, session, **parameters))

    def answered(self, message_ids: Iterable[int], timeout_s: float) -> bool:
        """Whether all these commands are answered, now or within a time."""
        deadline = time.monotonic() + timeout_s
        while not self._answers.keys() >= set(message_ids):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reader], [], [], left)[0]:
                return False
            self.read(left)
        return True

    def read(self, timeout_s: float) -> None:
        """Wait for what the browser says next, and take it in; events go to `on_event`."""
        if not select.select([self._reader], [], [], max(timeout_s, 0.0))[0]:
            raise BrowserError("the browser does not answer; it hangs")
        read = os.read(self._reader, 1 << 20)
        if not read:
            raise BrowserError("the browser has ended")
        *messages, self._buffer = (self._buffer + read).split(b"\0")
        for message in map(json.loads, messages):
            if "id" not in message:
                self.on_event(message)
            elif message["id"] in self._ignored:
                self._ignored.remove(message["id"])
            else:
                self._answers[message["id"]] = message

    def close(self) -> None:
        """End the process and all that it started; more than once is fine."""
        self._end()

    def after_fork(self) -> None:
        """A forked process lets go of pipes and lock, so that they end with their owner."""
        if self._end.detach() is not None:
            for end in self._ends:
                os.close(end)


def _own_profile() -> tuple[Path, int]:
    """A new folder, and its lock, which ends with this process; what others left is removed."""
    for lock_file in Path(tempfile.gettempdir()).glob(f"{PROFILE}*/{LOCK}"):
        with suppress(OSError):  # its owner lives, or is another user
            lock = _locked(lock_file)
            shutil.rmtree(lock_file.parent, ignore_errors=True)
            os.close(lock)
    while True:
        profile = Path(tempfile.mkdtemp(prefix=PROFILE))
        with suppress(FileNotFoundError, BlockingIOError):  # removed before it was locked
            return profile, _locked(profile / LOCK, os.O_CREAT)


def _locked(file: Path, flags: int = 0) -> int:
    """Lock a file; an `OSError` where it is gone or another has locked it."""
    lock = os.open(file, os.O_RDWR | flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(file)
    except OSError:
        os.close(lock)
        raise
    return lock


def _spawn(binary: str, theirs_in: int, theirs_out: int, profile: Path, scale: float) -> int:
    """Start the program with the pipes as its files 3 and 4, in a process group of its own."""
    high = [
        fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, ABOVE_THEIRS) for end in (theirs_in, theirs_out)
    ]
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(profile / "log"), os.O_WRONLY | os.O_CREAT, 0o600),
        (os.POSIX_SPAWN_DUP2, high[0], 3),
        (os.POSIX_SPAWN_DUP2, high[1], 4),
    ]
    own = f"user-data-dir={profile}", f"force-device-scale-factor={scale:g}"
    flags = [f"--{flag}" for flag in (*FLAGS, *own)]
    try:
        return os.posix_spawn(
            binary, [binary, *flags], os.environ, file_actions=actions, setpgroup=0
        )
    finally:
        for end in high:
            os.close(end)


def _release(pid: int | None, ends: tuple[int, ...], profile: Path) -> None:
    """Kill the process group, close our ends of the pipes and the lock, remove the profile."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    for end in ends:
        os.close(end)
    shutil.rmtree(profile, ignore_errors=True)
