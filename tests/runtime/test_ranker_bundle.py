"""The ranker's graph in a bundle: written, proven, described, refused when it was changed."""

import json
import shutil

import numpy as np
import onnx
import pytest
from builders.bundles import describe, edit, make_bundle, save_graph, tensor
from builders.checkpoints import save
from builders.training import make_model, make_spec, vj2_ddim
from onnx import TensorProto, helper

from vj2_ddim_export import export as export_module
from vj2_ddim_export.export import export_bundle
from vj2_ddim_export.parity import measure_parity
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import BundleError, CheckpointError, ParityError, ProviderError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.spec import ConditionSpec
from vj2_ddim_training.config import RankerConfig
from vj2_ddim_training.diffusion_model import TorchSampler
from vj2_ddim_training.ranker.network import (
    RankedSampler,
    RankerNetwork,
    TrainedRanker,
    model_fingerprint,
    save_ranker,
)

CONFIG = RankerConfig(width=24, num_layers=1, nhead=2, num_queries=3)


class Exported:
    """A model with a ranker of random weights, and its bundle."""

    def __init__(self, folder):
        self.model = make_model("latents", condition_layers=1)
        ranker = RankerNetwork(CONFIG, self.model.action_spec, self.model.condition).eval()
        trained = TrainedRanker(ranker, model_fingerprint(self.model), "data", {"spearman": 0.5})
        self.checkpoint, self.ranker = save(self.model, folder), folder / "ranker.pt"
        save_ranker(trained, self.ranker)
        self.folder = folder / "bundle"
        self.parity = export_bundle(self.checkpoint, self.folder, ranker=self.ranker)
        self.torch = RankedSampler(self.model, ranker)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("ranked"))


