"""The sweep that is shipped: as Weights & Biases starts it, and as a local grid."""

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from builders.training import LENGTH, vj2_ddim, write_data

from vj2_ddim_training.checkpoint import load_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
SWEEP = yaml.safe_load((EXAMPLES / "sweep.yaml").read_text())
SMALL = {
    "sequence_length": LENGTH, "num_epochs": 1, "batch_size": 6, "num_validation": 2,
    "num_layers": 1, "nhead": 2, "wandb_mode": "disabled",
}  # fmt: skip


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The local grid, in a folder with a base."""
    write_data(tmp_path / "data", 6)
    data = {name: str(tmp_path / "data") for name in ("data_dir", "val_data_dir")}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**SMALL, **data}))
    command = tmp_path / "bin" / "vj2-ddim"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > told\n')  # and run below, in this process
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("sweep", EXAMPLES / "sweep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(command, **how):
        subprocess.run(command, **how)
        assert vj2_ddim(*Path("told").read_text().splitlines()) == 0

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run))
    return module


def test_the_command_is_what_weights_and_biases_builds(example):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    chosen = {"lr": 0.001, "d_model": 64, "prediction_type": "v_prediction"}
    args = utils.create_sweep_command_args(
        {"args": {name: {"value": value} for name, value in chosen.items()}}
    )
    parts = {"${program}": [SWEEP["program"]], "${args}": args["args"]}
    template = utils.create_sweep_command(list(SWEEP["command"]))
    expected = [word for part in template for word in parts.get(part, [part])]
    assert example.command_of(SWEEP, chosen) == expected
    assert "--d_model=64" in expected


def test_a_local_grid_trains_every_combination(example, tmp_path, capsys):
    sweep = {**SWEEP, "parameters": {**SWEEP["parameters"], "d_model": {"values": [16]}}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    example.main("sweep.yaml")
    runs = {}
    for folder in sorted((tmp_path / "sweep").iterdir()):
        loaded = load_checkpoint(folder / "checkpoint.pt")
        assert loaded.model.config.d_model == 16
        line = json.loads((folder / "metrics.jsonl").read_text())
        runs[folder.name] = loaded.training["config"]["lr"], line["conditional"]["10"]
    assert {name: lr for name, (lr, _) in runs.items()} == {"grid-1": 3e-4, "grid-2": 1e-3}
    best = max(runs, key=lambda name: runs[name][1]["mean_snr_db"])
    assert f"the best mean_snr_db: {runs[best][1]['mean_snr_db']} {best}" in capsys.readouterr().out
    assert len(example.combinations(SWEEP["parameters"])) == 4
