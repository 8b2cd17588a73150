"""Bundles damaged field by field and byte by byte: a named error, or just the bundle it was."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from builders.bundles import make_bundle
from builders.fuzz import fuzzed
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_plugin.bundle import DIGEST, _digest, read_bundle
from vj2_ddim_plugin.errors import BundleError, VJ2DDIMError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.graph_file import require_self_contained
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer

GOAL = {"goal": np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 2, 3)}
ODD_NUMBERS = [0, -1, 1, 2, 7, 10**8, 10**19, 0.5, -0.0, 5e-324, 1e-12, 1e30, 1.7e308, True]
ODD_TEXTS = ["", "x", "../denoiser.onnx", "/dev/zero", "\ud800", "0" * 64, "none", "sketch", "raw"]
odd = st.recursive(
    st.sampled_from([*ODD_NUMBERS, *ODD_TEXTS, None]) | st.integers(-5, 300) | st.floats(-2, 300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("fuzz") / "sound")


@pytest.fixture(scope="module")
def planned(sound):
    return plan(sound)


def plan(bundle):
    settings = {"provider": "cpu", "num_threads": 1, "num_inference_steps": 2, "num_candidates": 2}
    with DDIMOptimizer.from_bundle(bundle, **settings) as optimizer:
        result = optimizer.optimize(PlanningProblem(GOAL, seed=1))
        assert np.isfinite(result.actions).all()
        assert is_valid(result.actions, optimizer.action_spec).all()
        return result.actions


@contextmanager
def restored(bundle, name):
    """A file of the bundle, put back as it was afterwards."""
    content = (bundle / name).read_bytes()
    try:
        yield bundle / name, content
    finally:
        (bundle / name).write_bytes(content)


def places(value, path=()):
    """Every place in a manifest, as the keys that lead there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def changed_manifest(content, draw):
    """One or two places replaced, taken away, or given a neighbour."""
    manifest = json.loads(content)
    for _ in range(draw(st.integers(1, 2))):
        *outer, last = draw(st.sampled_from(list(places(manifest))))
        entry = manifest
        for key in outer:
            entry = entry[key]
        what = draw(st.sampled_from(["replace", "replace", "delete", "add"]))
        if what == "delete":
            del entry[last]
        elif what == "add" and isinstance(entry, dict):
            entry[draw(st.text(max_size=5))] = draw(odd)
        else:
            entry[last] = draw(odd)
    return manifest


@fuzzed
@given(st.data())
def test_a_manifest_field_by_field(sound, planned, data):
    """Stamped anew, so that the digest does not answer for the checks of the fields."""
    with restored(sound, "bundle.json") as (path, content):
        manifest = changed_manifest(content, data.draw)
        if data.draw(st.booleans()):
            manifest.pop(DIGEST, None)
            manifest["schema_version"] = 1
        elif DIGEST in manifest:
            manifest[DIGEST] = _digest(manifest)
        path.write_text(json.dumps(manifest))
        try:
            read = read_bundle(sound)
            actions = plan(sound)
        except VJ2DDIMError:
            return
    assert read.schedule.num_train_timesteps <= 100_000
    assert read.parity["worst_error"] <= read.parity["tolerance"]
    assert actions.shape[1:] == (read.action_spec.length, read.action_spec.num_channels)
    if json.loads(content)["action_spec"] == read.action_spec.to_dict():
        assert actions.shape == planned.shape


def changed_bytes(content, draw):
    """Bits flipped, a piece taken out, doubled, or overwritten."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        size = draw(st.integers(0, 40))
        what = draw(st.sampled_from(["flip", "cut", "double", "write", "end"]))
        if what == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut":
            del content[at : at + size]
        elif what == "double":
            content[at:at] = content[at : at + size]
        elif what == "write":
            content[at : at + size] = draw(st.binary(max_size=size))
        else:
            del content[at:]
    return bytes(content)


@fuzzed
@given(st.data())
def test_the_bytes_of_any_file(sound, planned, data):
    """Whatever is accepted plans the very same."""
    name = data.draw(st.sampled_from(["bundle.json", "bundle.json", "denoiser.onnx"]))
    with restored(sound, name) as (path, content):
        path.write_bytes(changed := changed_bytes(content, data.draw))
        try:
            read_bundle(sound)
        except BundleError:
            return
        assert name == "bundle.json" or changed == content
        np.testing.assert_array_equal(plan(sound), planned)


@fuzzed
@given(st.data())
def test_the_bytes_of_a_graph_with_their_hash(sound, data):
    """Who can write the hash as well cannot bring in another file, nor anything but an error."""
    name = data.draw(st.sampled_from(["denoiser.onnx", "condition.onnx"]))
    with restored(sound, name) as (path, content), restored(sound, "bundle.json") as (said, text):
        path.write_bytes(changed_bytes(content, data.draw))
        manifest = json.loads(text)
        try:
            require_self_contained(path.read_bytes(), name)
        except BundleError:
            return
        manifest["graphs"][name] = sha256_of(path)
        manifest[DIGEST] = _digest(manifest)
        said.write_text(json.dumps(manifest))
        try:
            plan(sound)
        except VJ2DDIMError:
            return
