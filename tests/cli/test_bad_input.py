"""Bad input, through the command line: exit status 1, one message that names it, no traceback."""

import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.bundles import PARITY
from builders.training import LENGTH, make_gestures, make_model, vj2_ddim, write_data

from vj2_ddim_plugin.bundle import write_manifest
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.run_folder import RunFolder

SMALL = ("--sequence-length", LENGTH, "--d-model", 16, "--num-layers", 1, "--num-epochs", 1)
SMALL += ("--batch-size", 8, "--num-validation", 4, "--wandb", "disabled")


ZERO_SNR = ("--prediction-type", "epsilon", "--beta-schedule", "zero_terminal_snr")


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
        assert "\nvj2-ddim: error: " in f"\n{error}"  # after the progress, on a line of its own
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


def save(folder, array):
    np.save(folder / "bad_actions.npy", array)


def truncate(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def saved_checkpoint(folder, *kind):
    model = make_model(*kind)
    save_checkpoint(Checkpoint(model, model.state_dict()), folder / "c.pt")
    return folder / "c.pt"


class TestData:
    def test_a_folder_without_data(self, tmp_path, data, refused):
        none, run = tmp_path / "none", tmp_path / "run"
        refused(*train(none, run), words=[str(none), "no such"])
        none.mkdir()
        refused(*train(none, run), words=[str(none), "an empty folder", "vj2-ddim data generate"])
        refused(*train(tmp_path, run), words=[str(tmp_path), "data", "name one"])  # a folder above
        assert not run.exists()

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
            (np.array([{}], dtype=object), ["Python objects", "numpy.save"]),
        ],
    )
    def test_a_file_of_the_wrong_kind(self, tmp_path, data, refused, array, words):
        save(data, array)
        refused(*train(data, tmp_path / "run"), words=["bad_actions.npy", *words])
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
    def test_a_truncated_file(self, tmp_path, data, refused, share):
        save(data, rows())
        truncate(data / "bad_actions.npy", share)
        words = ["bad_actions.npy", "truncated", "write it again"]
        refused(*train(data, tmp_path / "run"), words=words)

    def test_the_validation_data_are_checked_before_training(self, tmp_path, data, refused):
        other = write_data(tmp_path / "val", 4)
        save(other, with_value(np.nan))
        arguments = train(data, tmp_path / "run", "--val-data-dir", other)
        refused(*arguments, words=["val", "bad_actions.npy", "NaN"])

    def test_data_that_a_representation_cannot_hold(self, tmp_path, data, refused):
        twice = make_gestures(1)[0]
        twice[:] = 0
        twice[2:7, 2] = twice[10:15, 2] = 1
        save(data, twice)
        words = ["'path'", "--representation"]
        refused(*train(data, tmp_path / "run", "--representation", "path"), words=words)

    def test_evaluating_on_bad_data(self, tmp_path, data, refused):
        checkpoint = saved_checkpoint(tmp_path, "sketch")
        save(data, with_value(np.nan))
        refused("evaluate", checkpoint, data, words=["bad_actions.npy", "NaN"])


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
        more = (data,) if request.param == "evaluate" else ("--out", tmp_path / "bundle")
        return lambda path: (request.param, path, *more)

    def test_that_is_none(self, tmp_path, command, refused):
        path = tmp_path / "c.pt"
        refused(*command(path), words=["c.pt", "no such file", "vj2-ddim train"])
        torch.save({"state_dict": {"weight": torch.zeros(2)}}, path)
        refused(*command(path), words=["c.pt", "neither a checkpoint"])
        path.write_text("weights")
        refused(*command(path), words=["c.pt", "not a checkpoint"])
        truncate(saved_checkpoint(tmp_path), 0.5)
        refused(*command(path), words=["c.pt", "truncated"])
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
        parts = {name: getattr(model, name) for name in ("action_spec", "schedule", "condition")}
        write_manifest(folder, **parts, parity=PARITY, provenance={})
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
            refused(
                *command(bundle), words=["bundle.json: cannot be read as JSON", "write it again"]
            )

    def test_a_graph_that_is_none_or_missing(self, bundle, command, refused):
        refused(*command(bundle), words=["denoiser.onnx is no ONNX model", "Export"])
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
            (("--nhead", 3), ["nhead 3", "--d-model 16"]),
            (("--nhead", 3, "--architecture", "minimal"), ["nhead 3", "--d-model 16"]),
            (("--d-model", 17, "--nhead", 1), ["--d-model", "even", "17"]),
            (("--d-model", 0), ["--d-model", "at least 1"]),
            (("--d-model", -8), ["--d-model", "at least 1"]),
            (("--num-layers", 0), ["--num-layers", "at least 1"]),
            (("--nhead", 0), ["--nhead", "at least 1"]),
            (("--patch-size", 4), ["--patch-size", "6 rows", "4"]),
            (("--architecture", "minimal", "--condition", "sketch"), ["minimal", "unconditional"]),
            (("--batch-size", 0), ["--batch-size"]),
            (("--num-epochs", 0), ["--num-epochs"]),
            (("--lr", "nan"), ["lr"]),
            (("--num-threads", -1), ["--num-threads"]),
            (("--sequence-length", 0), ["sequence", "at least 1"]),
            (("--sequence-length", -5), ["at least 1"]),
            (ZERO_SNR, ["zero_terminal_snr", "v_prediction"]),
            (("--resume",), ["nothing to resume", "--resume"]),
        ],
    )
    def test_that_cannot_work(self, tmp_path, data, refused, options, words):
        refused(*train(data, tmp_path / "run", *options), words=words)
        assert not (tmp_path / "run" / "checkpoint.pt").exists()

    def test_a_link_that_leads_to_itself(self, tmp_path, data, refused):
        (tmp_path / "loop").symlink_to("loop")
        refused(*train(data, tmp_path / "loop"), words=["loop", "cannot hold a run"])

    def test_of_a_graph_that_is_not_asked_for(self, tmp_path, refused):
        options = ("--out", tmp_path / "bundle", "--guidance-scale", 3)
        refused(
            "export", saved_checkpoint(tmp_path), *options, words=["--guidance-scale", "--triton"]
        )

    def test_of_evaluation(self, tmp_path, data, refused):
        checkpoint = saved_checkpoint(tmp_path)
        for options, words in (
            (("--steps", 0), ["num_inference_steps", "0"]),
            (("--steps", 1001), ["num_inference_steps", "1001"]),
            (("--num-generated", 0), ["--num-generated"]),
            (("--num-generated", 10**25), ["--num-generated", "10000"]),
            (("--num-sequences", -1), ["--num-sequences"]),
            (("--seed", -1), ["seed"]),
        ):
            refused("evaluate", checkpoint, data, *options, words=words)
        assert vj2_ddim("evaluate", checkpoint, data, "--num-threads", -1) == 2  # its usage


