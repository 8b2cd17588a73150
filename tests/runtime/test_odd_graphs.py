"""Graphs that answer oddly: each is one error that names the file, when the bundle is loaded."""

import os
import signal
import time

import numpy as np
import pytest
from builders.bundles import describe, make_bundle, save_condition, save_graph, tensor
from onnx import TensorProto, helper

from vj2_ddim_plugin.errors import BundleError, ProviderError
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.onnx.session import OnnxGraph
from vj2_ddim_plugin.spec import ConditionSpec

SAMPLE = tensor("sample", ["B", 6, 1])
TIMESTEP = tensor("timestep", ["B"], TensorProto.INT64)
node = helper.make_node


def constant(name, values, kind=TensorProto.FLOAT):
    values = np.asarray(values)
    made = helper.make_tensor(name, kind, values.shape, values.flatten().tolist())
    return node("Constant", [], [name], value=made)


def to(kind):
    return [node("Cast", ["sample"], ["model_output"], to=kind)], tensor(
        "model_output", ["B", 6, 1], kind
    )


def sequence():
    kind = helper.make_tensor_sequence_value_info("model_output", TensorProto.FLOAT, None)
    return [node("SequenceConstruct", ["sample", "sample"], ["model_output"])], kind


def nothing():
    kind = helper.make_optional_type_proto(
        helper.make_tensor_type_proto(TensorProto.FLOAT, ["B", 6, 1])
    )
    return [node("Optional", [], ["model_output"], type=kind.optional_type.elem_type)], (
        helper.make_value_info("model_output", kind)
    )


OUTPUT = tensor("model_output", None)
ODD = {
    "a scalar": ([node("ReduceMean", ["sample"], ["model_output"], keepdims=0)], OUTPUT),
    "a text": to(TensorProto.STRING),
    "a sequence": sequence(),
    "nothing": nothing(),
    "half precision": to(TensorProto.FLOAT16),
    "double precision": to(TensorProto.DOUBLE),
    "integers": to(TensorProto.INT64),
    "a shape": ([node("Shape", ["sample"], ["model_output"])], tensor("model_output", None, 7)),
    "NaN": ([constant("none", np.nan), node("Mul", ["sample", "none"], ["model_output"])], OUTPUT),
    "infinity": (
        [constant("zero", 0.0), node("Div", ["sample", "zero"], ["model_output"])],
        OUTPUT,
    ),
    "one row for all": (
        [node("ReduceMean", ["sample"], ["model_output"], axes=[0], keepdims=1)],
        OUTPUT,
    ),
    "axes in another order": (
        [node("Transpose", ["sample"], ["model_output"], perm=[0, 2, 1])],
        OUTPUT,
    ),
    "rows twice": ([node("Concat", ["sample", "sample"], ["model_output"], axis=0)], OUTPUT),
}
FAILING = {
    "out of range": [
        constant("far", [99], TensorProto.INT64),
        node("Gather", ["sample", "far"], ["model_output"], axis=1),
    ],
    "a petabyte": [
        node("Shape", ["sample"], ["shape"]),
        constant("many", [10**12, 1, 1], TensorProto.INT64),
        node("Mul", ["shape", "many"], ["huge"]),
        node("Expand", ["sample", "huge"], ["model_output"]),
    ],
}


def bundle_of(folder, nodes, output=OUTPUT, inputs=(SAMPLE, TIMESTEP)):
    folder.mkdir()
    save_graph(folder / "denoiser.onnx", nodes, list(inputs), [output])
    return describe(folder, condition=ConditionSpec())


@pytest.mark.parametrize("name", ODD)
def test_an_output_of_another_kind_is_named(tmp_path, name):
    folder = bundle_of(tmp_path / "bundle", *ODD[name])
    with pytest.raises(BundleError, match=r"denoiser.onnx: output 'model_output' is .*\(2, 6, 1\)"):
        BundleModel(folder, "cpu")


@pytest.mark.parametrize("name", FAILING)
def test_a_graph_that_fails_is_named(tmp_path, name):
    folder = bundle_of(tmp_path / "bundle", FAILING[name])
    with pytest.raises(ProviderError, match=r"denoiser.onnx failed while running"):
        BundleModel(folder, "cpu")


