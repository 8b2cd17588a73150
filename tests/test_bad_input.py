"""Bad input, through the command line: exit status 1, one message that names it, no traceback."""

import errno
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.training import LENGTH, make_gestures, make_model, vj2_ddim, write_data

from vj2_ddim_plugin.bundle import write_manifest
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

SMALL = ("--sequence-length", LENGTH, "--d-model", 16, "--num-layers", 1, "--num-epochs", 1)
SMALL += ("--batch-size", 8, "--num-validation", 4, "--wandb", "disabled")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", 8)


@pytest.fixture
def refused(capfd):
    """Runs a command that must end in one readable message that holds all of these words."""

    def run(*arguments, words):
        status = vj2_ddim(*arguments)
        error = capfd.readouterr().err
        assert status == 1, error
        assert error.count("vj2-ddim: error: ") == 1
        assert error.startswith("vj2-ddim: error: ")
        assert "Traceback" not in error
        for word in words:
            assert word in error
        return error

    return run


def train(data, run, *more):
    return ("train", "--data-dir", data, "--val-data-dir", data, "--save-dir", run, *SMALL, *more)


def rows(num=2):
    return make_gestures(num).reshape(-1, 3)


def with_value(value, channel=0):
    """Gestures of which one pressed step has this value."""
    actions = rows()
    actions[np.flatnonzero(actions[:, 2])[2], channel] = value
    return actions


