"""Bundles made by hand, damaged in every way, and what is said about it."""

import math
import os
import re
import shutil

import numpy as np
import pytest
from builders.bundles import (
    LATENTS,
    PARITY,
    SCHEDULE,
    SPEC,
    describe,
    edit,
    make_bundle,
    save_graph,
    tensor,
)
from onnx import TensorProto, helper

from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import BundleError
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "sound")


@pytest.fixture
def bundle(sound, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(sound, tmp_path / "bundle")


def test_a_bundle_comes_back_as_it_was_written(sound):
    read = read_bundle(str(sound))
    assert (read.action_spec, read.schedule, read.condition) == (SPEC, SCHEDULE, LATENTS)
    assert read.parity == PARITY.to_dict()
    assert read.provenance == {"made_by": "hand"}
    assert set(read.graphs) == {"denoiser.onnx", "condition.onnx"}
    assert all((read.folder / name).is_file() for name in read.graphs)


def test_an_unconditional_bundle_has_no_condition_graph(tmp_path):
    folder = make_bundle(tmp_path / "bundle", conditional=False)
    assert "condition.onnx" not in read_bundle(folder).graphs
    model = BundleModel(folder, "cpu")
    assert model.encode({}) is None
    sample = np.ones((2, 6, 1), np.float32)
    np.testing.assert_array_equal(model.denoise(sample, 7, None), 0.5 * sample)
    result = DDIMOptimizer.from_bundle(folder, provider="cpu", num_inference_steps=2).optimize(
        PlanningProblem()
    )
    assert is_valid(result.actions, SPEC).all()


def test_a_conditional_bundle_feeds_the_condition_to_the_denoiser(sound):
    model = BundleModel(sound, "cpu")
    goal = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    encoded = model.encode({"goal": goal})
    np.testing.assert_array_equal(encoded.condition, goal)
    np.testing.assert_array_equal(encoded.null_condition, np.zeros_like(goal))
    found = model.denoise(np.zeros((2, 6, 1), np.float32), 3, encoded.condition)
    np.testing.assert_allclose(found[:, 0, 0], goal.mean(axis=(1, 2)))
    assert model.provider == "CPUExecutionProvider"


def test_a_bundle_can_be_moved(bundle, tmp_path):
    moved = bundle.rename(tmp_path / "elsewhere")
    assert read_bundle(moved).folder == moved


def test_a_folder_that_is_not_there_or_not_a_bundle(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BundleError, match=r"bundle\.json is missing"):
            read_bundle(folder)


@pytest.mark.parametrize("name", ["denoiser.onnx", "condition.onnx"])
def test_a_missing_a_changed_and_a_truncated_graph_are_named(bundle, name):
    content = (bundle / name).read_bytes()
    for position in (0, 40, -1):
        changed = bytearray(content)
        changed[position] ^= 1
        (bundle / name).write_bytes(changed)
        with pytest.raises(BundleError, match=f"{name} was changed"):
            DDIMOptimizer.from_bundle(bundle, provider="cpu")
    (bundle / name).write_bytes(content[:-1])
    with pytest.raises(BundleError, match=f"{name} was changed"):
        read_bundle(bundle)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        read_bundle(bundle)


@pytest.mark.parametrize("version", [0, 3, "1", None, [1], 10**19])
def test_an_unknown_schema_version_is_refused(bundle, version):
    edit(bundle, "schema_version", version)
    with pytest.raises(BundleError, match=r"schema_version is .*this plugin reads 1 and 2"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "path",
    [
        ("schema_version",),
        ("action_spec",),
        ("schedule",),
        ("condition",),
        ("graphs",),
        ("parity",),
        ("provenance",),
        ("action_spec", "action_low"),
        ("action_spec", "press_channel"),
        ("schedule", "prediction_type"),
        ("schedule", "final_alpha_cumprod"),
        ("condition", "kind"),
        ("condition", "inputs"),
        ("condition", "num_tokens"),
        ("condition", "inputs", "goal", "dtype"),
        ("condition", "inputs", "goal", "shape"),
        ("parity", "worst_error"),
    ],
)
def test_a_missing_field_is_named(bundle, path):
    edit(bundle, *path, ...)
    with pytest.raises(BundleError, match=path[-1]):
        read_bundle(bundle)


@pytest.mark.parametrize("where", [(), ("action_spec",), ("schedule",), ("condition",)])
def test_an_unknown_field_is_named(bundle, where):
    edit(bundle, *where, "flavour", 1)
    with pytest.raises(BundleError, match="flavour"):
        read_bundle(bundle)


@pytest.mark.parametrize("field", ["action_spec", "schedule", "condition", "graphs", "parity"])
@pytest.mark.parametrize("value", [None, 3, "text", [1]])
def test_a_field_of_the_wrong_kind_is_named(bundle, field, value):
    edit(bundle, field, value)
    with pytest.raises(BundleError, match=field):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"not json", b"\xff\xfe\x00", b"[]", b"3", b"null", b'"text"']
)
def test_a_manifest_that_is_not_a_json_object_is_refused(bundle, content):
    (bundle / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "change",
    [
        ("action_spec", "action_block", "10"),
        ("action_spec", "action_low", ["a", 0, 0]),
        ("action_spec", "action_low", 0),
        ("action_spec", "action_high", [0, 0, 0]),
        ("action_spec", "channels", ["x"]),
        ("action_spec", "representation", "wavelet"),
        ("schedule", "beta_schedule", "banana"),
        ("schedule", "num_train_timesteps", None),
        ("schedule", "beta_start", "small"),
        ("schedule", "beta_end", float("nan")),
        ("condition", "inputs", "goal", "dtype", "float64"),
        ("condition", "inputs", "goal", "shape", ["wide"]),
        ("condition", "inputs", "goal", 3),
        ("condition", "num_tokens", "many"),
        ("condition", "num_tokens", 0),
        ("condition", "width", 0),
        ("condition", "kind", "none"),
        ("condition", "inputs", {}),
        ("graphs", "denoiser.onnx", 5),
        ("graphs", "denoiser.onnx", "0" * 64),
        ("graphs", "extra.onnx", "0" * 64),
        ("graphs", "../denoiser.onnx", "0" * 64),
        ("graphs", "condition.onnx", ...),
        ("parity", "worst_error", "small"),
        ("parity", "worst_error", float("nan")),
        ("parity", "worst_error", None),
    ],
    ids=str,
)
def test_a_wrong_or_inconsistent_value_is_refused_by_file_or_field(bundle, change):
    edit(bundle, *change)
    with pytest.raises(BundleError, match=r"bundle\.json|\.onnx was changed"):
        read_bundle(bundle)


