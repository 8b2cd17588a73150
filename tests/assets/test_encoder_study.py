"""A denoiser that sees screens through an encoder of others, made here of a few convolutions."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders.detector import CHANNELS, write_detector
from builders.race import benchmark

from vj2_ddim_benchmark import encoder_study
from vj2_ddim_benchmark.assets.settings import MODEL
from vj2_ddim_benchmark.encoder_study import DetectedScreens
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.text_detector import MEAN, STD, TextDetector
from vj2_ddim_plugin.errors import ConfigError

SMALL = {
    "MODEL": replace(MODEL, d_model=16, num_layers=1, nhead=2, condition_tokens=2),
    "NUM_VALIDATION": 4,
    "NUM_VALIDATION_PROBLEMS": 4,
    "NUM_VALIDATIONS": 1,
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A detector whose neck averages 8 x 8 pixels of red and of blue."""
    return write_detector(tmp_path_factory.mktemp("detector") / "detector.onnx")


def test_a_token_holds_its_four_cells_row_by_row(graph):
    screens = TouchScreen.generate(18, split="train", seed=3)  # more than are encoded at once
    seen = DetectedScreens(TextDetector(graph)).see(screens)
    assert seen.shape == (18, 256, 4 * CHANNELS)
    frames = np.asarray(TouchScreen.generate(18, split="train", seed=3, size=256).render())
    pixels = ((frames / 255.0 - MEAN) / STD)[..., [0, 2]]
    cells = pixels.reshape(18, 16, 2, 8, 16, 2, 8, CHANNELS).mean(axis=(3, 6))
    expected = cells.transpose(0, 1, 3, 2, 4, 5).reshape(18, 256, -1)
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_a_study_is_made_once_and_compares_both_on_the_same_screens(
    graph, tmp_path, capsys, monkeypatch
):
    for name, value in SMALL.items():
        monkeypatch.setattr(encoder_study, name, value)
    out, found = tmp_path / "study", tmp_path / "study.json"
    words = ["--out", out, "--graph", graph, "--num-trajectories", 64, "--steps", 1]
    words += ["--num-problems", 30, "--json", found]
    assert benchmark("encoder", *words) == 0
    study = json.loads(found.read_text())
    assert set(study["encoders"]) == {"patches of the world model", "text detector"}
    assert study["encoders"]["text detector"]["latents"] == [256, 4 * CHANNELS]
    assert all(0.0 <= of["success"] <= 1.0 for of in study["encoders"].values())
    assert "text detector" in capsys.readouterr().out
    assert benchmark("encoder", *words) == 0
    assert json.loads(found.read_text())["encoders"] == study["encoders"]
    assert benchmark("encoder", *words, "--steps", 9) == 1
    assert "steps is '1', here it is '9'" in capsys.readouterr().err


def test_a_graph_without_the_neck_says_how_to_install_one(tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(b"not a graph")
    for file in (other, tmp_path / "none.onnx"):
        with pytest.raises(ConfigError, match=r"pip install --no-deps rapidocr-onnxruntime"):
            TextDetector(file)
