"""A text detector made of one convolution, in the place of the one that others trained."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vj2_ddim_benchmark.world_model.text_detector import FEATURES

CHANNELS = 2


def write_detector(path):
    """Its neck averages 8 x 8 pixels of red and of blue, and has a head after it."""
    weight = np.zeros((CHANNELS, 3, 8, 8), np.float32)
    weight[0, 0] = weight[1, 2] = 1 / 64
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["mean"], strides=[8, 8]),
        helper.make_node("Add", ["mean", "zero"], [FEATURES]),
        helper.make_node("Sigmoid", [FEATURES], ["head"]),
    ]
    shape = ["n", 3, "h", "w"]
    weights = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("head", TensorProto.FLOAT, ["n", CHANNELS, "i", "j"])]
    made = helper.make_graph(nodes, "detector", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=8), path)
    return path
