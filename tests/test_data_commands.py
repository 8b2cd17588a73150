import json

import numpy as np
import pytest
from typer.testing import CliRunner

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_training.data.commands import app
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.generate import generate_gestures


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_generate_then_inspect(tmp_path):
    result = run("generate", "--output-dir", tmp_path / "d", "--num-sequences", 30, "--seed", 5)
    assert result.exit_code == 0, result.output
    assert "30 sequences in 1 files" in result.output
    actions = read_flat_actions(tmp_path / "d", ActionSpec()).actions
    np.testing.assert_array_equal(actions, generate_gestures(30, rng=np.random.default_rng(5)))
    result = run(
        "inspect", tmp_path / "d", "--json", tmp_path / "d.json", "--picture", tmp_path / "d.png"
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["num_sequences"] == 30
    assert found["problems"] == []
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    for word in ("sequences", "30", "press duration", "fingerprint"):
        assert word in result.output


def test_options_of_the_original_script_in_underscores(tmp_path):
    result = run(
        *("generate", "--output_dir", tmp_path / "d", "--num_sequences", 10),
        *("--action_type", "click", "--min_delta_t_pct", 0.1, "--max_delta_t_pct", 0.1),
        *("--sequence_length", 50, "--sequences_per_file", 4),
    )
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "d").iterdir())
    assert [len(np.load(file)) for file in files] == [200, 200, 100]
    actions = np.concatenate([np.load(file) for file in files]).reshape(10, 50, 3)
    assert (actions[..., 2].sum(axis=1) == 5).all()
    assert run("inspect", tmp_path / "d", "--sequence-length", 50).exit_code == 0


def test_problems_are_listed_and_exit_1(tmp_path):
    actions = generate_gestures(3, rng=np.random.default_rng(0)).reshape(-1, 3)
    np.save(tmp_path / "tail_actions.npy", actions[:600])
    np.save(tmp_path / "wide_actions.npy", np.zeros((250, 4), np.float32))
    result = run("inspect", tmp_path, "--json", tmp_path / "d.json")
    assert result.exit_code == 1
    assert "2 problems" in result.output
    assert "- tail_actions.npy: the last 100 rows" in result.output
    assert "- wide_actions.npy: found shape (250, 4)" in result.output
    assert len(json.loads((tmp_path / "d.json").read_text())["problems"]) == 2


def test_overwrite(tmp_path):
    arguments = ("generate", "--output-dir", tmp_path / "d", "--num-sequences", 2)
    assert run(*arguments).exit_code == 0
    assert isinstance(run(*arguments).exception, ConfigError)
    assert run(*arguments, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("generate", "--output-dir", "{}", "--action-type", "tap"), ConfigError),
        (("generate", "--output-dir", "{}", "--num-sequences", "0"), ConfigError),
        (("inspect", "{}/nowhere"), DataError),
        (("inspect", "{}"), DataError),
    ],
)
def test_project_errors_reach_the_caller(tmp_path, arguments, error):
    result = run(*(argument.format(tmp_path) for argument in arguments))
    assert isinstance(result.exception, error)
