"""Checkpoints: exact round trips, and every way a file can be wrong."""

import errno
import math
import os
import reprlib
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch
from builders.training import make_model

from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_training.checkpoint import FIELDS, Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser

GOLDEN = os.environ.get("VJ2_DDIM_GOLDEN")


def make_checkpoint(condition="latents", **model):
    model = make_model(condition, **model)
    weights = {name: weight + 1.0 for name, weight in model.state_dict().items()}
    metrics = {"validation_loss": 0.25, "generate": {"10": {"coverage": 0.5}}}
    training = {"step": 3, "config": {"lr": 0.1, "num_threads": None}}
    return Checkpoint(model, weights, training, "abc", metrics, {"made_by": "a test"})


@pytest.fixture
def path(tmp_path):
    save_checkpoint(make_checkpoint(), tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def original_content(length=250, d_model=8, nhead=2):
    """What the original script writes."""
    denoiser = MinimalDenoiser(length, 3, d_model, 2, nhead)
    return {"epoch": 2, "loss": 0.5, "model_state_dict": denoiser.state_dict()}


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        ("latents", {}),
        ("sketch", {"representation": "held", "patch_size": 5}),
        ("none", {"num_layers": 2}),
        ("none", {"architecture": "minimal", "dim_feedforward": 24}),
    ],
)
def test_round_trip_is_exact(tmp_path, condition, changes):
    saved = make_checkpoint(condition, **changes)
    save_checkpoint(saved, tmp_path / "deep" / "checkpoint.pt")
    loaded = load_checkpoint(tmp_path / "deep" / "checkpoint.pt")
    for part in ("config", "action_spec", "schedule", "condition"):
        assert getattr(loaded.model, part) == getattr(saved.model, part)
    assert not any(module.training for module in loaded.model.modules())
    both = [(of.model.state_dict(), of.weights) for of in (loaded, saved)]
    for found, expected in zip(*both, strict=True):
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    for field in ("training", "data_fingerprint", "metrics", "provenance"):
        assert getattr(loaded, field) == getattr(saved, field)
    assert os.listdir(tmp_path / "deep") == ["checkpoint.pt"]


def test_plain_torch_opens_it_without_pickled_code(path):
    content = torch.load(path, weights_only=True)
    assert set(content) == set(FIELDS)
    assert content["action_spec"]["action_block"] == 20
    assert content["input_shapes"] == {"state": [4, 5], "goal": [4, 5]}


def test_another_head_count_than_the_one_it_holds_is_refused(path):
    assert load_checkpoint(path, nhead=2).model.config.nhead == 2
    with pytest.raises(CheckpointError, match=r"its head count, 2; found nhead 4. Leave it out"):
        load_checkpoint(path, nhead=4)


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "format"])
def test_a_missing_field_is_named(path, field):
    content = torch.load(path, weights_only=True)
    del content[field]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"checkpoint.pt: lacks the fields \['{field}'\]"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("model", {"architecture": "dit"}, "missing fields.*d_model"),
        ("model", "dit", "ModelConfig"),
        ("action_spec", {}, "ActionSpec has missing fields"),
        ("schedule", {"beta_schedule": "linear", "surprise": 1}, "unknown fields.*surprise"),
        ("input_shapes", {}, "kind .latents. but has inputs"),
        ("input_shapes", ["state", "goal"], "do not fit"),
        ("input_shapes", {"state": [4], "goal": [4]}, "do not fit"),
        ("ema_weights", {}, "than its 0 weights"),
        ("ema_weights", 3, "do not fit"),
        ("model", {"d_model": 32}, r"(?s)do not fit one another.*size mismatch"),
    ],
)
def test_fields_that_do_not_fit_are_one_readable_error(path, field, value, named):
    content = torch.load(path, weights_only=True)
    content[field] = {**content[field], **value} if value == {"d_model": 32} else value
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


