"""The Triton repository: its graph samples what the plugin samples, its configuration fits it."""

import re

import numpy as np
import onnx
import pytest
from builders.bundles import make_bundle
from builders.checkpoints import save
from builders.serving import SHIPPED, make_context, shipped
from builders.training import make_model, vj2_ddim
from onnx import TensorProto

from vj2_ddim_export import triton
from vj2_ddim_export.triton import OUTPUT, export_triton
from vj2_ddim_plugin.errors import ConfigError, ParityError
from vj2_ddim_plugin.onnx.session import OnnxGraph
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.serving.sampling import SampleRequest, answer_all

SETTINGS = SearchSettings(num_inference_steps=3, guidance_scale=1.25)
TOKEN = re.compile(r'"([^"]*)"|([{}\[\],:])|([^\s{}\[\],:"]+)')


def parsed(text):
    """Protocol buffers' text format, as far as it is used here: repeated fields become lists."""
    tokens = [quoted or sign or word for quoted, sign, word in TOKEN.findall(text)]

    def value():
        if tokens[0] == "{":
            tokens.pop(0)
            return fields("}")
        if tokens[0] != "[":
            return tokens.pop(0)
        tokens.pop(0)
        several = []
        while tokens[0] != "]":
            several.append(value())
            if tokens[0] == ",":
                tokens.pop(0)
        tokens.pop(0)
        return several

    def fields(end):
        found = {}
        while tokens and tokens[0] != end:
            name = tokens.pop(0)
            if tokens[0] == ":":
                tokens.pop(0)
            assert name not in found
            found[name] = value()
        if tokens:
            tokens.pop(0)
        return found

    return fields("}")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    assert export_triton(SHIPPED, folder, SETTINGS, tolerance=1e-4) < 1e-5
    return folder


@pytest.mark.parametrize(("batch", "count"), [(1, 1), (3, 2), (2, 16)])
def test_the_graph_samples_what_the_plugin_samples(repository, batch, count):
    context, spec = make_context(batch, 4), shipped().action_spec
    shape = (batch, count, *spec.diffused_shape)
    noise = np.random.default_rng(1).standard_normal(shape, np.float32)
    with OnnxGraph(repository / "bundle" / "1" / "model.onnx", "cpu") as graph:
        (found,) = graph.run({**context, "noise": noise})
    pairs = SETTINGS.pairs(shipped().schedule, 3)
    asked = SampleRequest(batch, SETTINGS, (OUTPUT,), context, pairs, sample=noise)
    expected = answer_all(shipped(), [asked])[0][OUTPUT]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.1


def test_the_configuration_is_of_the_graph(repository):
    config = parsed((repository / "bundle" / "config.pbtxt").read_text())
    graph = onnx.load(repository / "bundle" / "1" / "model.onnx").graph
    assert (config["name"], config["platform"]) == ("bundle", "onnxruntime_onnx")
    assert int(config["max_batch_size"]) == 16
    assert int(config["dynamic_batching"]["max_queue_delay_microseconds"]) > 0
    assert config["parameters"]["value"] == {"string_value": shipped().bundle.digest}
    for told, of in ((config["input"], graph.input), (config["output"], graph.output)):
        for entry, array in zip(told, of, strict=True):
            kind = array.type.tensor_type
            sizes = [axis.dim_value or -1 for axis in kind.shape.dim]
            assert entry["name"] == array.name
            assert (entry["data_type"], kind.elem_type) == ("TYPE_FP32", TensorProto.FLOAT)
            assert [-1, *map(int, entry["dims"])] == sizes  # Triton adds the batch axis itself


def test_weights_are_in_the_graph_once(repository):
    sizes = [(SHIPPED / name).stat().st_size for name in ("denoiser.onnx", "condition.onnx")]
    assert (repository / "bundle" / "1" / "model.onnx").stat().st_size < 1.5 * sum(sizes)


def test_what_cannot_be_is_refused_and_nothing_is_lost(repository, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="not empty"):
        export_triton(SHIPPED, repository, SETTINGS, tolerance=1e-4)
    with pytest.raises(ConfigError, match="eta must be 0"):
        export_triton(SHIPPED, tmp_path, SearchSettings(eta=0.5), tolerance=1e-4)
    bundle = make_bundle(tmp_path / "unconditional", conditional=False)
    with pytest.raises(ConfigError, match="guidance_scale"):
        export_triton(bundle, tmp_path / "models", SETTINGS, tolerance=1e-4)
    zeros = {OUTPUT: np.zeros(1, np.float32)}
    monkeypatch.setattr(triton, "answer_all", lambda *_: [zeros])
    with pytest.raises(ParityError, match="differs from the loop"):
        export_triton(SHIPPED, tmp_path / "models", SETTINGS, tolerance=1e-9)
    assert not (tmp_path / "models" / "bundle").exists()


def test_an_unconditional_bundle_unrolls(tmp_path):
    folder = make_bundle(tmp_path / "bundle", conditional=False)
    search = SearchSettings(num_inference_steps=2)
    assert export_triton(folder, tmp_path / "models", search, tolerance=1e-4) <= 1e-4


def test_the_command_exports_both(tmp_path, capsys):
    checkpoint = save(make_model("sketch", patch_size=2), tmp_path)
    words = ("--out", tmp_path / "bundle", "--triton", tmp_path / "models")
    assert vj2_ddim("export", checkpoint, *words, "--num-inference-steps", 2) == 0
    assert "the whole loop as one graph differs by" in capsys.readouterr().out
    assert (tmp_path / "models" / "bundle" / "config.pbtxt").exists()
