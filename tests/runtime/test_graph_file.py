"""Weights that no hash covers, wherever they stand, and operators that are not ONNX's own."""

import numpy as np
import onnx
import pytest
from builders.bundles import describe, make_bundle
from onnx import TensorProto, helper, numpy_helper

from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import BundleError
from vj2_ddim_plugin.graph_file import require_self_contained
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx.session import OnnxGraph


def outside(name="weight"):
    """A tensor whose numbers lie beside the graph."""
    tensor = numpy_helper.from_array(np.ones(3, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def sparse():
    indices = numpy_helper.from_array(np.arange(3), "indices")
    return helper.make_sparse_tensor(outside(), indices, [3])


def constant(**attributes):
    return helper.make_node("Constant", [], ["y"], **attributes)


def body(*nodes, **parts):
    return helper.make_graph(list(nodes), "body", [], [], **parts)


def model(*nodes, functions=(), **parts):
    made = helper.make_model(body(*nodes, **parts), functions=list(functions))
    return made.SerializeToString()


def function(node):
    return helper.make_function("ours", "F", [], ["y"], [node], [helper.make_opsetid("", 17)])


def training():
    made = onnx.ModelProto()
    made.training_info.add().algorithm.CopyFrom(body())
    return made.SerializeToString()


def foreign(domain, operator="Op"):
    return helper.make_node(operator, [], ["z"], domain=domain)


def only_located():
    tensor = outside()
    tensor.ClearField("external_data")
    return tensor


OUTSIDE = constant(value=outside())
TENSORS = helper.make_node("Any", [], ["z"])
TENSORS.attribute.add(name="all", type=onnx.AttributeProto.TENSORS).tensors.append(outside())
PLACES = {
    "an initializer": model(initializer=[outside()]),
    "one of many": model(initializer=[numpy_helper.from_array(np.ones(2)), outside("second")]),
    "only a location": model(initializer=[only_located()]),
    "sparse": model(sparse_initializer=[sparse()]),
    "a constant": model(OUTSIDE),
    "a sparse constant": model(constant(sparse_value=sparse())),
    "a list of tensors": model(TENSORS),
    "a graph that comes again": model() + model(initializer=[outside()]),
}
LOOP = helper.make_node("Loop", ["n", "c"], ["z"], body=body(constant(value_float=1.0)))
BRANCH = helper.make_node("If", ["c"], ["z"], then_branch=body(), else_branch=body())
SCAN = helper.make_node("Scan", ["x"], ["z"], num_scan_inputs=1, body=body())
EACH = helper.make_node("SequenceMap", ["x"], ["z"], body=body())
GRAPHS = helper.make_node("Any", [], ["z"])
GRAPHS.attribute.add(name="all", type=onnx.AttributeProto.GRAPHS).graphs.append(body())
UNTYPED = helper.make_node("Loop", ["n", "c"], ["z"])
UNTYPED.attribute.add(name="body").g.CopyFrom(body())
ENDLESS = {
    "a loop": model(LOOP),
    "a loop without a type": model(UNTYPED),
    "a branch": model(BRANCH),
    "a scan": model(SCAN),
    "each of a sequence": model(EACH),
    "a list of graphs": model(GRAPHS),
    "a function": model(functions=[function(constant(value_float=1.0))]),
    "a function of its own name": model(functions=[function(foreign("ours", "F"))]),
    "training": training(),
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_outside_the_file_are_refused(place):
    with pytest.raises(BundleError, match=r"x\.onnx .*lie in another file, which no hash covers"):
        require_self_contained(PLACES[place], "x.onnx")


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_may_never_end_is_refused(kind):
    with pytest.raises(BundleError, match=r"x\.onnx .*it holds .*no bundle needs"):
        require_self_contained(ENDLESS[kind], "x.onnx")


def test_they_are_refused_by_reading_loading_and_before_a_session(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    read = read_bundle(folder)
    (folder / "denoiser.onnx").write_bytes(PLACES["one of many"])
    describe(folder)
    for opens in (read_bundle, BundleModel):
        with pytest.raises(BundleError, match="another file"):
            opens(folder)
    with pytest.raises(BundleError, match="another file"):
        OnnxGraph(PLACES["a constant"])
    with pytest.raises(BundleError, match=r"denoiser\.onnx was changed"):  # since it was read
        BundleModel(read)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (model(foreign("com.microsoft", "EPContext")), "'EPContext' of 'com.microsoft'"),
        (model(constant(value_float=1.0), foreign("x")), "'Op' of 'x'"),
        (b"\x00" * 100, "protocol buffers"),
        (b"\x0b\x0c", "protocol buffers"),
        (b"\xff" * 100, "ten bytes"),
        (b"\x3a\xff\xff\xff\x7f", "too early"),
        (b"\x38\x01", "field 7 of a model is no message"),
        (b"\x08\x08" * 1_000_000, "250000 fields"),
        (b"\x18\x00\x00\x00ORTM" + bytes(9), "own format"),
    ],
)
def test_what_is_no_plain_onnx_is_refused(content, said):
    with pytest.raises(BundleError, match=said):
        require_self_contained(content, "x.onnx")


def test_what_is_plain_is_accepted(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    plain = model(constant(value=numpy_helper.from_array(np.ones(3))))
    for content in (plain, b"", (folder / "denoiser.onnx").read_bytes()):
        require_self_contained(content, "x.onnx")
