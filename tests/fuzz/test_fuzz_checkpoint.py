"""Checkpoints damaged value by value and byte by byte: a named error, or the very same weights."""

import math
import zipfile
from copy import deepcopy

import numpy as np
import pytest
import torch
from builders.checkpoints import save
from builders.fuzz import fuzzed
from builders.training import make_model
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.diffusion_model import TorchSampler

NUMBERS = [0, -1, 1, 3, 250, 8000, 10**8, 10**300, 0.5, math.nan, math.inf, 5e-324, 1e30, True]
odd = st.recursive(
    st.sampled_from([*NUMBERS, "", "x", "latents", None, torch.zeros(2)]) | st.integers(-5, 300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
TENSORS = [
    lambda w: w * math.nan,
    lambda w: w * 1e30,
    lambda w: w + math.inf,
    lambda w: w.double(),
    lambda w: w.half(),
    lambda w: w.to(torch.complex64),
    lambda w: w.T.contiguous(),
    lambda w: w[:1],
    lambda w: w.reshape(-1),
    lambda w: torch.zeros(1).expand(10**9),
    lambda w: w.to("meta"),
    lambda w: w.to_sparse(),
]


@pytest.fixture(scope="module", params=["latents", "sketch"])
def sound(request, tmp_path_factory):
    """A checkpoint's folder, its content, and its model."""
    path = save(make_model(request.param), tmp_path_factory.mktemp("fuzz"))
    return path.parent, torch.load(path, weights_only=True), load_checkpoint(path).model


def places(value, path=()):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def sample(model):
    """Its denoiser's output for a sample of ones."""
    rows = np.ones((1, *model.action_spec.diffused_shape), np.float32)
    return TorchSampler(model).denoise(rows, 1, None)


def opened(path):
    """The model of a file that is accepted, which must compute; None where it is refused."""
    try:
        loaded = load_checkpoint(path)
    except CheckpointError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert len(said) < 1000
        assert "\n" not in said
        return None
    weights = {**loaded.weights, **loaded.model.state_dict()}
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert np.isfinite(sample(loaded.model)).all()
    return loaded.model


@fuzzed
@given(st.data())
def test_a_checkpoint_value_by_value(sound, data):
    folder, content, model = sound
    content = deepcopy(content)
    *outer, last = data.draw(st.sampled_from(list(places(content))))
    entry = content
    for key in outer:
        entry = entry[key]
    what = data.draw(st.sampled_from(["replace", "replace", "delete", "add"]))
    if what == "delete":
        del entry[last]
    elif what == "add" and isinstance(entry, dict):
        entry[data.draw(st.text(max_size=5))] = data.draw(odd)
    elif isinstance(entry[last], torch.Tensor) and data.draw(st.booleans()):
        change = data.draw(st.sampled_from(TENSORS))
        entry[last] = change(entry[last].reshape(len(entry[last]), -1))
    else:
        entry[last] = data.draw(odd)
    torch.save(content, folder / "changed.pt")
    found = opened(folder / "changed.pt")
    if found is not None and outer[:1] != ["ema_weights"]:
        assert all(map(torch.equal, found.state_dict().values(), model.state_dict().values()))


@fuzzed
@given(st.data())
def test_the_bytes_of_a_checkpoint(sound, data):
    folder, _, model = sound
    content = bytearray((folder / "checkpoint.pt").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        near = data.draw(st.sampled_from([0, len(content) * 9 // 10]))  # the pickle, the directory
        at = data.draw(st.integers(near, max(len(content) - 1, near)))
        if data.draw(st.booleans()) and at < len(content):
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            size = data.draw(st.integers(0, 40))
            content[at : at + size] = data.draw(st.binary(max_size=40))
    (folder / "changed.pt").write_bytes(content)
    found = opened(folder / "changed.pt")
    if found is not None:
        np.testing.assert_array_equal(sample(found), sample(model))
        assert all(map(torch.equal, found.state_dict().values(), model.state_dict().values()))


@fuzzed
@given(st.data())
def test_the_pickle_of_a_checkpoint_with_its_check_sum(sound, data):
    """Who writes the check sums as well cannot bring in code, memory, nor anything but an error."""
    folder, *_ = sound
    with zipfile.ZipFile(folder / "checkpoint.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    pickled = bytearray(parts[name])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(pickled) - 1))
        pickled[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    parts[name] = bytes(pickled)
    with zipfile.ZipFile(folder / "changed.pt", "w") as archive:
        for part, held in parts.items():
            archive.writestr(part, held)
    opened(folder / "changed.pt")
