"""One run at a time in a folder, and nothing lost by accident."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def claim(folder, resume=False, overwrite=False):
    return folder.claim(resume=resume, overwrite=overwrite)


HOLDS = (
    "import sys\n"
    "from vj2_ddim_training.run_folder import RunFolder\n"
    "with RunFolder(sys.argv[1]).claim(resume=False, overwrite=False):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@contextmanager
def holder(folder):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLDS, str(folder.folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()
        process.stdin.close()


def test_a_new_folder_is_made_and_freed(folder):
    with claim(folder):
        assert (folder.folder / "run.lock").read_text() == str(os.getpid())
    assert os.listdir(folder.folder) == []


def test_two_runs_at_once_are_refused(folder):
    with claim(folder):
        with pytest.raises(ConfigError, match=rf"in use by the running process {os.getpid()}"):
            claim(folder).__enter__()
        assert (folder.folder / "run.lock").exists()  # the second one frees nothing


def test_a_lock_of_another_live_process_is_refused_whatever_is_asked(folder):
    with holder(folder) as process:
        folder.checkpoint.write_bytes(b"x")
        for settings in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(ConfigError, match=f"process {process.pid}") as caught:
                claim(folder, **settings).__enter__()
            assert "save_dir" in str(caught.value)
            assert "run.lock" in str(caught.value)
    assert folder.checkpoint.read_bytes() == b"x"


def test_the_lock_of_a_killed_process_is_free(folder):
    with holder(folder) as process:
        process.kill()
        process.wait()
        assert (folder.folder / "run.lock").exists()  # it had no time to clean up
        with claim(folder):
            assert (folder.folder / "run.lock").read_text() == str(os.getpid())
    assert not (folder.folder / "run.lock").exists()


@pytest.mark.parametrize(
    "content", ["", "not a number", str(os.getpid())], ids=["empty", "no number", "own"]
)
def test_a_lock_file_that_nobody_holds_blocks_nobody(folder, content):
    """A copied folder, or a process of another container with this one's number."""
    folder.folder.mkdir()
    (folder.folder / "run.lock").write_text(content)
    with claim(folder):
        pass
    assert not (folder.folder / "run.lock").exists()


def test_a_failing_run_frees_the_folder(folder):
    with pytest.raises(ZeroDivisionError), claim(folder):
        raise ZeroDivisionError
    assert not (folder.folder / "run.lock").exists()


def test_an_existing_run_needs_resume_or_overwrite(folder):
    with claim(folder):
        folder.checkpoint.write_bytes(b"weights")
        folder.metrics.write_text("{}\n")
        (folder.folder / "notes.txt").write_text("mine")
    said = r"already holds a run.*resume=True.*overwrite=True.*save_dir"
    with pytest.raises(ConfigError, match=said):
        claim(folder).__enter__()
    with claim(folder, resume=True):
        assert folder.checkpoint.read_bytes() == b"weights"
        assert folder.metrics.read_text() == "{}\n"
    with claim(folder, overwrite=True):
        assert folder.checkpoint.exists()
        assert folder.metrics.exists()  # until there is a checkpoint of the new one
        folder.begin()
        assert not folder.metrics.exists()
    assert (folder.folder / "notes.txt").read_text() == "mine"  # no part of a run


def test_nothing_to_resume_and_nothing_to_overwrite(folder):
    said = r"checkpoint.pt: nothing to resume; leave out resume=True"
    with pytest.raises(ConfigError, match=said):
        claim(folder, resume=True).__enter__()
    assert not folder.folder.exists()
    with claim(folder, overwrite=True):
        assert folder.folder.is_dir()


def test_a_file_in_place_of_the_folder_is_a_named_error(folder):
    folder.folder.write_text("a file")
    with pytest.raises(ConfigError, match="run"):
        claim(folder).__enter__()