def test_epsilon_with_zero_terminal_snr_is_refused_in_a_bundle_too(bundle):
    edit(bundle, "schedule", "prediction_type", "epsilon")
    edit(bundle, "schedule", "beta_schedule", "zero_terminal_snr")
    with pytest.raises(BundleError, match=r"bundle\.json.*v_prediction"):
        read_bundle(bundle)


def test_a_float64_input_is_named(bundle):
    edit(bundle, "condition", "inputs", "goal", "dtype", "float64")
    with pytest.raises(BundleError, match="'goal' has dtype 'float64'; expected 'float32'"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"condition": ConditionSpec("latents", {"state": (2, 3)}, 2, 3)},
        {"condition": ConditionSpec("latents", {"goal": (2, 4)}, 2, 3)},
        {"condition": ConditionSpec("latents", {"goal": (2, 3)}, 5, 3)},
        {
            "action_spec": ActionSpec(
                action_block=10, min_press_steps=3, path_knots=3, max_press_steps=6
            )
        },
    ],
)
def test_graphs_that_do_not_fit_the_manifest_are_refused(tmp_path, change):
    folder = make_bundle(tmp_path / "bundle", **change)
    with pytest.raises(BundleError, match=r"(denoiser|condition)\.onnx: inputs are .*manifest"):
        BundleModel(folder, "cpu")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", ": ONNX Runtime cannot load it"), (b"these bytes are no graph", " is no ONNX model")],
)
def test_a_graph_that_onnx_runtime_cannot_load_is_named(tmp_path, content, said):
    folder = make_bundle(tmp_path / "bundle", conditional=False)
    (folder / "denoiser.onnx").write_bytes(content)
    describe(folder, condition=ConditionSpec())
    with pytest.raises(BundleError, match=rf"denoiser\.onnx{said}"):
        BundleModel(folder, "cpu")


