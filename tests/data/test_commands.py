import json
import os

import numpy as np
import pytest
from builders.training import make_gestures, vj2_ddim

from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.data.gesture_files import read_flat_actions


def test_generate_then_inspect(tmp_path, capsys):
    folder, picture = tmp_path / "d", tmp_path / "d.png"
    assert (
        vj2_ddim("data", "generate", "--output-dir", folder, "--num-sequences", 30, "--seed", 5)
        == 0
    )
    assert "30 sequences in 1 files" in capsys.readouterr().out
    actions = read_flat_actions(folder, ActionSpec()).actions
    np.testing.assert_array_equal(actions, generate_gestures(30, rng=np.random.default_rng(5)))
    json_file = tmp_path / "d.json"
    assert vj2_ddim("data", "inspect", folder, "--json", json_file, "--picture", picture) == 0
    found = json.loads(json_file.read_text())
    assert found["num_sequences"] == 30
    assert found["faults"] == []
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for word in ("num sequences: 30", "durations", "shortest", "data fingerprint"):
        assert word in printed


def test_options_of_the_original_script_in_underscores(tmp_path):
    status = vj2_ddim(
        *("data", "generate", "--output_dir", tmp_path / "d", "--num_sequences", 10),
        *("--action_type", "click", "--min_delta_t_pct", 0.1, "--max_delta_t_pct", 0.1),
        *("--sequence_length", 50, "--sequences_per_file", 4),
    )
    assert status == 0
    files = sorted((tmp_path / "d").iterdir())
    assert [len(np.load(file)) for file in files] == [200, 200, 100]
    actions = np.concatenate([np.load(file) for file in files]).reshape(10, 50, 3)
    assert (actions[..., 2].sum(axis=1) == 5).all()
    assert vj2_ddim("data", "inspect", tmp_path / "d", "--sequence-length", 50) == 0


def test_faults_are_listed_and_exit_1(tmp_path, capsys):
    actions = generate_gestures(3, rng=np.random.default_rng(0)).reshape(-1, 3)
    np.save(tmp_path / "tail_actions.npy", actions[:600])
    np.save(tmp_path / "wide_actions.npy", np.zeros((250, 4), np.float32))
    assert vj2_ddim("data", "inspect", tmp_path, "--json", tmp_path / "d.json") == 1
    printed = capsys.readouterr().out
    assert "2 faults" in printed
    assert "- tail_actions.npy: the last 100 rows" in printed
    assert "- wide_actions.npy: found shape (250, 4)" in printed
    assert len(json.loads((tmp_path / "d.json").read_text())["faults"]) == 2


def test_overwrite(tmp_path, capsys):
    arguments = ("data", "generate", "--output-dir", tmp_path / "d", "--num-sequences", 2)
    assert vj2_ddim(*arguments) == 0
    assert vj2_ddim(*arguments) == 1
    assert "overwrite" in capsys.readouterr().err
    assert vj2_ddim(*arguments, "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", "--output-dir", "{}", "--action-type", "tap"), "'tap' is unknown"),
        (("inspect", "{}/nowhere"), "nowhere: no such file, expected a folder of"),
        (("inspect", "{}"), "an empty folder"),
    ],
)
def test_mistakes_are_one_message(tmp_path, arguments, said, capsys):
    assert vj2_ddim("data", *(argument.format(tmp_path) for argument in arguments)) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_names_are_printed_escaped(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"d\xfe $^$ [/x]\x1b[2J")
    folder.mkdir(parents=True)
    gestures = make_gestures(2, length=20).reshape(-1, 3)
    np.save(folder / os.fsdecode(b"a\xff[b]\x1b[2J_actions.npy"), gestures[:39])
    np.save(folder / os.fsdecode(b"b\xff[b]_actions.npy"), gestures[:, :2])
    os.mkfifo(folder / os.fsdecode(b"c\xff[b]_actions.npy"))
    told = ("--json", tmp_path / "j.json", "--picture", tmp_path / "p.png")
    assert vj2_ddim("data", "inspect", folder, *told, "--sequence-length", 20) == 1
    printed = capsys.readouterr()
    assert "looking" in printed.err
    for name in (
        "d\\udcfe $^$ [/x]\\x1b[2J\n",
        "- a\\udcff[b]\\x1b[2J_actions.npy: the last 19 rows",
        "- b\\udcff[b]_actions.npy: found shape (40, 2)",
        "- c\\udcff[b]_actions.npy: found a named pipe",
    ):
        assert name in printed.out
    assert len(json.loads((tmp_path / "j.json").read_text())["faults"]) == 3
    assert vj2_ddim("data", "convert", folder, "--output-dir", tmp_path / "out") == 1
    assert "d\\udcfe $^$ [/x]\\x1b[2J: found no trajectories" in capsys.readouterr().err