class TestFullDisk:
    def test_while_saving_a_checkpoint(self, tmp_path, data, refused, monkeypatch):
        def write_half(content, path):
            Path(path).write_bytes(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(torch, "save", write_half)
        words = ["checkpoint.pt", "No space left on device", "free some space"]
        refused(*train(data, tmp_path / "run"), words=words)
        left = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert left == ["config.yaml", "report.html", "run.json"]

    def test_at_the_second_epoch_keeps_the_first_and_goes_on(self, tmp_path, data, refused):
        save, calls = torch.save, []

        def fail_at_second(content, path):
            calls.extend([path] * (Path(path).name == "checkpoint.pt"))
            if len(calls) == 3:  # the first comes before the first measures
                Path(path).write_bytes(b"half a checkpoint")
                raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 64")
            save(content, path)

        arguments = train(data, tmp_path / "run", "--num-epochs", 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "save", fail_at_second)
            refused(*arguments, words=["checkpoint.pt", "unexpected pos"])
        assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").training["epoch"] == 1
        assert not list((tmp_path / "run").glob(".*"))
        assert vj2_ddim(*arguments, "--resume") == 0
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_one_run_at_a_time_and_one_a_folder(tmp_path, data, refused):
    run = tmp_path / "run"
    with RunFolder(run).claim(resume=False, overwrite=False):
        words = [str(run), f"running process {os.getpid()}", "--save-dir"]
        refused(*train(data, run), words=words)
    assert vj2_ddim(*train(data, run)) == 0  # the other one is gone
    before = sha256_of(run / "checkpoint.pt")
    words = ["already holds a run", "--resume", "--overwrite", "--save-dir"]
    refused(*train(data, run), words=words)
    assert sha256_of(run / "checkpoint.pt") == before