# A denoiser whose output has another shape was once broadcast into plans.
def test_a_denoiser_of_another_output_shape_is_refused(tmp_path):
    inputs = [tensor("sample", ["B", 6, 1]), tensor("timestep", ["B"], TensorProto.INT64)]
    nodes = [helper.make_node("ReduceMean", ["sample"], ["model_output"], axes=[1], keepdims=1)]
    save_graph(tmp_path / "denoiser.onnx", nodes, inputs, [tensor("model_output", ["B", 1, 1])])
    describe(tmp_path, condition=ConditionSpec())
    with pytest.raises(BundleError, match="shape"):
        DDIMOptimizer.from_bundle(tmp_path, provider="cpu")


def test_a_condition_graph_without_null_condition_is_refused(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    nodes, shape = [helper.make_node("Identity", ["goal"], ["condition"])], ["B", 2, 3]
    path = folder / "condition.onnx"
    save_graph(path, nodes, [tensor("goal", shape)], [tensor("condition", shape)])
    describe(folder)
    with pytest.raises(BundleError, match="null_condition"):
        BundleModel(folder, "cpu")


def test_an_input_of_another_dtype_is_refused(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    nodes = [
        helper.make_node("Cast", ["goal"], [name], to=TensorProto.FLOAT)
        for name in ("condition", "null_condition")
    ]
    shape = ["B", 2, 3]
    outputs = [tensor("condition", shape), tensor("null_condition", shape)]
    goal = tensor("goal", shape, TensorProto.DOUBLE)
    save_graph(folder / "condition.onnx", nodes, [goal], outputs)
    describe(folder)
    with pytest.raises(BundleError, match=r"condition\.onnx: inputs are .*double"):
        BundleModel(folder, "cpu")


def test_a_manifest_never_holds_nan(tmp_path):
    with pytest.raises(BundleError, match="provenance cannot be written as JSON"):
        make_bundle(tmp_path / "bundle", provenance={"loss": float("nan")})
    assert not (tmp_path / "bundle" / "bundle.json").exists()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("action_spec", "normalized"), "no"),
        (("action_spec", "horizon"), 1.5),
        (("action_spec", "action_block"), 10.5),
        (("action_spec", "min_press_steps"), 2.5),
        (("action_spec", "rate_hz"), None),
        (("action_spec", "channels"), ["x", "x", "press"]),
        (("schedule", "num_train_timesteps"), 20.5),
        (("condition", "kind"), "banana"),
        (("condition", "inputs"), {"goal": {"shape": "23", "dtype": "float32"}}),
        (("condition", "inputs"), {"goal": {"shape": [-2, 3], "dtype": "float32"}}),
        (("condition", "num_tokens"), 2.7),
        (("condition", "num_tokens"), 10**8),
        (("schema_version",), True),
        (("parity", "worst_error"), -1.0),
    ],
)
def test_a_mistyped_field_is_a_named_bundle_error(bundle, path, value):
    edit(bundle, *path, value)
    with pytest.raises(BundleError, match=path[-1]):
        read_bundle(bundle)


PARITY_ABOVE = {**PARITY.to_dict(), "worst_error": 2e-4}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("parity",), PARITY_ABOVE, "above its own tolerance"),
        (("parity", "tolerance"), 1e30, "tolerance"),
        (("parity", "tolerance"), ..., "tolerance"),
        (("parity", "batches"), [1.5], "batches"),
        (("parity", "num_inference_steps"), 10**8, "num_inference_steps"),
        (("parity", "seed"), -1, "seed"),
        (("parity", "flavour"), 1, "flavour"),
        (("parity", "ranker_error"), 1e-6, "come together"),
        (("action_spec", "rate_hz"), -500.0, "rate_hz"),
        (("action_spec", "action_block"), 10**8, "action_block"),
        (("action_spec", "horizon"), 10**19, "horizon"),
        (("action_spec", "action_high"), [1e300, 1, 1], "within 1e"),
        (("schedule", "num_train_timesteps"), 10**8, "num_train_timesteps"),
        (("schedule", "final_alpha_cumprod"), 5e-324, "final_alpha_cumprod"),
        (("condition", "kind"), "sketch", "kind 'sketch'"),
        (("condition", "inputs", "sketch"), {"shape": [2], "dtype": "float32"}, "sketch"),
        (("condition", "inputs", "goal", "flavour"), 1, "flavour"),
        (("condition", "inputs", "goal", "shape"), [2**16, 2**16], "numbers"),
        (("condition", "inputs", "goal", "shape"), [10**8, 3], "along an axis"),
        (("condition", "num_tokens"), 10**8, "num_tokens"),
        (("condition", "guidance"), "no", "guidance"),
        (("graphs", "denoiser.onnx"), [], "was changed"),
    ],
)
def test_every_field_is_checked_against_the_others(bundle, version, path, value, said):
    edit(bundle, "schema_version", version)
    if version == 1:
        edit(bundle, "manifest_sha256", ..., stamped=False)
    edit(bundle, *path, value, stamped=version == 2)
    with pytest.raises(BundleError, match=said):
        read_bundle(bundle)


