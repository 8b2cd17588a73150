"""Files are written whole or not at all, and what is no file is never replaced by one."""

import os
import select
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vj2_ddim_plugin.errors import OutputError, VJ2DDIMError
from vj2_ddim_plugin.files import SCRATCH, atomic_path, write_json

KILLED = """
import os, signal, sys
from vj2_ddim_plugin.files import atomic_path
with atomic_path(sys.argv[1], folder=sys.argv[2] == "folder") as temporary:
    {body}
    os.kill(os.getpid(), signal.SIGKILL)
"""


def put(path, body, folder=False):
    with atomic_path(path, folder=folder) as temporary:
        assert folder or temporary.suffix == path.suffix
        body(temporary)


def write(path, text="new"):
    put(path, lambda temporary: temporary.write_text(text))


def fill_up(path):
    path.write_text("half")
    raise OSError(28, os.strerror(28))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def reader(path):
    """Collects what comes out of a fifo."""
    got = []
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(opened, True)

    def read():
        select.select([opened], [], [])  # until somebody writes: before, there is nothing to read
        with os.fdopen(opened, "rb") as stream:
            got.append(stream.read())

    thread = threading.Thread(target=read)
    return got, thread


class TestWhatIsThere:
    def test_links_are_followed_and_stay(self, tmp_path):
        (tmp_path / "far").mkdir()
        for name, before in (("file.txt", "old"), ("dangling.txt", None)):
            real, link = tmp_path / "far" / name, tmp_path / f"to-{name}"
            if before:
                real.write_text(before)
            link.symlink_to(f"far/{name}")
            (tmp_path / f"again-{name}").symlink_to(link)
            write(tmp_path / f"again-{name}")
            assert link.is_symlink()
            assert (tmp_path / f"again-{name}").is_symlink()
            assert not real.is_symlink()
            assert real.read_text() == "new"
        assert names(tmp_path / "far") == ["dangling.txt", "file.txt"]

    def test_a_link_to_a_folder_is_followed_by_a_folder(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "old").touch()
        (tmp_path / "link").symlink_to("real")
        with atomic_path(tmp_path / "link", folder=True) as temporary:
            (temporary / "new").touch()
        assert (tmp_path / "link").is_symlink()
        assert names(tmp_path / "real") == ["new"]
        assert names(tmp_path) == ["link", "real"]

    def test_a_fifo_is_written_to(self, tmp_path):
        os.mkfifo(fifo := tmp_path / "fifo.json")
        got, thread = reader(fifo)
        thread.start()
        write(fifo, text := "x" * 200_000)  # more than it holds at once
        thread.join(10)
        assert got == [text.encode()]
        assert stat.S_ISFIFO(fifo.stat().st_mode)

    def test_a_fifo_that_nobody_reads_is_no_endless_wait(self, tmp_path):
        os.mkfifo(fifo := tmp_path / "fifo")
        with pytest.raises(OutputError, match="fifo: nobody reads from it; start"):
            write(fifo)
        assert names(tmp_path) == ["fifo"]

    def test_a_device_is_written_to_and_stays(self, tmp_path):
        device = tmp_path / "null.json"
        try:
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            device.open("wb").close()
        except PermissionError:
            pytest.skip("needs the right to make a node")
        write_json(device, {"a": 1})
        assert stat.S_ISCHR(device.stat().st_mode)
        (tmp_path / "link").symlink_to(device)
        write(tmp_path / "link")
        assert stat.S_ISCHR(device.stat().st_mode)
        with pytest.raises(OutputError, match="is a file; name a folder"):
            put(device, print, folder=True)

    @pytest.mark.parametrize("goes_to", ["pipe", "file"])
    @pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr", "/dev/fd/1"])
    def test_the_standard_output_goes_on(self, tmp_path, goes_to, name):
        code = (
            "import sys; from vj2_ddim_plugin.files import write_json\n"
            "print('before', flush=True); write_json(sys.argv[1], [1])\nprint('after')"
        )
        log = tmp_path / "log"
        with open(log, "w") as stream:
            where = stream if goes_to == "file" else subprocess.PIPE
            done = subprocess.run(
                [sys.executable, "-c", code, name],
                stdout=where,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert (done.stdout or log.read_text()).split() == ["before", "[", "1", "]", "after"]

    @pytest.mark.parametrize(
        ("name", "folder", "message"),
        [
            ("folder", False, "folder is a folder; name a file"),
            ("to-folder", False, "to-folder is a folder; name a file"),
            ("file", True, "file is a file; name a folder that does not exist yet"),
            ("loop", False, r"loop: cannot be written \(Too many levels of symbolic links"),
            ("file/below", False, r"file/below: cannot be written \(Not a directory\)"),
            ("file/further/below", False, r"file/further/below: cannot be written"),
            ("socket", False, "socket is neither a file nor a folder; name another"),
            ("n" * 300, False, r"nnn: cannot be written \(File name too long\)"),
            ("/", True, "/ cannot be replaced as a whole"),
            ("", False, "is a folder; name a file"),
        ],
    )
    def test_nothing_is_replaced_that_must_not_be(self, tmp_path, name, folder, message):
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("kept")
        (tmp_path / "to-folder").symlink_to("folder")
        (tmp_path / "loop").symlink_to("loop")
        os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
        before = names(tmp_path)
        with pytest.raises(OutputError, match=message) as raised:
            put(tmp_path / name, lambda path: pytest.fail("not known where to"), folder)
        assert isinstance(raised.value, (VJ2DDIMError, OSError))
        assert names(tmp_path) == before
        assert (tmp_path / "file").read_text() == "kept"

    def test_a_name_as_long_as_names_may_be(self, tmp_path):
        write(tmp_path / ("n" * 250))
        assert names(tmp_path) == ["n" * 250]


class TestErrors:
    def test_what_fails_within_is_named_by_what_was_asked_for(self, tmp_path):
        target = tmp_path / "kept.npy"
        target.write_text("old")
        with pytest.raises(OutputError, match=r"kept.npy: cannot be written \(No space left"):
            put(target, fill_up)
        with pytest.raises(OutputError, match=r"kept.npy: cannot be written"):
            put(target, Path.read_text)
        with pytest.raises(FileNotFoundError, match="another") as raised:
            put(target, lambda path: (tmp_path / "another").read_text())
        assert not isinstance(raised.value, OutputError)
        assert target.read_text() == "old"
        assert names(tmp_path) == ["kept.npy"]

    def test_a_folder_comes_back_where_its_successor_cannot_be_placed(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").touch()
        with pytest.raises(OutputError, match="out: cannot be written"):
            put(tmp_path / "out", Path.rmdir, folder=True)
        with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "out", folder=True):
            1 / 0  # noqa: B018
        assert names(tmp_path / "out") == ["old"]
        assert names(tmp_path) == ["out"]


class TestWhatIsLeftBehind:
    def kill(self, path, what="file", body="temporary.write_text('half')"):
        code = KILLED.format(body=body)
        done = subprocess.run([sys.executable, "-c", code, str(path), what], check=False)
        assert done.returncode == -9
        return [path.parent / name for name in names(path.parent) if name.startswith(SCRATCH)]

    def test_the_next_to_write_there_sweeps_it(self, tmp_path):
        (tmp_path / "kept.json").write_text("old")
        assert len(self.kill(tmp_path / "kept.json")) == 1
        (tmp_path / f"{SCRATCH}of-another").touch()  # no folder
        (tmp_path / f"{SCRATCH}link").symlink_to(tmp_path)
        write(tmp_path / "other.json")
        left = ["kept.json", "other.json", f"{SCRATCH}link", f"{SCRATCH}of-another"]
        assert names(tmp_path) == sorted(left)
        assert (tmp_path / "kept.json").read_text() == "old"

    def test_who_is_alive_is_left_in_peace(self, tmp_path):
        code = KILLED.format(
            body="print('ready', flush=True); input(); temporary.write_text('done')"
        )
        code = code.replace("os.kill(os.getpid(), signal.SIGKILL)", "")
        alive = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "slow"), "file"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert alive.stdout.readline() == "ready\n"
        self.kill(tmp_path / "other")
        write(tmp_path / "third")
        alive.communicate("\n", timeout=20)
        assert alive.returncode == 0
        assert names(tmp_path) == ["slow", "third"]

    @pytest.mark.parametrize("name", ["out", "out.old"])
    def test_a_folder_moved_aside_goes_back(self, tmp_path, name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
        between = (
            "real = os.replace\n"
            "    def replace(source, target):\n"
            "        real(source, target)\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    os.replace = replace\n"
            "    from vj2_ddim_plugin.files import _put; from pathlib import Path\n"
            "    _put(temporary, Path(sys.argv[1]))"
        )
        assert self.kill(tmp_path / name, "folder", between)
        assert not (tmp_path / name).exists()
        write(tmp_path / "next")
        assert names(tmp_path) == ["next", name]
        assert names(tmp_path / name) == ["old"]