@pytest.fixture
def bundle(exported, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(exported.folder, tmp_path / "bundle")


@pytest.fixture
def already_traced(exported, monkeypatch):
    """What happens around tracing does not depend on it."""

    def copy(module, spec, path):
        shutil.copy(exported.folder / path.name, path)

    monkeypatch.setattr(export_module, "_export", copy)


def context(batch, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((batch, 4, 5), np.float32) for name in ("state", "goal")}


def test_the_graph_says_what_the_checkpoints_ranker_says_at_any_batch(exported):
    with BundleModel(exported.folder, "cpu") as model:
        for batch in (1, 2, 3, 16, 130):
            rng = np.random.default_rng(batch)
            candidates = rng.standard_normal((batch, *make_spec().diffused_shape), np.float32)
            tokens = exported.torch.encode(context(batch)).condition
            found, expected = (m.ranker(candidates, tokens) for m in (model, exported.torch))
            assert found.shape == (batch,)
            np.testing.assert_allclose(found, expected, atol=1e-4)
            assert batch == 1 or np.ptp(expected) > 1e-3


@pytest.mark.usefixtures("already_traced")
def test_the_manifest_has_a_section_and_everything_else_as_without(exported, tmp_path):
    plain_parity = export_bundle(exported.checkpoint, tmp_path / "plain")
    ranked, plain = (
        json.loads((folder / "bundle.json").read_text())
        for folder in (exported.folder, tmp_path / "plain")
    )
    section = ranked.pop("ranker")
    assert ranked.pop("manifest_sha256") != plain.pop("manifest_sha256")
    assert section["file"] == "ranker.onnx"
    assert section["sha256"] == sha256_of(exported.folder / "ranker.onnx")
    assert section["inputs"] == {
        "candidates": {"shape": [*make_spec().diffused_shape], "dtype": "float32"},
        "condition": {"shape": [3, 16], "dtype": "float32"},
    }
    assert ranked["parity"].pop("ranker_error") == exported.parity.ranker_error
    assert 0.0 <= exported.parity.ranker_error <= 1e-4
    history = ranked["provenance"].pop("ranker")
    assert history["metrics"] == {"spearman": 0.5}
    assert history["file_sha256"] == sha256_of(exported.ranker)
    assert ranked == plain
    assert plain_parity.ranker_error is None
    assert "ranker_error" not in plain["parity"]


def test_a_bundle_without_a_ranker_reads_as_ever(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    assert set(json.loads((folder / "bundle.json").read_text())) == {
        *("schema_version", "action_spec", "schedule", "condition", "graphs", "parity"),
        *("provenance", "manifest_sha256"),
    }
    assert "ranker.onnx" not in read_bundle(folder).graphs
    with BundleModel(folder, "cpu") as model:
        assert model.ranker is None


def test_a_changed_or_missing_graph_is_refused(bundle):
    path = bundle / "ranker.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"ranker\.onnx was changed"):
        read_bundle(bundle)
    path.unlink()
    with pytest.raises(BundleError, match=r"ranker\.onnx is missing"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("path_and_value", "message"),
    [
        (("ranker", 3), "field 'ranker' must hold"),
        (("ranker", "sha256", ...), "field 'ranker' must hold"),
        (("ranker", "extra", 1), "field 'ranker' must hold"),
        (("ranker", "file", "../ranker.onnx"), r"the ranker is '\.\./ranker\.onnx'"),
        (("ranker", "inputs", "condition", "shape", [3, 17]), "the ranker's inputs are"),
        (("ranker", "sha256", "0" * 64), r"ranker\.onnx was changed"),
        (("scorer", {}), r"unknown fields \['scorer'\]"),
        (("schema_version", 3), "schema_version is 3"),
    ],
)
def test_a_section_that_does_not_fit_is_refused(bundle, path_and_value, message):
    edit(bundle, *path_and_value)
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle)


def test_an_unconditional_bundle_has_none(tmp_path, exported):
    folder = make_bundle(tmp_path / "bundle", conditional=False)
    shutil.copy(exported.folder / "ranker.onnx", folder)
    describe(folder, condition=ConditionSpec())
    with pytest.raises(BundleError, match="conditional model"):
        read_bundle(folder)


def test_a_graph_of_other_inputs_is_refused(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    nodes = [
        helper.make_node("ReduceSum", ["candidates"], ["total"], keepdims=1),
        helper.make_node("ReduceSum", ["condition"], ["other"], keepdims=1),
        helper.make_node("Add", ["total", "other"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["predicted_cost"]),
    ]
    inputs = [tensor("candidates", ["B", 5, 1]), tensor("condition", ["B", 2, 3])]
    outputs = [tensor("predicted_cost", [1, 1, 1], TensorProto.FLOAT)]
    save_graph(folder / "ranker.onnx", nodes, inputs, outputs)
    describe(folder)
    with pytest.raises(BundleError, match=r"ranker\.onnx: inputs are .*manifest"):
        BundleModel(folder, "cpu")


def test_plans_of_a_bundle_do_not_depend_on_their_batch_to_the_last_bit(exported):
    def cost(candidates):
        return np.abs(candidates.astype(np.float64) - 0.3).mean(axis=(2, 3))

    for count in (1, 3):
        with DDIMOptimizer.from_bundle(
            exported.folder, provider="cpu", num_threads=1, num_ranked=count, num_candidates=5,
            num_inference_steps=2, num_refinements=1,
        ) as optimizer:  # fmt: skip
            for fields in ({}, {"cost": cost}):
                whole = context(7)
                together = optimizer.optimize(PlanningProblem(whole, **fields))
                for row in range(7):
                    alone = {name: array[row : row + 1] for name, array in whole.items()}
                    result = optimizer.optimize(PlanningProblem(alone, **fields))
                    np.testing.assert_array_equal(result.actions[0], together.actions[row])


def test_closing_the_model_closes_the_ranker(exported):
    model = BundleModel(exported.folder, "cpu")
    ranker, spec = model.ranker, make_spec()
    model.close()
    with pytest.raises(ProviderError, match=r"ranker\.onnx was closed"):
        ranker(np.zeros((1, *spec.diffused_shape), np.float32), np.zeros((1, 3, 16), np.float32))


# The gate.


def test_a_ranker_that_differs_from_its_checkpoint_is_caught(exported):
    class Off(RankedSampler):
        def ranker(self, candidates, condition):
            return super().ranker(candidates, condition) + 0.01

    off = Off(exported.model, exported.torch._ranker)
    with pytest.raises(ParityError, match="batch 1: the bundle's ranker differs"):
        measure_parity(off, exported.torch, 1e-4, 0)
    with pytest.raises(ParityError, match="it has no ranker"):
        measure_parity(TorchSampler(exported.model), exported.torch, 1e-4, 0)


@pytest.mark.usefixtures("already_traced")
def test_a_ranker_of_another_checkpoint_is_refused_and_nothing_written(exported, tmp_path):
    (tmp_path / "other").mkdir()
    checkpoint = save(make_model("latents", condition_layers=1, seed=7), tmp_path / "other")
    with pytest.raises(CheckpointError, match="belongs to the model"):
        export_bundle(checkpoint, tmp_path / "bundle", ranker=exported.ranker)
    assert not (tmp_path / "bundle").exists()


# The commands.


@pytest.mark.usefixtures("already_traced")
def test_the_command_exports_it_and_inspect_shows_it(exported, tmp_path, capsys):
    out = tmp_path / "bundle"
    arguments = ["export", exported.checkpoint, "--out", out, "--ranker", exported.ranker]
    assert vj2_ddim(*arguments) == 0
    assert "of the ranker" in " ".join(capsys.readouterr().out.split())
    assert vj2_ddim("inspect", out, "--json", tmp_path / "told.json") == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert sha256_of(out / "ranker.onnx") in told["graphs"]["ranker.onnx"]
    assert told["parity"]["ranker_error"] >= 0.0
    assert vj2_ddim(*arguments, "--overwrite") == 0


def test_the_graph_names_no_path_of_the_machine_that_made_it(exported):
    graph = onnx.load(exported.folder / "ranker.onnx")
    assert [value.name for value in graph.graph.input] == ["candidates", "condition"]
    assert b".py" not in graph.SerializeToString()
