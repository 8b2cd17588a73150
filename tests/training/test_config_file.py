"""A run told by a file, and written back as one."""

import json
from pathlib import Path

import pytest
import yaml
from builders.training import LENGTH, make_settings, vj2_ddim, write_data

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.settings import declared
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import DataSettings, ModelConfig, TrainingConfig
from vj2_ddim_training.config_file import read_config

GROUPS = (DataSettings, ModelConfig, TrainingConfig, NoiseSchedule)
SMALL = {
    "sequence_length": LENGTH, "num_epochs": 2, "batch_size": 6, "num_validation": 4,
    "d_model": 16, "num_layers": 1, "nhead": 2, "lr": 1e-3, "wandb_mode": "disabled",
    "action_low": [0, 0.0, 0], "judge": "builders.training:make_judge=0.9,0.5,0.1,0.2",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("config")
    write_data(root / "train", 12)
    write_data(root / "val", 6, seed=1)
    data = {"data_dir": str(root / "train"), "val_data_dir": str(root / "val")}
    (root / "small.yaml").write_text(yaml.safe_dump({**data, **SMALL}))
    command = ("train", "--config", root / "small.yaml", "--save-dir", root / "run")
    assert vj2_ddim(*command, "--batch_size", 4, "--seed", 3) == 0
    return root


def weights_of(run):
    loaded = load_checkpoint(run / "checkpoint.pt")
    return {name: weight.numpy().tobytes() for name, weight in loaded.weights.items()}


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(folder):
    config = load_checkpoint(folder / "run" / "checkpoint.pt").training["config"]
    assert (config["batch_size"], config["seed"]) == (4, 3)
    assert (config["num_epochs"], config["lr"], config["weight_decay"]) == (2, 1e-3, 1e-4)


def test_all_that_a_run_used_is_written_back(folder):
    written = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    names = {name for kind in GROUPS for name in declared(kind)} - {"resume", "overwrite"}
    assert set(written) == names | {"judge"}
    assert (written["representation"], written["condition"]) == ("path", "sketch")
    assert Path(written["data_dir"]) == (folder / "train").resolve()
    assert written["judge"] == SMALL["judge"]


def test_what_is_written_back_repeats_the_run_to_the_last_bit(folder):
    told = ("train", "--config", folder / "run" / "config.yaml")
    assert vj2_ddim(*told, "--save-dir", folder / "again") == 0
    assert weights_of(folder / "again") == weights_of(folder / "run")
    one, two = ((folder / name / "metrics.jsonl").read_text() for name in ("run", "again"))
    assert one == two
    one, two = (
        (folder / name / "config.yaml").read_text().replace(f"/{name}\n", "/\n")
        for name in ("run", "again")
    )
    assert one == two


def test_a_run_goes_on_by_its_file_and_what_is_told_again_must_agree(folder, capsys):
    told = ("train", "--config", folder / "again" / "config.yaml", "--resume")
    assert vj2_ddim(*told, "--d-model", 32) == 1
    assert "'d_model': (16, 32)" in capsys.readouterr().err
    assert vj2_ddim(*told, "--num-epochs", 3) == 0
    lines = (folder / "again" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    assert yaml.safe_load((folder / "again" / "config.yaml").read_text())["num_epochs"] == 3


def test_a_run_knows_its_judge_until_another_is_told(folder, capsys):
    run = folder / "judged"
    data = ("--config", folder / "small.yaml", "--save-dir", run)
    assert vj2_ddim("train", *data) == 0
    resume = ("train", "--save-dir", run, "--resume")
    assert vj2_ddim(*resume, "--num-epochs", 3) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["success"] for line in lines] == [0.9, 0.5, 0.9]  # made anew
    other = ("--judge", "builders.training:make_judge=0.3")
    assert vj2_ddim(*resume, "--num-epochs", 4, *other) == 0
    identity = json.loads((run / "run.json").read_text())
    assert identity["judge"] == other[1]
    (run / "run.json").write_text(json.dumps({**identity, "judge": "gone.judges:make"}))
    assert vj2_ddim(*resume, "--num-epochs", 5) == 1
    assert "--judge 'gone.judges:make' cannot be loaded" in capsys.readouterr().err


def test_minimal_told_in_a_file_is_the_original_scripts(tmp_path):
    settings = make_settings(tmp_path, num_epochs=1)
    write_data(settings.data_dir)
    told = {**SMALL, "architecture": "minimal", "num_epochs": 1, "timestep_spacing": "leading"}
    told = {name: value for name, value in told.items() if name != "judge"}
    told |= {name: str(settings.data_dir) for name in ("data_dir", "val_data_dir")}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(told))
    assert vj2_ddim("train", "--config", tmp_path / "m.yaml", "--save-dir", tmp_path / "m") == 0
    schedule = load_checkpoint(tmp_path / "m" / "checkpoint.pt").model.schedule
    assert (schedule.beta_schedule, schedule.timestep_spacing) == ("linear", "leading")


def test_numbers_of_yaml(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 1e-4\nweight_decay: 0\nclip_norm: 1.5E+2\n# a remark\n")
    assert read_config(tmp_path / "c.yaml") == {"lr": 1e-4, "weight_decay": 0, "clip_norm": 150.0}
    (tmp_path / "c.yaml").write_text("")
    assert read_config(tmp_path / "c.yaml") == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("batchsize: 4", "'batchsize' is no setting.*did you mean 'batch_size'"),
        ("zzz: 4", "'zzz' is no setting.*--help"),
        ("3: 4", "3 is no setting"),
        ("model: {d_model: 4}", "'model' is no setting"),
        ("batch_size: four", "'batch_size' must be an integer; found 'four'"),
        ("batch_size: 4.0", "'batch_size' must be an integer; found 4.0"),
        ("batch_size: true", "'batch_size' must be an integer; found True"),
        ("batch_size: 0", "'batch_size' must be at least 1 .*found 0"),
        ("lr: .nan", "'lr' must be .*found nan"),
        ("seed: 2024-01-01", "'seed' must be an integer; found datetime.date"),
        ("seed: 2024-99-99", "cannot be read as YAML"),
        ("architecture: unet", "'architecture' 'unet' is unknown; use one of dit, minimal"),
        ("channels: x,y", "'channels' must be a sequence, each text; found 'x,y'"),
        ("data_dir: 3", "'data_dir' must be"),
        ("beta_start: 2", "'beta_start' must be above 0 and below 1; found 2"),
        ("seed: 1\nseed: 2", "the key 'seed' stands twice"),
        ("a: &x [1]\nseed: *x", "it has an alias"),
        ("- seed", r"found \['seed'\], expected lines of 'name: value'"),
        ("seed: [1", "cannot be read as YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("seed: " + "[" * 5000, "cannot be read as YAML"),
        ("seed: " + "9" * 5000, "cannot be read as YAML"),
        ("a: 1\n---\nb: 2", "cannot be read as YAML"),
        (b"seed: \xff", "cannot be read as YAML"),
        (b"# " + b"x" * 2**20, "larger than 1048576 bytes"),
    ],
)
def test_what_a_file_cannot_say(tmp_path, content, said):
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=said) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_bad_file_ends_the_command_before_anything_is_made(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("batchsize: 4")
    told = ("train", "--config", tmp_path / "c.yaml", "--save-dir", tmp_path / "run")
    assert vj2_ddim(*told) == 1
    assert "did you mean 'batch_size'?" in capsys.readouterr().err
    assert vj2_ddim("train", "--config", tmp_path / "no.yaml") == 1
    assert "no.yaml: no such file, expected a YAML file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
