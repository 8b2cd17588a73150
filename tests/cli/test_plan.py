"""`vj2-ddim plan`: without torch, without a world model."""

import json
import subprocess
import sys

import numpy as np
import pytest
from builders.training import LENGTH, make_model, vj2_ddim

from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_training.checkpoint import Checkpoint, save_checkpoint


def export(condition, folder):
    model = make_model(condition)
    save_checkpoint(Checkpoint(model, model.state_dict()), folder / "checkpoint.pt")
    export_bundle(folder / "checkpoint.pt", folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def sketch(tmp_path_factory):
    return export("sketch", tmp_path_factory.mktemp("sketch"))


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory):
    return export("none", tmp_path_factory.mktemp("none"))


@pytest.fixture
def conditions(tmp_path):
    np.savez(tmp_path / "c.npz", sketch=np.full((3, 6), 0.4, np.float32))
    return tmp_path / "c.npz"


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a plan that must end in one readable error that holds these words."""

    def run(*arguments, words):
        assert vj2_ddim("plan", *arguments, "--out", tmp_path / "refused.npy") == 1
        error = capsys.readouterr().err
        assert error.startswith("vj2-ddim: error: ")
        assert "Traceback" not in error
        for word in words:
            assert word in error
        assert not (tmp_path / "refused.npy").exists()

    return run


def test_plans_are_those_of_the_optimizer(sketch, conditions, tmp_path):
    status = vj2_ddim(
        *("plan", sketch, "--conditions", conditions, "--out", tmp_path / "plan.npy"),
        *("--num-inference-steps", 4, "--seed", 7, "--json", tmp_path / "plan.json"),
    )
    assert status == 0
    optimizer = DDIMOptimizer.from_bundle(sketch, num_inference_steps=4, seed=7)
    expected = optimizer.optimize(PlanningProblem({"sketch": np.full((3, 6), 0.4, np.float32)}))
    np.testing.assert_array_equal(np.load(tmp_path / "plan.npy"), expected.actions)
    summary = json.loads((tmp_path / "plan.json").read_text())
    assert summary["plans"] == 3
    assert summary["provider"] == "CPUExecutionProvider"
    assert summary["num_denoiser_evaluations"] == expected.num_denoiser_evaluations == 12
    assert summary["wall_time_ms"]["total"] > 0
    np.testing.assert_allclose(summary["projection_distance"], expected.projection_distance)


def test_unconditional_plans_need_no_conditions_but_a_number(unconditional, tmp_path):
    out = tmp_path / "plan.npy"
    assert vj2_ddim("plan", unconditional, "--num-plans", 5, "--out", out) == 0
    assert np.load(out).shape == (5, LENGTH, 3)


def test_every_setting_of_the_search_and_of_the_session_has_its_option(unconditional, tmp_path):
    out = tmp_path / "plan.npy"
    words = ("--num-inference-steps", 3, "--eta", 0.5, "--temperature", 0.5, "--no-project")
    session = ("--provider", "cpu", "--num-threads", 1, "--provider-options", "device_id=0")
    assert vj2_ddim("plan", unconditional, "--out", out, *words, *session) == 0
    optimizer = DDIMOptimizer.from_bundle(
        unconditional, num_inference_steps=3, eta=0.5, temperature=0.5, project=False
    )
    expected = optimizer.optimize(PlanningProblem(batch_size=1))
    np.testing.assert_array_equal(np.load(out), expected.actions)


def test_seed_decides(unconditional, tmp_path):
    plans = []
    for seed in (1, 1, 2):
        vj2_ddim("plan", unconditional, "--seed", seed, "--out", tmp_path / "plan.npy")
        plans.append(np.load(tmp_path / "plan.npy"))
    np.testing.assert_array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])


def test_float64_conditions_and_out_names_are_taken_as_they_are(sketch, tmp_path):
    np.savez(tmp_path / "c.npz", sketch=np.full((1, 6), 0.4))
    out = tmp_path / "deep" / "actions"
    assert vj2_ddim("plan", sketch, "--conditions", tmp_path / "c.npz", "--out", out) == 0
    assert np.load(out).shape == (1, LENGTH, 3)


class TestRefused:
    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"sketches": np.zeros((1, 6))}, ["'sketches'", "'sketch'"]),
            ({"sketch": np.zeros((1, 5))}, ["'sketch'", "(1, 5)", "[B, 6]"]),
            ({"sketch": np.full((2, 6), np.nan)}, ["'sketch'", "12 values", "NaN"]),
            ({"sketch": np.zeros((0, 6))}, ["batch is empty"]),
        ],
    )
    def test_conditions(self, sketch, refused, tmp_path, arrays, words):
        np.savez(tmp_path / "x.npz", **arrays)
        refused(sketch, "--conditions", tmp_path / "x.npz", words=words)
        refused(sketch, words=["sketch", "--conditions"])  # none at all

    @pytest.mark.parametrize("kind", ["absent", "empty", "text", "npy", "truncated", "objects"])
    def test_conditions_that_are_no_npz(self, sketch, refused, tmp_path, conditions, kind):
        path = tmp_path / "x.npz"
        if kind == "npy":
            with open(path, "wb") as stream:
                np.save(stream, np.zeros((1, 6)))
        elif kind == "objects":
            np.savez(path, sketch=np.array([{}], dtype=object))
        elif kind != "absent":
            whole = conditions.read_bytes()
            content = {"empty": b"", "text": b"hello", "truncated": whole[: len(whole) // 2]}
            path.write_bytes(content[kind])
        refused(sketch, "--conditions", path, words=["x.npz", "numpy.savez"])

    @pytest.mark.parametrize(
        ("option", "value", "words"),
        [
            ("--num-inference-steps", 0, ["--num-inference-steps"]),
            ("--num-inference-steps", 1001, ["--num-inference-steps", "1000"]),
            ("--eta", 2.0, ["--eta must be"]),
            ("--provider", "tpu", ["--provider 'tpu'", "cuda"]),
            ("--guidance-scale", 2.0, ["--guidance-scale", "unconditional"]),
            ("--temperature", 1.5, ["--temperature must be"]),
            ("--num-plans", 0, ["batch"]),
            ("--seed", -1, ["--seed must be"]),
            ("--provider-options", "device", ["--provider-options must be KEY=VALUE", "'device'"]),
            ("--num-ranked", 2, ["--num-ranked 2 needs a ranker", "--ranker ranker.pt"]),
        ],
    )
    def test_settings(self, unconditional, refused, option, value, words):
        refused(unconditional, option, value, words=words)

    def test_a_folder_that_is_no_bundle(self, refused, tmp_path):
        refused(tmp_path, words=["bundle.json", "vj2-ddim export"])


def test_a_picture_is_drawn_where_it_is_asked_for(unconditional, tmp_path):
    picture = tmp_path / "plans [1].png"
    words = ("plan", unconditional, "--out", tmp_path / "plan.npy", "--picture", picture)
    assert vj2_ddim(*words) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_torch_is_not_imported():
    code = (
        "import sys, vj2_ddim_plugin.cli.commands; "
        "print('torch' in sys.modules, 'matplotlib' in sys.modules, 'numpy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False", "False"]