def test_a_manifest_that_was_changed_is_found_out(bundle):
    for path in (("provenance", "made_by"), ("provenance", "later")):
        edit(bundle, *path, "another hand", stamped=False)
        with pytest.raises(BundleError, match=r"bundle\.json was changed: its manifest_sha256"):
            read_bundle(bundle)
    edit(bundle, "manifest_sha256", ..., stamped=False)
    with pytest.raises(BundleError, match=r"missing fields \['manifest_sha256'\]"):
        read_bundle(bundle)
    edit(bundle, "schema_version", 1, stamped=False)
    assert read_bundle(bundle).provenance["later"] == "another hand"  # version 1 has no digest
    edit(bundle, "manifest_sha256", "0" * 64, stamped=False)
    with pytest.raises(BundleError, match=r"unknown fields \['manifest_sha256'\]"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"schedule": {', '"schedule": {}, "schedule": {', "'schedule' stands twice"),
        ('"rate_hz": 500.0', '"rate_hz": 500.0, "rate_hz": 1', "'rate_hz' stands twice"),
        ('"rate_hz": 500.0', '"rate_hz": 1e400', "not a finite number"),
        ('"rate_hz": 500.0', '"rate_hz": NaN', "not a finite number"),
        ('"rate_hz": 500.0', '"rate_hz": ' + "9" * 5000, "an integer of 5000 digits"),
        ('"made_by": "hand"', '"made_by": ' + "[" * 1000 + "]" * 1000, "nested"),
    ],
)
def test_a_manifest_that_says_two_things_or_no_number_is_refused(bundle, old, new, said):
    text = (bundle / "bundle.json").read_text()
    assert old in text
    (bundle / "bundle.json").write_text(text.replace(old, new))
    with pytest.raises(BundleError, match=rf"bundle\.json: cannot be read as JSON .*{said}"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["bundle.json", "denoiser.onnx", "condition.onnx"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "found a folder"),
        (os.mkfifo, "found a named pipe"),
        (lambda path: path.symlink_to("nowhere"), "a link to nowhere that leads nowhere"),
        (lambda path: path.symlink_to(path.name), "Too many levels"),
        (lambda path: path.symlink_to("/dev/zero"), "found a device"),
    ],
)
def test_what_is_no_file_is_named_and_never_opened(bundle, name, make, said):
    (bundle / name).unlink()
    make(bundle / name)
    with pytest.raises(BundleError, match=rf"{re.escape(name)}: found .*{said}|{said}"):
        read_bundle(bundle)


def test_a_link_to_a_graph_is_followed_and_held_against_its_hash(bundle, tmp_path):
    blob = (bundle / "denoiser.onnx").rename(tmp_path / "blob")
    (bundle / "denoiser.onnx").symlink_to(blob)
    read_bundle(bundle)
    blob.write_bytes(b"")
    with pytest.raises(BundleError, match="was changed"):
        read_bundle(bundle)


def test_a_file_in_place_of_a_folder_and_a_name_that_is_none(bundle):
    with pytest.raises(BundleError, match=r"bundle\.json is a file, not a bundle"):
        read_bundle(bundle / "bundle.json")
    for folder in ("a\0b", "x" * 300, bundle / "bundle.json" / "x"):
        with pytest.raises(BundleError, match="is missing"):
            read_bundle(folder)


@pytest.mark.parametrize("value", [math.nan, {("a",): 1}, np.ones(2)])
def test_a_provenance_that_json_cannot_hold_is_refused_when_written(tmp_path, value):
    with pytest.raises(BundleError, match="provenance cannot be written as JSON"):
        make_bundle(tmp_path / "bundle", provenance={"value": value})


def test_a_provenance_with_numbers_for_keys_has_one_digest(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", provenance={"epochs": {10: "a", 9: "b", 1: ("c",)}})
    assert read_bundle(bundle).provenance == {"epochs": {"10": "a", "9": "b", "1": ["c"]}}