def test_a_first_run_that_takes_too_long_is_stopped(tmp_path):
    def endless(feeds, options):
        while not options.terminate:
            time.sleep(0.01)
        raise RuntimeError("terminated")

    save_condition(tmp_path / "slow.onnx")
    with OnnxGraph(tmp_path / "slow.onnx", SessionSettings("cpu", load_limit_s=0.1)) as graph:
        graph._run = endless
        with pytest.raises(BundleError, match=r"slow.onnx was stopped.*load_limit_s, 0.1 s"):
            graph.first_run({})


def test_a_process_that_is_stopped_meanwhile_is_not_too_slow(tmp_path):
    def stopped(feeds, options):
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.05)
        return [options.terminate]

    save_condition(tmp_path / "slow.onnx")
    with OnnxGraph(tmp_path / "slow.onnx", SessionSettings("cpu", load_limit_s=1.0)) as graph:
        child = os.fork()
        if child == 0:
            graph._run = stopped
            os._exit(graph.first_run({}) != [False])
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
        time.sleep(1.2)
        os.kill(child, signal.SIGCONT)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    "kind",
    [
        helper.make_tensor_sequence_value_info("sample", TensorProto.FLOAT, None),
        tensor("sample", None),
        tensor("sample", []),
        tensor("sample", ["B", 6, 1], TensorProto.STRING),
        tensor("sample", ["B", 6, 1], TensorProto.FLOAT16),
    ],
    ids=["sequence", "no shape", "scalar", "text", "half"],
)
def test_an_input_of_another_kind_is_named(tmp_path, kind):
    nodes = [constant("zeros", np.zeros((2, 6, 1))), node("Identity", ["zeros"], ["model_output"])]
    folder = bundle_of(tmp_path / "bundle", nodes, inputs=[kind, TIMESTEP])
    with pytest.raises(BundleError, match=r"denoiser.onnx: inputs are .*manifest says"):
        BundleModel(folder, "cpu")


@pytest.mark.parametrize("odd", ["condition", "null_condition"])
def test_a_condition_that_is_no_number_is_named(tmp_path, odd):
    folder = make_bundle(tmp_path / "bundle")
    names = {"condition", "null_condition"}
    nodes = [node("Sub", ["goal", "goal"], ["zero"]), node("Div", ["zero", "zero"], [odd])]
    nodes.append(node("Identity", ["goal"], [(names - {odd}).pop()]))
    outputs = [tensor(name, ["B", 2, 3]) for name in ("condition", "null_condition")]
    save_graph(folder / "condition.onnx", nodes, [tensor("goal", ["B", 2, 3])], outputs)
    describe(folder)
    with pytest.raises(BundleError, match=f"condition.onnx: output '{odd}' is 12 values.*NaN"):
        BundleModel(folder, "cpu")


@pytest.mark.parametrize("keepdims", [0, 1], ids=["a scalar", "an axis too many"])
def test_a_ranker_of_another_shape_is_named(tmp_path, keepdims):
    folder = make_bundle(tmp_path / "bundle")
    inputs = [tensor("candidates", ["B", 6, 1]), tensor("condition", ["B", 2, 3])]
    nodes = [
        node("ReduceMean", ["candidates"], ["a"], axes=[1, 2], keepdims=1),
        node("ReduceMean", ["condition"], ["b"], axes=[1, 2], keepdims=1),
        node("Add", ["a", "b"], ["c"]),
        node("ReduceMean", ["c"], ["predicted_cost"], axes=[0], keepdims=keepdims),
    ]
    save_graph(folder / "ranker.onnx", nodes, inputs, [tensor("predicted_cost", None)])
    describe(folder)
    with pytest.raises(BundleError, match=r"ranker.onnx: output 'predicted_cost' is .*\(2,\)"):
        BundleModel(folder, "cpu")


def test_the_good_ones_are_not_stopped(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    with BundleModel(folder, "cpu", load_limit_s=60) as model:
        assert model.encode({"goal": np.zeros((1, 2, 3), np.float32)}) is not None
    save_condition(folder / "condition.onnx")
    with OnnxGraph(folder / "condition.onnx", "cpu") as graph:
        assert len(graph.first_run({"goal": np.zeros((2, 2, 3), np.float32)})) == 2
