"""Training that is killed at any moment loses an epoch at most, and nothing is half-written."""

import json
import os
import random
import shutil
import subprocess

import pytest
from builders.fuzz import MOMENTS
from builders.killed import Commands
from builders.runs import assert_same_run
from builders.training import write_data

from vj2_ddim_training.checkpoint import load_checkpoint

EPOCHS = 6
ALWAYS = ["train", "--data-dir", "data", "--val-data-dir", "data", "--sequence-length", 20]
ALWAYS += ["--d-model", 16, "--num-layers", 1, "--nhead", 2, "--batch-size", 4]
ALWAYS += ["--num-epochs", EPOCHS, "--evaluate-every", EPOCHS]
ALWAYS += ["--num-validation", 2, "--num-threads", 1, "--wandb", "disabled"]
SHORT = ["--num-epochs", 2, "--picture-every", 2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def start(root):
    write_data(root / "data")
    commands = Commands(root, *ALWAYS, "--save-dir", "old", "--seed", 7, *SHORT)
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def whole(start, root):
    """A run that nothing happens to, one before it in its folder's place, and its seconds."""
    assert (root / "old" / "checkpoint.pt").exists()
    status, seconds, said = start(*ALWAYS, "--save-dir", "whole")
    assert status == 0, said
    return root / "whole", root / "old", seconds


def content_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file() and path.name != "run.lock" and not path.parent.name.startswith(".")
    }


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_and_resumed_is_the_run_that_was_not_killed(start, root, whole, moment):
    expected, old, seconds = whole
    folder = root / f"run_{moment}"
    replaces = moment % 2 == 1  # an earlier run, which is there until the new one can go on
    if replaces:
        shutil.copytree(old, folder)
    command = [*ALWAYS, "--save-dir", folder, *(["--overwrite"] if replaces else [])]
    chosen = random.Random(moment)
    for _ in range(2):  # killed again while it goes on
        status, _, said = start(*command, life=chosen.uniform(0.0, seconds))
        assert status in (-9, 0), said
        if not (folder / "checkpoint.pt").exists():
            continue
        there = load_checkpoint(folder / "checkpoint.pt")
        if there.training["config"]["seed"] == 7:
            assert content_of(folder) == content_of(old)
            continue
        command = ["train", "--save-dir", folder, "--resume"]
        lines = (
            (folder / "metrics.jsonl").read_bytes().splitlines() if there.training["epoch"] else []
        )
        done = [json.loads(line)["epoch"] for line in lines[:-1]]
        assert len(done) <= there.training["epoch"] <= EPOCHS  # a line more is all that is lost
    status, _, said = start(*command)
    assert status == 0, said
    assert_same_run(folder, expected)
    assert {path.name for path in folder.rglob("*")} == {path.name for path in expected.rglob("*")}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB, where one can be had; the folder that it is in otherwise."""
    disk = tmp_path / "disk"
    disk.mkdir()
    how = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(how, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("free", [0, 150_000])
def test_a_full_disk_names_its_file_and_loses_nothing(start, root, whole, small_disk, free):
    """At the start, and at a checkpoint."""
    folder = small_disk / "run"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (2 * 2**20 - 8192 - free))
    status, _, said = start(*ALWAYS, "--save-dir", folder)
    assert status == 1
    assert "Traceback" not in said
    assert "No space left" in said or "cannot be written" in said
    assert str(folder) in said.splitlines()[-1]
    filler.unlink()
    resume = ["--resume"] if (folder / "checkpoint.pt").exists() else []
    assert start(*ALWAYS, "--save-dir", folder, *resume)[0] == 0
    assert_same_run(folder, whole[0])


def test_a_folder_that_cannot_be_written_is_a_named_error(start, root, whole):
    folder = root / "read_only"
    shutil.copytree(whole[1], folder)
    before = content_of(folder)
    if os.geteuid():
        folder.chmod(0o555)
    elif any(
        subprocess.run(["mount", *how, folder], check=False, capture_output=True).returncode
        for how in (["--bind", folder], ["-o", "remount,bind,ro"])
    ):
        pytest.skip("root can write anywhere, and cannot mount")
    try:
        for how in ("--overwrite", "--resume"):
            status, _, said = start("train", "--save-dir", folder, how, *ALWAYS[1:])
            assert (status, "Traceback" in said) == (1, False)
            assert str(folder) in said
        assert content_of(folder) == before
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", folder], check=True)
        else:
            folder.chmod(0o755)
