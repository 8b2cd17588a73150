"""Numbers of where a model is good, and their pictures."""

import json

import numpy as np
import pytest
import torch
from builders.training import make_examples, make_model, vj2_ddim, write_data

from vj2_ddim_plugin.ddim import add_noise
from vj2_ddim_plugin.gestures import decode, project
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.analysis import by_gesture_type, by_timestep
from vj2_ddim_training.checkpoint import Checkpoint, save_checkpoint
from vj2_ddim_training.evaluation import recreate_from
from vj2_ddim_training.gestures import gesture_type
from vj2_ddim_training.measures import recreation_measures

ALL = {"error_by_timestep", "quality_by_gesture_type", "convergence", "quality_by_model_size"}


def batch_of(num=12):
    return make_examples(num).batch(np.arange(num))


def test_an_exact_denoiser_has_no_error_at_any_timestep(monkeypatch):
    schedule = NoiseSchedule("cosine", "sample")
    model, batch = make_model("none", schedule=schedule), batch_of()._replace(inputs={})
    original = model.forward

    def exact(sample, timesteps, condition):
        return original(sample, timesteps, condition) * 0 + original.__self__.truth

    model.truth = torch.as_tensor(batch.original)
    monkeypatch.setattr(model, "forward", exact)
    found = by_timestep(model, batch)
    assert [int(t) for t in found][:: len(found) - 1] == [0, 999]
    for of in found.values():
        assert of["mse"] == of["mse_std"] == 0.0
        assert of["noise_mse"] < 1e-3  # float32, divided by little noise


def test_errors_by_timestep_are_those_of_each_sequence():
    model, batch = make_model("none", schedule=NoiseSchedule("cosine", "epsilon")), batch_of()
    batch = batch._replace(inputs={})
    found = by_timestep(model, batch, seed=3)["999"]
    noise = np.random.default_rng(3).standard_normal(batch.original.shape, np.float32)
    noisy = add_noise(batch.original, noise, 999, model.schedule)
    with torch.no_grad():
        output = model(torch.as_tensor(noisy), torch.full((12,), 999), None).numpy()
    errors = np.square(output - noise).mean(axis=(1, 2))
    assert found["noise_mse"] == pytest.approx(errors.mean(), rel=1e-5)
    assert found["noise_mse_std"] == pytest.approx(errors.std(), rel=1e-4)


def test_zero_terminal_snr_has_no_x0_at_its_end():
    schedule = NoiseSchedule("zero_terminal_snr", "v_prediction")
    assert "999" not in by_timestep(make_model(schedule=schedule), batch_of(2))


def test_quality_by_gesture_type_is_that_of_the_sequences_of_a_type():
    model, batch = make_model(), batch_of()
    found, spec = by_gesture_type(model, batch, 4, seed=1), model.action_spec
    types = gesture_type(batch.actions, spec)
    assert {name: of["num_sequences"] for name, of in found.items()} == {
        name: int((types == name).sum()) for name in set(types)
    }
    recreated = project(decode(recreate_from(model, batch, 0.5, 4, 1), spec), spec)
    for name, of in found.items():
        rows = types == name
        expected = recreation_measures(batch.actions[rows], recreated[rows], spec)
        for measure in ("mse", "mse_std", "mean_snr_db", "temporal_iou_std"):
            assert of[measure] == pytest.approx(expected[measure], rel=1e-9)


def test_evaluate_draws_what_there_is(tmp_path, capsys):
    write_data(tmp_path / "val", 6)
    for name, width in (("one", 16), ("two", 32)):
        model = make_model(d_model=width)
        save_checkpoint(Checkpoint(model, model.state_dict()), tmp_path / name / "checkpoint.pt")
    lines = [
        {"epoch": i, "step": i, "loss": 1 / i, "conditional": {"10": {"mean_snr_db": i}}}
        for i in (1, 2)
    ]
    lines[1]["validation_loss"] = None
    (tmp_path / "one" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    told = ("evaluate", tmp_path / "one" / "checkpoint.pt", tmp_path / "val", "--steps", 2)
    told += ("--num-generated", 4, "--plots", tmp_path / "plots", "--json", tmp_path / "e.json")
    assert vj2_ddim(*told) == 0
    names = {path.stem for path in (tmp_path / "plots").glob("*.png")}
    assert names == ALL - {"quality_by_model_size"}
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "e.json").read_text())
    of = found["denoise@0.5"]["2"]
    assert f"{of['mse']:.3g} ±{of['mse_std']:.2g}" in printed
    other = tmp_path / "two" / "checkpoint.pt"
    assert vj2_ddim(*told, "--compare", other) == 0
    assert {path.stem for path in (tmp_path / "plots").glob("*.png")} == ALL
    numbers = json.loads((tmp_path / "plots" / "analysis.json").read_text())
    both = json.loads((tmp_path / "e.json").read_text())
    assert {**both, "compared": 0} == {**found, "compared": 0}
    sizes = numbers["size"]
    assert sizes[str(other)]["mse"] == both["compared"][str(other)]["denoise@0.5"]["2"]["mse"]
    assert sizes[str(other)]["num_parameters"] > sizes[str(told[1])]["num_parameters"]
    assert set(numbers["timestep"]) == {str(told[1]), str(other)}