class TestFilesThatAreNotCheckpoints:
    def refused(self, path, match):
        with pytest.raises(CheckpointError, match=match) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)

    def test_missing_or_a_folder(self, tmp_path):
        self.refused(tmp_path / "no.pt", "no such file.*'vj2-ddim train' writes")
        self.refused(tmp_path, "found a folder, expected a checkpoint")

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04K\x01."])
    def test_foreign_bytes(self, tmp_path, content):
        (tmp_path / "x.pt").write_bytes(content)
        self.refused(tmp_path / "x.pt", "truncated, or not a checkpoint")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_truncated(self, path, share):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        self.refused(path, "truncated")

    def test_something_else_from_torch(self, tmp_path):
        others = [{"format": "vj2-ddim-checkpoint-99"}, {"format": torch.zeros(2)}]
        for content in ({"state_dict": {}}, [1, 2], torch.zeros(3), *others):
            torch.save(content, tmp_path / "x.pt")
            self.refused(tmp_path / "x.pt", "neither a checkpoint of this project.*nor")

    def test_pickled_code_is_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "sprung"),)

        torch.save({"format": Trap()}, tmp_path / "x.pt")
        self.refused(tmp_path / "x.pt", "cannot be opened")
        assert not (tmp_path / "sprung").exists()


class TestOriginalScript:
    def save(self, tmp_path, content):
        torch.save(content, tmp_path / "epoch_2.pth")
        return tmp_path / "epoch_2.pth"

    def test_sizes_come_from_the_weights(self, tmp_path):
        path = self.save(tmp_path, original_content(d_model=12, nhead=3))
        loaded = load_checkpoint(path, nhead=3)
        config, spec = loaded.model.config, loaded.model.action_spec
        assert (config.d_model, config.num_layers, config.dim_feedforward) == (12, 2, 256)
        assert spec.length == 250
        assert loaded.model.schedule.prediction_type == "epsilon"
        assert loaded.model.schedule.beta_schedule == "linear"
        weights = original_content(d_model=12, nhead=3)["model_state_dict"]
        assert list(loaded.model.denoiser.state_dict()) == list(weights)

    @pytest.mark.parametrize("length", [4, 50])
    def test_short_sequences(self, tmp_path, length):
        """The script's --sequence-length may be below the longest press of 75."""
        path = self.save(tmp_path, original_content(length))
        assert load_checkpoint(path, nhead=2).model.action_spec.length == length

    def test_without_nhead(self, tmp_path):
        path = self.save(tmp_path, original_content())
        with pytest.raises(
            CheckpointError, match=r"epoch_2.pth.*evaluate.*take it as --nhead .4 is"
        ):
            load_checkpoint(path)

    @pytest.mark.parametrize("nhead", [3, 16])
    def test_with_an_nhead_that_does_not_divide(self, tmp_path, nhead):
        path = self.save(tmp_path, original_content())
        with pytest.raises(CheckpointError, match=f"epoch_2.pth.*nhead {nhead} and d_model 8"):
            load_checkpoint(path, nhead=nhead)

    def test_with_a_missing_weight(self, tmp_path):
        layers = ["layers.0.linear1.weight", "layers.1.norm2.bias"]
        names = ["action_embedding.weight", "pos_encoder.pe", "output_projection.bias"]
        for name in [*names, *(f"transformer.{layer}" for layer in layers), "layer_norm.weight"]:
            content = original_content()
            del content["model_state_dict"][name]
            with pytest.raises(CheckpointError, match=f"(?s)epoch_2.pth.*{name}"):
                load_checkpoint(self.save(tmp_path, content), nhead=2)

    @pytest.mark.parametrize("weights", [{}, [], None, {"action_embedding.weight": 3}])
    def test_with_weights_of_something_else(self, tmp_path, weights):
        path = self.save(tmp_path, {"model_state_dict": weights})
        with pytest.raises(CheckpointError, match=r"epoch_2.pth.*original\s+script"):
            load_checkpoint(path, nhead=2)

    def test_with_other_channels(self, tmp_path):
        content = original_content()
        weights = content["model_state_dict"]
        weights["action_embedding.weight"] = torch.zeros(8, 4)
        with pytest.raises(CheckpointError, match="4 action channels; expected 3"):
            load_checkpoint(self.save(tmp_path, content), nhead=2)

    def test_without_its_history(self, tmp_path):
        content = {"model_state_dict": original_content()["model_state_dict"], "loss": None}
        loaded = load_checkpoint(self.save(tmp_path, content), nhead=2)
        assert loaded.training == {"epoch": None, "loss": None}

    @pytest.mark.skipif(not GOLDEN, reason="VJ2_DDIM_GOLDEN names no folder")
    def test_the_real_one_saved_as_ours_is_the_same_model(self, tmp_path):
        original = load_checkpoint(Path(GOLDEN) / "diffusion_checkpoint_epoch_2.pth", nhead=2)
        save_checkpoint(original, tmp_path / "ours.pt")
        ours = load_checkpoint(tmp_path / "ours.pt")
        sample, timesteps = torch.randn(2, 250, 3), torch.tensor([0, 900])
        with torch.no_grad():
            found = ours.model(sample, timesteps, None)
            assert torch.equal(found, original.model(sample, timesteps, None))


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed")],
)
@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_leaves_what_was_there(path, monkeypatch, error, earlier):
    before = path.read_bytes()
    if not earlier:
        path.unlink()

    def write_half(content, temporary):
        Path(temporary).write_bytes(before[: len(before) // 2])
        raise error

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(CheckpointError, match=f"cannot be written.*{error.args[-1]}") as caught:
        save_checkpoint(make_checkpoint(), path)
    assert str(path) in str(caught.value)
    assert "free some space" in str(caught.value)
    assert [entry.name for entry in path.parent.iterdir()] == (["checkpoint.pt"] if earlier else [])
    if earlier:
        assert path.read_bytes() == before


def test_an_interrupt_while_saving_leaves_what_was_there(path, monkeypatch):
    before = path.read_bytes()

    def interrupted(content, temporary):
        Path(temporary).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(make_checkpoint(), path)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_a_named_error(path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(make_checkpoint(), path / "inside_a_file" / "checkpoint.pt")


def test_replacing_an_open_checkpoint_keeps_the_copy(path, tmp_path):
    shutil.copy(path, tmp_path / "copy.pt")
    other = make_checkpoint(seed=5)
    save_checkpoint(other, path)
    found = load_checkpoint(path).model.state_dict()
    assert all(
        torch.equal(found[name], weight) for name, weight in other.model.state_dict().items()
    )
    earlier = load_checkpoint(tmp_path / "copy.pt").model.state_dict()
    assert not all(torch.equal(found[name], earlier[name]) for name in found)


def change(path, *names, value):
    """Save the checkpoint with one value replaced."""
    content = torch.load(path, weights_only=True)
    *outer, last = names
    entry = content
    for name in outer:
        entry = entry[name]
    entry[last] = value
    torch.save(content, path)
    return path


def with_entry(weight, value):
    weight = weight.clone()
    weight.view(-1)[0] = value
    return weight


def within_itself(depth):
    value = []
    for _ in range(depth):
        value = [value, value]
    return value


EMBED = "denoiser.embed.weight"
OF_CHANGED_WEIGHTS = {
    **{f"{v}": (lambda w, v=v: with_entry(w, v)) for v in (math.nan, -math.inf, 1e30, 2e6)},
    "complex": lambda w: w.to(torch.complex64),
    "double": lambda w: w.double(),
    "integers": lambda w: w.long(),
    "sparse": lambda w: w.to_sparse(),
    "meta": lambda w: w.to("meta"),
    "a number": lambda w: 3.0,
    "huge by claim": lambda w: torch.zeros(1).expand(10**10),
    "of another shape": lambda w: w.T.contiguous(),
}


@pytest.mark.parametrize("part", ["ema_weights", "weights"])
@pytest.mark.parametrize("name", OF_CHANGED_WEIGHTS)
def test_weights_that_compute_nothing_are_refused(path, part, name):
    weight = make_checkpoint().model.state_dict()[EMBED]
    change(path, part, EMBED, value=OF_CHANGED_WEIGHTS[name](weight))
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt.*(weight|tensor)") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("names", "value", "said"),
    [
        (("ema_weights", 3), torch.zeros(1), "weight 3"),
        (("ema_weights", "condition_encoder.latent_std"), torch.zeros(5), "std above 0"),
        (("weights", "another"), torch.zeros(1), "differ in names or shapes"),
        *((("model", "d_model"), size, "d_model") for size in (10**8, 10**300, -2, 7.5)),
        (("model", "d_model"), 8000, "larger network than its 18296 weights"),
        (("model", "num_layers"), 256, "larger network than its 18296 weights"),
        (("model", "num_layers"), 10**6, "num_layers"),
        *((("model", "condition_layers"), n, "larger|condition_layers") for n in (256, 10**9)),
        *((("model", "condition_tokens"), n, "larger|condition_tokens") for n in (4096, 10**9)),
        (("action_spec", "action_block"), 10**8, "action_block"),
        (("action_spec", "horizon"), 50_000, "larger network"),
        (("schedule", "num_train_timesteps"), 10**300, "num_train_timesteps"),
        (("schedule",), 3, "NoiseSchedule has missing fields"),
        (("input_shapes",), {"state": [10**8, 9], "goal": [10**8, 9]}, "along an axis"),
        (("input_shapes",), {"state": [60_000, 5], "goal": [60_000, 5]}, "larger network"),
        (("input_shapes",), {"state": [4, 5], "goal": [4, 5], "more": [1]}, "'more'"),
        (("input_shapes",), {"sketch": [6]}, "kind 'latents'"),
        (("provenance", "x"), math.nan, "JSON"),
        (("provenance", "x"), torch.zeros(2), "JSON"),
        (("provenance",), None, "provenance"),
        (("data_fingerprint",), 3, "data_fingerprint"),
        (("unheard_of",), 3, r"unknown ones, \['unheard_of'\]"),
        (("training", "x"), within_itself(60), "values within values"),
        (("action_spec", "channels"), within_itself(60), "values within values"),
    ],
    ids=lambda part: reprlib.repr(part)[:40],
)
def test_claims_are_refused_before_anything_is_built(path, names, value, said):
    change(path, *names, value=value)
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path)
    assert time.perf_counter() - began < 5.0


def rewritten(path, changed=lambda name, content: content, compression=zipfile.ZIP_STORED):
    """The archive with the contents of its parts changed."""
    with zipfile.ZipFile(path) as archive:
        parts = [(part, archive.read(part)) for part in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts:
            archive.writestr(name, changed(name, content))
    return path


class Sized:
    """Pickled as a call that torch allows, and that takes memory."""

    def __init__(self, function, size):
        self.call = function, (size,)

    def __reduce__(self):
        return self.call


def test_an_archive_is_held_against_itself(path):
    content = path.read_bytes()
    at = content.find(make_checkpoint().model.state_dict()["null_condition"].numpy().tobytes())
    path.write_bytes(content[: at + 3] + bytes([content[at + 3] ^ 0x40]) + content[at + 4 :])
    with pytest.raises(CheckpointError, match=r"check sum of its part .* was changed"):
        load_checkpoint(path)
    path.write_bytes(content)
    load_checkpoint(rewritten(path))
    with pytest.raises(CheckpointError, match="parts claim"):
        load_checkpoint(rewritten(path, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match="no tensors"):
        load_checkpoint(rewritten(path, lambda n, p: p + bytes(2**24 * n.endswith("pkl"))))
    torch.save({}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="does not begin as"):
        load_checkpoint(path)


@pytest.mark.parametrize("function", [bytearray, torch.Tensor, torch.storage.UntypedStorage])
def test_memory_is_not_taken_because_a_file_says_so(path, function):
    change(path, "metrics", "x", value=Sized(function, 1000))
    with pytest.raises(CheckpointError, match="a size that it only claims"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "a named pipe"),
        (lambda path: path.symlink_to("nowhere"), "a link to nowhere"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
    ],
)
def test_what_is_no_file_is_named_and_never_opened(tmp_path, make, said):
    make(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=rf"x\.pt: found {said}.*expected a checkpoint"):
        load_checkpoint(tmp_path / "x.pt")


def test_the_advice_of_others_stays_away(path):
    change(path, "metrics", "x", value=Sized(os.getenv, "HOME"))
    with pytest.raises(CheckpointError, match="no code of a file is run") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
