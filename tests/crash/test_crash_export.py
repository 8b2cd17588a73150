"""An export that is killed at any moment leaves the bundle that was there, or the new one."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from builders.checkpoints import save
from builders.fuzz import MOMENTS
from builders.graphs import remember_graphs
from builders.killed import Commands
from builders.training import make_model

from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.files import SCRATCH

REMEMBERED = f"""
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from builders.graphs import remember_graphs
remember_graphs()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def command(root, graphs):
    remember_graphs(graphs)
    for seed, name in enumerate(("old", "new")):
        (root / name).mkdir()
        save(make_model(seed=seed), root / name)
    words = ("export", "old/checkpoint.pt", "--out", "old/bundle")
    commands = Commands(root, *words, first=REMEMBERED)
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def whole(root, command):
    """Beside the bundle that was there another, and the seconds that its export takes."""
    assert (root / "old" / "bundle").exists()
    status, seconds, said = command("export", "new/checkpoint.pt", "--out", "new/bundle")
    assert status == 0, said
    return seconds


def graphs_of(folder):
    """What is in a bundle, checked by its own hashes."""
    assert {path.name for path in folder.iterdir()} == {"bundle.json", *read_bundle(folder).graphs}
    return json.loads((folder / "bundle.json").read_text())["graphs"]


def export(command, out, **how):
    return command("export", "new/checkpoint.pt", "--out", out, "--overwrite", **how)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_and_started_again(root, command, whole, moment):
    out = root / f"run_{moment}" / "bundle"
    out.parent.mkdir()
    old, new = (graphs_of(root / name / "bundle") for name in ("old", "new"))
    if moment % 2:
        shutil.copytree(root / "old" / "bundle", out)
    status, _, said = export(command, out, life=random.Random(moment).uniform(0.0, 1.1 * whole))
    assert status in (-9, 0), said
    if out.exists():
        assert graphs_of(out) in ([new] if status == 0 else [old, new])
    else:  # there was none, or it waits beside for the next start
        aside = [path for path in out.parent.glob(f"{SCRATCH}*/*.old")]
        assert not moment % 2 or [graphs_of(path) for path in aside] == [old]
    status, _, said = export(command, out)
    assert status == 0, said
    assert graphs_of(out) == new
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("largest", [1, 20_000])
def test_a_disk_that_fills_keeps_the_bundle_that_was_there(root, command, whole, largest):
    out = root / f"full_{largest}" / "bundle"
    shutil.copytree(root / "old" / "bundle", out)
    status, _, said = export(command, out, largest=largest)
    assert status == 1
    assert "Traceback" not in said
    assert graphs_of(out) == graphs_of(root / "old" / "bundle")
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_a_folder_that_cannot_be_written_is_named(root, command, whole):
    status, _, said = export(command, "/proc/self/bundle" if os.geteuid() == 0 else "/bundle")
    assert (status, len(said.splitlines())) == (1, 1)
    assert "bundle: cannot be written (" in said
