"""The whole way through the command line: train, evaluate, export, inspect, plan."""

import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from builders.training import LENGTH, make_gestures, vj2_ddim, write_data

from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training import by_name
from vj2_ddim_training.by_name import COSTS, find_by_name
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.ranker.network import load_ranker

SMALL = ("--sequence_length", LENGTH, "--wandb", "disabled", "--num_validation", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    write_data(root / "train", 12)
    write_data(root / "val", 6, seed=1)
    return root


def train(folder, name, *more):
    """The original script's published command: its arguments, in underscores."""
    return vj2_ddim(
        *("train", "--data_dir", folder / "train", "--val_data_dir", folder / "val"),
        *("--batch_size", 6, "--num_epochs", 2, "--lr", "1e-3", "--d_model", 16),
        *("--num_layers", 1, "--nhead", 2, "--wandb_project", "phase", "--device", "cpu"),
        *("--save_dir", folder / name, *SMALL, *more),
    )


@pytest.fixture(scope="module")
def checkpoint(folder):
    assert train(folder, "run") == 0
    return folder / "run" / "checkpoint.pt"


@pytest.fixture(scope="module")
def bundle(folder, checkpoint):
    assert vj2_ddim("export", checkpoint, "--out", folder / "bundle") == 0
    return folder / "bundle"


def test_published_arguments_reach_the_checkpoint(checkpoint):
    loaded = load_checkpoint(checkpoint)
    model, config = loaded.model.config, loaded.training["config"]
    assert (model.d_model, model.num_layers, model.nhead) == (16, 1, 2)
    assert (config["batch_size"], config["num_epochs"], config["lr"]) == (6, 2, 1e-3)
    assert (config["wandb_project"], config["device"]) == ("phase", "cpu")
    assert (model.architecture, model.condition) == ("dit", "sketch")
    assert loaded.model.action_spec.representation == "path"
    assert loaded.training["step"] == 4


def test_minimal_defaults_to_the_original_script(folder):
    assert train(folder, "minimal", "--architecture=minimal") == 0
    loaded = load_checkpoint(folder / "minimal" / "checkpoint.pt")
    schedule, spec = loaded.model.schedule, loaded.model.action_spec
    assert (schedule.beta_schedule, schedule.prediction_type) == ("linear", "epsilon")
    assert (spec.representation, spec.normalized) == ("raw", False)
    assert loaded.model.config.condition == "none"
    config = loaded.training["config"]
    assert (config["lr_schedule"], config["ema_decay"]) == ("cosine_by_epoch", 0.0)
    for name, weight in loaded.weights.items():
        assert torch.equal(weight, loaded.model.state_dict()[name])
    lines = (folder / "minimal" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["lr"] for line in lines] == pytest.approx([0.5e-3, 0.0])
    told = ("--lr-schedule", "warmup_cosine", "--ema-decay", 0.9, "--overwrite")
    assert train(folder, "minimal", "--architecture=minimal", *told) == 0
    config = load_checkpoint(folder / "minimal" / "checkpoint.pt").training["config"]
    assert (config["lr_schedule"], config["ema_decay"]) == ("warmup_cosine", 0.9)


def test_evaluate_writes_protocols_by_steps(folder, checkpoint, capsys):
    status = vj2_ddim(
        *("evaluate", checkpoint, folder / "val", "--steps", 4, "--steps", 10),
        *("--train-data", folder / "train", "--num-generated", 8, "--json", folder / "e.json"),
    )
    assert status == 0
    found = json.loads((folder / "e.json").read_text())
    assert {"conditional", "denoise@0.25", "denoise@0.5", "denoise@0.75", "generate"} < set(found)
    for by_steps in found.values():
        assert list(by_steps) == ["4", "10"]
        for measures in by_steps.values():
            assert all(isinstance(value, float | None) for value in measures.values())
    printed = capsys.readouterr().out
    for word in ("conditional", "denoise@0.25", "generate"):
        assert word in printed
    assert "…" not in printed  # the numbers can be read, whatever the width of the terminal
    assert f"{found['conditional']['10']['mse']:.3g}" in printed


def test_evaluate_is_reproducible_and_agrees_with_the_run(folder, checkpoint):
    for name in ("a", "b"):
        vj2_ddim(
            *("evaluate", checkpoint, folder / "val", "--steps", 10, "--num-sequences", 4),
            *("--train-data", folder / "train", "--num-generated", 4),
            *("--json", folder / f"{name}.json"),
        )
    one = (folder / "a.json").read_text()
    assert one == (folder / "b.json").read_text()
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    for protocol, by_steps in json.loads(one).items():
        assert last[protocol]["10"] == pytest.approx(by_steps["10"], rel=1e-5, nan_ok=True)


def test_export_then_inspect(bundle, folder, capsys):
    assert vj2_ddim("inspect", bundle, "--json", folder / "i.json") == 0
    found = json.loads((folder / "i.json").read_text())
    printed = capsys.readouterr().out
    manifest = read_bundle(bundle)
    assert found["parity"] == json.loads((bundle / "bundle.json").read_text())["parity"]
    for name, digest in manifest.graphs.items():
        assert digest in found["graphs"][name]
    assert "sketch" in found["condition"]
    assert "CPUExecutionProvider" in found["runs on"]
    for word in ("representation", "path", "schedule", "cosine", "parity", "provenance"):
        assert word in printed


def test_plan_with_a_picture(bundle, folder, capsys):
    sketch = np.array([[0.1, 0.2, 0.8, 0.9, 0.2, 0.6], [0.5, 0.5, 0.5, 0.5, 0.1, 0.4]], "f4")
    np.savez(folder / "conditions.npz", sketch=sketch)
    status = vj2_ddim(
        *("plan", bundle, "--conditions", folder / "conditions.npz", "--out", folder / "p.npy"),
        *("--picture", folder / "p.png", "--num-inference-steps", 3),
    )
    assert status == 0
    plans = np.load(folder / "p.npy")
    assert plans.shape == (2, LENGTH, 3)
    assert is_valid(plans, read_bundle(bundle).action_spec).all()
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "2 plans" in capsys.readouterr().out


def test_an_existing_run_or_bundle_is_not_replaced_by_accident(folder, checkpoint, bundle, capsys):
    before = checkpoint.read_bytes()
    assert train(folder, "run") == 1
    assert "--resume" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before
    assert vj2_ddim("export", checkpoint, "--out", bundle) == 1
    assert "overwrite" in capsys.readouterr().err
    assert train(folder, "run", "--resume") == 0
    assert vj2_ddim("inspect", bundle) == 0


def test_wrong_words_are_refused_by_name(folder, capsys):
    for option, value in (
        ("--architecture", "unet"),
        ("--condition", "text"),
        ("--representation", "spline"),
        ("--prediction-type", "score"),
        ("--beta-schedule", "sigmoid"),
        ("--wandb", "maybe"),
        ("--device", "tpu"),
    ):
        assert train(folder, "never", option, value) == 1
        error = capsys.readouterr().err
        assert value in error
        assert "Traceback" not in error
    assert not (folder / "never").exists()


def test_a_judge_named_on_the_command_line_keeps_the_best(folder, capsys):
    judge = ("--judge", "builders.training:make_judge=0.9,0.5")
    assert train(folder, "judged", *judge) == 0
    best = load_checkpoint(folder / "judged" / "best.pt")
    assert (best.metrics["success"], best.training["step"]) == (0.9, 2)
    last = load_checkpoint(folder / "judged" / "checkpoint.pt")
    assert (last.metrics["success"], last.training["step"]) == (0.5, 4)
    for wrong, said in (
        ("nobody", "--judge 'nobody' is unknown; use MODULE:FUNCTION"),
        ("builders.training:nothing", "cannot be loaded"),
        ("no.such.module:nothing", "cannot be loaded"),
    ):
        assert train(folder, "never", "--judge", wrong) == 1
        assert said in capsys.readouterr().err
    assert not (folder / "never").exists()


def test_what_a_distribution_registers_is_found_by_its_name(monkeypatch):
    point = EntryPoint("touch", "builders.training:make_cost", COSTS)
    monkeypatch.setattr(by_name, "entry_points", lambda group: [point] * (group == COSTS))
    context = {"sketch": np.zeros((1, 6))}
    one, two = (
        find_by_name(COSTS, text, "cost")(context, make_gestures(1)[:, None])
        for text in ("touch", "touch=2")
    )
    np.testing.assert_allclose(two, 2 * one)
    with pytest.raises(ConfigError, match="one of those installed: touch"):
        find_by_name(COSTS, "screen", "cost")


def test_all_that_the_shipped_denoiser_was_trained_with_is_an_option(folder):
    more = ("--num-cycles", 2, "--auxiliary-weight", 1.0, "--condition-layers", 1)
    more += ("--condition-tokens", 5, "--longest-goal", 4, "--noises-per-example", 3)
    more += ("--epoch-share", 0.5, "--timestep-spacing", "leading")
    assert train(folder, "options", *more) == 0
    loaded = load_checkpoint(folder / "options" / "checkpoint.pt")
    config, model = loaded.training["config"], loaded.model.config
    assert (config["num_cycles"], config["auxiliary_weight"], config["longest_goal"]) == (2, 1.0, 4)
    assert (config["noises_per_example"], config["epoch_share"]) == (3, 0.5)
    assert (model.condition_layers, model.condition_tokens) == (1, 5)
    assert loaded.model.schedule == NoiseSchedule(timestep_spacing="leading")


def test_train_ranker_then_export_and_plan(folder, checkpoint, capsys):
    small = ("--width", 16, "--num-layers", 1, "--nhead", 2, "--num-problems", 12)
    small += ("--num-sampled", 2, "--num-epochs", 2, "--batch-size", 4, "--held-out-share", 0.4)
    command = ("train-ranker", checkpoint, folder / "train", "--cost")
    cost = "builders.training:make_cost"
    assert vj2_ddim(*command, cost, *small) == 0
    printed = capsys.readouterr().out
    for word in ("spearman", "best_in_1", "ranker.pt"):
        assert word in printed
    run = checkpoint.parent
    assert not list(run.glob("ranker.pt.*"))
    trained = load_ranker(run / "ranker.pt", load_checkpoint(checkpoint).model)
    assert (trained.ranker.config.width, trained.ranker.config.num_problems) == (16, 12)
    assert vj2_ddim(*command, cost, *small) == 1
    assert "--overwrite" in capsys.readouterr().err
    judged = (*small, "--judge", "builders.training:make_judge=0.1,0.9,0.9", "--overwrite")
    assert vj2_ddim(*command, cost + "=2", *judged) == 0
    assert "success" in capsys.readouterr().out
    assert vj2_ddim(*command, "nothing", "--out", folder / "other.pt") == 1
    assert "--cost 'nothing' is unknown" in capsys.readouterr().err
    bundle = folder / "ranked"
    assert vj2_ddim("export", checkpoint, "--out", bundle, "--ranker", run / "ranker.pt") == 0
    assert read_bundle(bundle).provenance["ranker"]["config"]["width"] == 16
