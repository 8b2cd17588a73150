"""Export: the graphs, the gate, and what is left on disk."""

import contextlib
import functools
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from builders.checkpoints import save
from builders.training import make_model

from vj2_ddim_export import export as export_module
from vj2_ddim_export.export import _write_graphs, export_bundle
from vj2_ddim_export.parity import BATCHES, measure_parity
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.ddim import ddim_sample
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, ParityError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser
from vj2_ddim_training.diffusion_model import TorchSampler

GOLDEN = os.environ.get("VJ2_DDIM_GOLDEN")
MODELS = {
    "sketch": {"condition": "sketch", "patch_size": 2},
    "latents": {"condition": "latents", "condition_layers": 1},
    "correspondences": {"condition": "latents", "condition_layers": 1, "correspondences": True},
    "unconditional": {"condition": "none", "representation": "held", "patch_size": 5},
    "minimal": {"condition": "none", "architecture": "minimal", "dim_feedforward": 24},
}


class Exported:
    """A model, its checkpoint, its bundle, and the parity that came with it."""

    def __init__(self, name, folder):
        self.model = make_model(**MODELS[name])
        self.checkpoint = save(self.model, folder)
        self.folder = folder / "bundle"
        self.parity = export_bundle(self.checkpoint, self.folder, seed=3)
        self.bundle = BundleModel(self.folder, "cpu")
        self.torch = TorchSampler(self.model)

    @property
    def graphs(self):
        return {path.name: onnx.load(path) for path in sorted(self.folder.glob("*.onnx"))}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Each model exported once, when it is first asked for: tracing takes seconds."""
    return functools.cache(lambda name: Exported(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(params=MODELS)
def exported(request, exports):
    return exports(request.param)


@pytest.fixture
def sketch(exports):
    return exports("sketch")


@pytest.fixture
def already_traced(sketch, monkeypatch):
    """What happens around tracing does not depend on it."""

    def copy(module, spec, path):
        shutil.copy(sketch.folder / path.name, path)

    monkeypatch.setattr(export_module, "_export", copy)


def shape_of(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def type_of(value):
    return onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)


def test_names_types_and_the_batch_axis(exported):
    condition = exported.model.condition
    tokens = ["batch", condition.num_tokens, condition.width]
    sample = ["batch", *exported.model.action_spec.diffused_shape]
    expected = {"sample": ("FLOAT", sample), "timestep": ("INT64", ["batch"])}
    if condition.inputs:
        expected["condition"] = ("FLOAT", tokens)
    graphs = exported.graphs
    assert set(graphs) == {"denoiser.onnx"} | ({"condition.onnx"} if condition.inputs else set())
    graph = graphs["denoiser.onnx"].graph
    assert {value.name: (type_of(value), shape_of(value)) for value in graph.input} == expected
    found = {value.name: (type_of(value), shape_of(value)) for value in graph.output}
    assert found == {"model_output": ("FLOAT", sample)}
    if condition.inputs:
        graph = graphs["condition.onnx"].graph
        found = {value.name: (type_of(value), shape_of(value)) for value in graph.input}
        shapes = {name: ("FLOAT", ["batch", *shape]) for name, shape in condition.inputs.items()}
        assert found == shapes
        assert [value.name for value in graph.output] == ["condition", "null_condition"]
        assert [shape_of(value) for value in graph.output] == [tokens, tokens]


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 17])
def test_one_step_agrees_at_any_batch(exported, batch):
    rng = np.random.default_rng(batch)
    sample = rng.standard_normal((batch, *exported.model.action_spec.diffused_shape), np.float32)
    context = {
        name: rng.random((batch, *shape), np.float32)
        for name, shape in exported.model.condition.inputs.items()
    }
    found, expected = exported.bundle.encode(context), exported.torch.encode(context)
    assert (found is None) == (expected is None) == (not context)
    for one, other in zip(found or [], expected or [], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for tokens in found or [None]:
        for timestep in (0, 1, 500, 999):
            np.testing.assert_allclose(
                exported.bundle.denoise(sample, timestep, tokens),
                exported.torch.denoise(sample, timestep, tokens),
                atol=2e-5,
            )


def test_rows_may_have_timesteps_of_their_own(exported):
    shape = (3, *exported.model.action_spec.diffused_shape)
    rows = np.random.default_rng(0).standard_normal(shape, np.float32)
    condition = exported.model.condition
    feeds = {"sample": rows, "timestep": np.array([0, 400, 999])}
    tokens = None
    if condition.inputs:
        tokens = np.ones((3, condition.num_tokens, condition.width), np.float32)
        feeds["condition"] = tokens
    found = exported.bundle._denoiser.run(feeds)[0]
    for row, timestep in enumerate(feeds["timestep"]):
        one = slice(row, row + 1)
        told = None if tokens is None else tokens[one]
        alone = exported.torch.denoise(rows[one], int(timestep), told)
        np.testing.assert_allclose(found[one], alone, atol=2e-5)


def test_recorded_parity_is_what_a_fresh_comparison_finds(exported):
    recorded = json.loads((exported.folder / "bundle.json").read_text())["parity"]
    again = measure_parity(exported.bundle, exported.torch, 1e-4, seed=3)
    assert recorded["worst_error"] == pytest.approx(exported.parity.worst_error)
    assert recorded["worst_error"] == pytest.approx(again.worst_error, rel=0.05)
    assert 0.0 < recorded["worst_error"] <= recorded["tolerance"] == 1e-4
    assert recorded["batches"] == [1, 2, 3]
    assert (recorded["num_inference_steps"], recorded["seed"]) == (10, 3)


def test_parity_by_an_independent_loop(sketch):
    rng = np.random.default_rng(3)
    worst = 0.0
    for batch in BATCHES:
        noise = rng.standard_normal((batch, 6, 1), np.float32)
        context = {"sketch": rng.random((batch, 6), np.float32)}
        sampled = []
        for model in (sketch.torch, sketch.bundle):
            denoisers = [
                functools.partial(model.denoise, condition=tokens)
                for tokens in model.encode(context)
            ]
            parts = [ddim_sample(denoise, noise, model.schedule, 10) for denoise in denoisers]
            sampled.append(np.concatenate(parts))
        scale = max(1.0, np.abs(sampled[0]).max())
        worst = max(worst, np.abs(sampled[0] - sampled[1]).max() / scale)
    assert sketch.parity.worst_error == pytest.approx(worst, rel=0.05)


def test_bundle_says_where_it_comes_from(exported):
    provenance = json.loads((exported.folder / "bundle.json").read_text())["provenance"]
    assert provenance["checkpoint"] == "checkpoint.pt"
    assert provenance["checkpoint_sha256"] == sha256_of(exported.checkpoint)
    assert provenance["data_fingerprint"] == "f" * 16
    assert provenance["made_by"] == "a test"
    assert provenance["layer_normed"] is True
    assert provenance["architecture"] == exported.model.config.to_dict()
    bundle = read_bundle(exported.folder)
    assert bundle.action_spec == exported.model.action_spec
    assert bundle.schedule == exported.model.schedule
    assert bundle.condition == exported.model.condition


def test_folder_holds_its_files_alone_and_no_path_of_this_machine(exported):
    names = {"bundle.json", *exported.graphs}
    assert {path.name for path in exported.folder.iterdir()} == names
    for name, graph in exported.graphs.items():
        for tensor in graph.graph.initializer:
            assert tensor.data_location == onnx.TensorProto.DEFAULT, (name, tensor.name)
    here = [str(exported.folder.parent), str(Path(__file__).parent), str(Path.home()) + "/"]
    here += [str(Path(torch.__file__).parents[1])]
    for path in exported.folder.iterdir():
        content = path.read_bytes()
        for machine_path in here:
            assert machine_path.encode() not in content, (path.name, machine_path)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_exporting_leaves_torch_as_it_was(tmp_path, monkeypatch, enabled, fails):
    seen = []

    def trace(*arguments, **settings):
        seen.append(torch.backends.mha.get_fastpath_enabled())
        if fails:
            raise RuntimeError("cannot be traced")
        onnx.save(onnx.ModelProto(), arguments[2])

    monkeypatch.setattr(torch.onnx, "export", trace)
    before = logging.getLogger("torch.onnx").level
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        with contextlib.suppress(CheckpointError):
            _write_graphs(make_model(**MODELS["minimal"]), None, tmp_path)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert seen == [False]
    assert logging.getLogger("torch.onnx").level == before


class Frozen(TorchSampler):
    """Computes two rows whatever it is given, as a graph traced too narrowly does."""

    def denoise(self, sample, timestep, condition):
        output = super().denoise(sample, timestep, condition)
        output[2:] = 0.0
        return output


class Fails(TorchSampler):
    def encode(self, context):
        raise RuntimeError("Got invalid dimensions for input: state")


class NoNull(TorchSampler):
    def encode(self, context):
        return super().encode(context)._replace(null_condition=np.zeros((1, 6, 16), "f4"))


class Broken(TorchSampler):
    def denoise(self, sample, timestep, condition):
        return np.full_like(sample, np.nan)


class Short(TorchSampler):
    def denoise(self, sample, timestep, condition):
        return super().denoise(sample, timestep, condition)[:, :1]


@pytest.mark.usefixtures("already_traced")
class TestGate:
    def test_over_tolerance_nothing_is_written_and_an_earlier_one_survives(self, sketch, tmp_path):
        with pytest.raises(ParityError, match=r"above the tolerance 0\. Nothing was written"):
            export_bundle(sketch.checkpoint, tmp_path / "bundle", tolerance=0.0)
        assert os.listdir(tmp_path) == []
        export_bundle(sketch.checkpoint, tmp_path / "bundle")
        before = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
        with pytest.raises(ParityError):
            export_bundle(sketch.checkpoint, tmp_path / "bundle", tolerance=0.0, overwrite=True)
        found = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
        assert found == before
        assert os.listdir(tmp_path) == ["bundle"]

    def test_graphs_of_other_weights_are_caught(self, tmp_path):
        (tmp_path / "other").mkdir()
        checkpoint = save(make_model(**MODELS["sketch"], seed=7), tmp_path / "other")
        with pytest.raises(ParityError, match="batch 1: after 10 steps"):
            export_bundle(checkpoint, tmp_path / "bundle")
        assert os.listdir(tmp_path) == ["other"]

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            (Frozen, "batch 3"),
            (Fails, r"batch 1: the bundle cannot run.*invalid dimensions"),
            (NoNull, "batch 1"),
            (Broken, "nan"),
            (Short, "batch 1"),
        ],
    )
    def test_a_bundle_that_differs_is_caught(self, sketch, broken, said):
        with pytest.raises(ParityError, match=said):
            measure_parity(broken(sketch.model), sketch.torch, 1e-4, 0)


class TestHalfWeights:
    def test_they_are_rounded_as_numpy_does_and_made_float32_again(
        self, sketch, tmp_path, already_traced
    ):
        how = {"half_weights": True, "tolerance": 0.01, "seed": 3}
        parity = export_bundle(sketch.checkpoint, tmp_path / "half", **how)
        assert sketch.parity.worst_error < parity.worst_error < 0.01
        assert read_bundle(tmp_path / "half").parity["worst_error"] == parity.worst_error
        for name, full in sketch.graphs.items():
            half = onnx.load(tmp_path / "half" / name)
            onnx.checker.check_model(half, full_check=True)
            weights = {of.name: onnx.numpy_helper.to_array(of) for of in half.graph.initializer}
            for weight in full.graph.initializer:
                values = onnx.numpy_helper.to_array(weight)
                if values.size < export_module.LARGE or values.dtype != np.float32:
                    np.testing.assert_array_equal(weights[weight.name], values)
                else:
                    rounded = weights[f"{weight.name}_half"]
                    np.testing.assert_array_equal(rounded, values.astype(np.float16))
                    (cast,) = [node for node in half.graph.node if weight.name in node.output]
                    assert (cast.op_type, list(cast.input)) == ("Cast", [f"{weight.name}_half"])

    def test_a_tolerance_below_their_rounding_refuses_them(self, sketch, tmp_path, already_traced):
        with pytest.raises(ParityError, match="above the tolerance 1e-06"):
            export_bundle(sketch.checkpoint, tmp_path / "out", half_weights=True, tolerance=1e-6)
        assert not list(tmp_path.iterdir())

    def test_weights_that_half_precision_cannot_hold_are_named(self, tmp_path):
        model = make_model(**MODELS["unconditional"])
        with torch.no_grad():
            model.denoiser.blocks[0].feed_forward[0].weight[0, 0] = 1e5
        with pytest.raises(CheckpointError, match=r"denoiser.onnx: the weights '.*' reach 1e\+05"):
            export_bundle(save(model, tmp_path), tmp_path / "out", half_weights=True, tolerance=1.0)


@pytest.mark.usefixtures("already_traced")
class TestOut:
    def test_an_earlier_bundle_needs_overwrite(self, sketch, tmp_path):
        out = tmp_path / "bundle"
        out.mkdir()  # an empty folder is used
        export_bundle(sketch.checkpoint, out)
        read_bundle(out)
        with pytest.raises(ConfigError, match=r"bundle.*overwrite"):
            export_bundle(sketch.checkpoint, out)
        (out / "bundle.json").write_text("{}")
        export_bundle(sketch.checkpoint, out, overwrite=True)
        read_bundle(out)

    def test_overwrite_replaces_a_bundle_and_nothing_else(self, sketch, tmp_path):
        """`--out` of a folder that holds other things must not delete them."""
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
        with pytest.raises(ConfigError, match=r"chapter\.txt"):
            export_bundle(sketch.checkpoint, tmp_path / "thesis", overwrite=True)
        assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"

    def test_a_bad_checkpoint_leaves_nothing(self, tmp_path):
        (tmp_path / "x.pt").write_bytes(b"no")
        with pytest.raises(CheckpointError, match=r"x.pt"):
            export_bundle(tmp_path / "x.pt", tmp_path / "bundle")
        assert not (tmp_path / "bundle").exists()


def test_original_checkpoint_needs_nhead_and_exports(tmp_path):
    weights = MinimalDenoiser(250, 3, 8, 1, 2).state_dict()
    torch.save({"model_state_dict": weights, "epoch": 1}, tmp_path / "epoch_1.pth")
    with pytest.raises(CheckpointError, match="take it as --nhead"):
        export_bundle(tmp_path / "epoch_1.pth", tmp_path / "bundle")
    export_bundle(tmp_path / "epoch_1.pth", tmp_path / "bundle", nhead=2)
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.provenance["made_by"] == "the original script"
    assert bundle.action_spec.representation == "raw"


@pytest.mark.skipif(not GOLDEN, reason="VJ2_DDIM_GOLDEN names no folder")
def test_the_original_scripts_own_samples_come_out_of_the_bundle(tmp_path):
    export_bundle(Path(GOLDEN) / "diffusion_checkpoint_epoch_2.pth", tmp_path / "bundle", nhead=2)
    model, reference = BundleModel(tmp_path / "bundle"), np.load(f"{GOLDEN}/ddim_reference.npz")
    for steps in (10, 50):
        denoise = functools.partial(model.denoise, condition=None)
        found = ddim_sample(denoise, reference["x_T"], model.schedule, steps)
        expected = reference[f"x0_{steps}"]
        assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