class TestData:
    def save(self, folder, array):
        np.save(folder / "bad_actions.npy", array)

    def test_an_empty_folder(self, tmp_path, refused):
        (tmp_path / "none").mkdir()
        words = [str(tmp_path / "none"), "an empty folder", "vj2-ddim data generate"]
        refused(*train(tmp_path / "none", tmp_path / "run"), words=words)
        assert not (tmp_path / "run").exists()

    def test_a_folder_that_is_not_there(self, tmp_path, refused):
        words = [str(tmp_path / "none"), "no such"]
        refused(*train(tmp_path / "none", tmp_path / "run"), words=words)

    def test_a_folder_above_the_data(self, tmp_path, data, refused):
        refused(*train(tmp_path, tmp_path / "run"), words=[str(tmp_path), "data", "name one"])

    @pytest.mark.parametrize(
        ("array", "words"),
        [
            (np.zeros((LENGTH, 4), np.float32), ["shape (20, 4)", "x, y, press"]),
            (np.zeros((LENGTH, 3), np.int64), ["dtype int64", "astype"]),
            (np.zeros((LENGTH // 2, 3), np.float32), ["10 rows", "at least one sequence of 20"]),
            (with_value(np.nan), ["NaN", "row", "Repair or remove"]),
            (with_value(np.inf), ["infinite", "row"]),
            (with_value(1.5), ["'x' is 1.5", "0 to 1", "Rescale"]),
            (with_value(-0.25, 1), ["'y' is -0.25", "0 to 1"]),
            (with_value(255.0, 2), ["'press' is 255"]),
        ],
    )
    def test_a_file_of_the_wrong_kind(self, tmp_path, data, refused, array, words):
        self.save(data, array)
        refused(*train(data, tmp_path / "run"), words=["bad_actions.npy", *words])
        assert not (tmp_path / "run").exists()

    def test_an_object_array(self, tmp_path, data, refused):
        self.save(data, np.array([{}], dtype=object))
        words = ["bad_actions.npy", "numpy.save"]
        refused(*train(data, tmp_path / "run"), words=words)

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
    def test_a_truncated_file(self, tmp_path, data, refused, share):
        self.save(data, rows())
        content = (data / "bad_actions.npy").read_bytes()
        (data / "bad_actions.npy").write_bytes(content[: int(share * len(content))])
        words = ["bad_actions.npy", "truncated", "write it again"]
        refused(*train(data, tmp_path / "run"), words=words)

    def test_the_validation_data_are_checked_before_training(self, tmp_path, data, refused):
        other = write_data(tmp_path / "val", 4)
        self.save(other, with_value(np.nan))
        arguments = ("--val-data-dir", other)
        refused(*train(data, tmp_path / "run", *arguments), words=["val", "bad_actions.npy", "NaN"])

    def test_data_that_a_representation_cannot_hold(self, tmp_path, data, refused):
        twice = make_gestures(1)[0]
        twice[:] = 0
        twice[2:7, 2] = twice[10:15, 2] = 1
        self.save(data, twice)
        words = ["'path'", "--representation"]
        refused(*train(data, tmp_path / "run", "--representation", "path"), words=words)

    def test_evaluating_on_bad_data(self, tmp_path, data, refused):
        model = make_model("sketch")
        save_checkpoint(Checkpoint(model, model.state_dict()), tmp_path / "c.pt")
        self.save(data, with_value(np.nan))
        refused("evaluate", tmp_path / "c.pt", data, words=["bad_actions.npy", "NaN"])


def test_a_tail_of_half_a_sequence_trains_and_says_so(tmp_path, data, capfd, monkeypatch):
    np.save(data / "tail_actions.npy", rows(3)[: -LENGTH // 2])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own hide what a user sees
    assert vj2_ddim(*train(data, tmp_path / "run")) == 0
    error = capfd.readouterr().err
    assert "tail_actions.npy: the last 10 rows are less than one sequence of 20" in error
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


class TestCheckpoint:
    @pytest.fixture(params=["evaluate", "export"])
    def command(self, request, tmp_path, data):
        def arguments(path):
            if request.param == "evaluate":
                return ("evaluate", path, data)
            return ("export", path, "--out", tmp_path / "bundle")

        return arguments

    def test_not_there(self, tmp_path, command, refused):
        refused(*command(tmp_path / "c.pt"), words=["c.pt", "no such file", "vj2-ddim train"])

    def test_from_elsewhere(self, tmp_path, command, refused):
        torch.save({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "c.pt")
        refused(*command(tmp_path / "c.pt"), words=["c.pt", "neither a checkpoint"])

    def test_of_another_kind(self, tmp_path, command, refused):
        (tmp_path / "c.pt").write_text("weights")
        refused(*command(tmp_path / "c.pt"), words=["c.pt", "not a checkpoint"])

    def test_truncated(self, tmp_path, command, refused):
        model = make_model()
        save_checkpoint(Checkpoint(model, model.state_dict()), tmp_path / "c.pt")
        content = (tmp_path / "c.pt").read_bytes()
        (tmp_path / "c.pt").write_bytes(content[: len(content) // 2])
        refused(*command(tmp_path / "c.pt"), words=["c.pt", "truncated"])
        assert not (tmp_path / "bundle").exists()

    def test_of_the_original_script_without_its_head_count(self, tmp_path, command, refused):
        model = make_model("none", "minimal")
        torch.save({"model_state_dict": model.denoiser.state_dict()}, tmp_path / "c.pth")
        refused(*command(tmp_path / "c.pth"), words=["c.pth", "--nhead"])
        refused(*command(tmp_path / "c.pth"), "--nhead", 3, words=["c.pth", "nhead 3", "d_model"])


class TestBundle:
    @pytest.fixture
    def bundle(self, tmp_path):
        """A bundle whose graph no one has traced; it is refused before it would be loaded."""
        folder = tmp_path / "bundle"
        folder.mkdir()
        (folder / "denoiser.onnx").write_bytes(b"a graph" * 100)
        model = make_model("none")
        write_manifest(
            folder,
            action_spec=model.action_spec,
            schedule=model.schedule,
            condition=model.condition,
            parity={"worst_error": 1e-6},
            provenance={},
        )
        return folder

    @pytest.fixture(params=["inspect", "plan"])
    def command(self, request, tmp_path):
        more = ("--out", tmp_path / "plan.npy") if request.param == "plan" else ()
        return lambda bundle: (request.param, bundle, *more)

    def test_one_byte_of_the_graph_changed(self, bundle, command, refused):
        content = bytearray((bundle / "denoiser.onnx").read_bytes())
        content[350] ^= 1
        (bundle / "denoiser.onnx").write_bytes(content)
        refused(*command(bundle), words=["denoiser.onnx was changed", "sha256", "export again"])

    def test_every_byte_of_the_manifest_matters_or_is_harmless(self, bundle, command, refused):
        """A manifest cut anywhere is no JSON."""
        content = (bundle / "bundle.json").read_bytes()
        for end in range(0, len(content) - 2, 97):
            (bundle / "bundle.json").write_bytes(content[:end])
            refused(*command(bundle), words=["bundle.json is not JSON", "Export"])

    def test_a_graph_that_is_none(self, bundle, command, refused):
        refused(*command(bundle), words=["denoiser.onnx", "ONNX Runtime cannot load it"])

    def test_a_graph_missing(self, bundle, command, refused):
        (bundle / "denoiser.onnx").unlink()
        refused(*command(bundle), words=["denoiser.onnx is missing", "Copy the whole folder"])

    def test_a_field_missing(self, bundle, command, refused):
        text = (bundle / "bundle.json").read_text()
        (bundle / "bundle.json").write_text(text.replace('"press_channel"', '"press_canal"'))
        refused(*command(bundle), words=["bundle.json", "'press_channel'", "'press_canal'"])

    def test_a_checkpoint_in_place_of_a_bundle(self, tmp_path, command, refused):
        (tmp_path / "c.pt").write_bytes(b"x")
        refused(*command(tmp_path / "c.pt"), words=["c.pt", "not a bundle", "vj2-ddim export"])


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--nhead", 3), ["nhead 3", "d_model 16"]),
            (("--nhead", 3, "--architecture", "minimal"), ["nhead 3", "d_model 16"]),
            (("--d-model", 17, "--nhead", 1), ["d_model", "even", "17"]),
            (("--d-model", 0), ["d_model", "at least 1"]),
            (("--d-model", -8), ["d_model", "at least 1"]),
            (("--num-layers", 0), ["num_layers", "at least 1"]),
            (("--nhead", 0), ["nhead", "at least 1"]),
            (("--patch-size", 4), ["patch_size", "6 rows", "4"]),
            (("--architecture", "minimal", "--condition", "sketch"), ["minimal", "unconditional"]),
            (("--batch-size", 0), ["batch_size"]),
            (("--num-epochs", 0), ["num_epochs"]),
            (("--lr", "nan"), ["lr"]),
            (("--num-threads", -1), ["num_threads"]),
            (("--sequence-length", 0), ["sequence", "at least 1"]),
            (("--sequence-length", -5), ["at least 1"]),
            (("--prediction-type", "epsilon", "--beta-schedule", "zero_terminal_snr"),
             ["zero_terminal_snr", "v_prediction"]),
            (("--resume",), ["nothing to resume", "--resume"]),
        ],
    )  # fmt: skip
    def test_that_cannot_work(self, tmp_path, data, refused, options, words):
        refused(*train(data, tmp_path / "run", *options), words=words)
        assert not (tmp_path / "run" / "checkpoint.pt").exists()

    def test_of_evaluation(self, tmp_path, data, refused):
        model = make_model()
        save_checkpoint(Checkpoint(model, model.state_dict()), tmp_path / "c.pt")
        for options, words in (
            (("--steps", 0), ["num_inference_steps", "0"]),
            (("--steps", 1001), ["num_inference_steps", "1001"]),
            (("--num-generated", 0), ["num_generated"]),
            (("--num-sequences", -1), ["num_sequences"]),
            (("--num-threads", -1), ["num_threads"]),
            (("--seed", -1), ["seed"]),
        ):
            refused("evaluate", tmp_path / "c.pt", data, *options, words=words)


class TestFullDisk:
    def test_while_saving_a_checkpoint(self, tmp_path, data, refused, monkeypatch):
        def write_half(content, path):
            Path(path).write_bytes(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(torch, "save", write_half)
        words = ["checkpoint.pt", "No space left on device", "free some space", "--resume"]
        refused(*train(data, tmp_path / "run"), words=words)
        left = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert left == ["metrics.jsonl", "pictures"]

    def test_at_the_second_epoch_keeps_the_first_and_goes_on(self, tmp_path, data, refused):
        save, calls = torch.save, []

        def fail_at_second(content, path):
            calls.append(path)
            if len(calls) == 2:
                Path(path).write_bytes(b"half a checkpoint")
                raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64")
            save(content, path)

        arguments = train(data, tmp_path / "run", "--num-epochs", 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "save", fail_at_second)
            refused(*arguments, words=["checkpoint.pt", "unexpected pos", "--resume"])
        assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").training["epoch"] == 1
        assert not list((tmp_path / "run").glob(".*"))
        assert vj2_ddim(*arguments, "--resume") == 0
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


class TestOneRunAtATime:
    def test_a_folder_in_use(self, tmp_path, data, refused):
        run = tmp_path / "run"
        run.mkdir()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            (run / "run.lock").write_text(str(other.pid))
            words = [str(run), f"running process {other.pid}", "--save-dir"]
            refused(*train(data, run), words=words)
            other.communicate(b"\n")
        assert vj2_ddim(*train(data, run)) == 0  # the other one is gone

    def test_a_folder_with_a_run(self, tmp_path, data, refused):
        assert vj2_ddim(*train(data, tmp_path / "run")) == 0
        before = sha256_of(tmp_path / "run" / "checkpoint.pt")
        words = ["already holds a run", "--resume", "--overwrite", "--save-dir"]
        refused(*train(data, tmp_path / "run"), words=words)
        assert sha256_of(tmp_path / "run" / "checkpoint.pt") == before
