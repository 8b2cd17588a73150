"""Bundles made by hand: tiny graphs, and a manifest to go with them."""

import json
from contextlib import suppress
from dataclasses import replace

import onnx
from onnx import TensorProto, helper

from vj2_ddim_plugin.bundle import DIGEST, RANKER, Parity, _digest, write_manifest
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec

SPEC = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=6)
SCHEDULE = NoiseSchedule(num_train_timesteps=20)
PARITY = Parity(1e-6, 1e-4, (1, 2, 3), 10, 0)
LATENTS = ConditionSpec("latents", {"goal": (2, 3)}, 2, 3)


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save_graph(path, nodes, inputs, outputs):
    graph = helper.make_graph(nodes, "tiny", inputs, outputs)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def save_denoiser(path, conditional, rows=6):
    """Returns half the sample, plus the mean of the condition where there is one."""
    inputs = [tensor("sample", ["B", rows, 1]), tensor("timestep", ["B"], TensorProto.INT64)]
    half = helper.make_node("Constant", [], ["half"], value_float=0.5)
    nodes = [half, helper.make_node("Mul", ["sample", "half"], ["halved"])]
    # the timestep has to be used, or the graph's optimizer removes it
    nodes += [
        helper.make_node("Cast", ["timestep"], ["time"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["time"], ["sum"], keepdims=0),
        helper.make_node("Sub", ["sum", "sum"], ["zero"]),
        helper.make_node("Add", ["halved", "zero"], ["moved"]),
    ]
    if conditional:
        inputs.append(tensor("condition", ["B", 2, 3]))
        nodes += [
            helper.make_node("ReduceMean", ["condition"], ["mean"], axes=[1, 2], keepdims=1),
            helper.make_node("Add", ["moved", "mean"], ["model_output"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["moved"], ["model_output"]))
    save_graph(path, nodes, inputs, [tensor("model_output", ["B", rows, 1])])


def save_condition(path):
    nodes = [
        helper.make_node("Identity", ["goal"], ["condition"]),
        helper.make_node("Sub", ["goal", "goal"], ["null_condition"]),
    ]
    shape = ["B", 2, 3]
    outputs = [tensor("condition", shape), tensor("null_condition", shape)]
    save_graph(path, nodes, [tensor("goal", shape)], outputs)


def make_bundle(folder, conditional=True, rows=6, **changes):
    folder.mkdir(parents=True)
    save_denoiser(folder / "denoiser.onnx", conditional, rows)
    if conditional:
        save_condition(folder / "condition.onnx")
    condition = LATENTS if conditional else ConditionSpec()
    return describe(folder, **{"condition": condition, **changes})


def describe(folder, **changes):
    """Write the manifest of the graphs that lie in a folder."""
    fields = {
        "action_spec": SPEC,
        "schedule": SCHEDULE,
        "condition": LATENTS,
        "parity": PARITY,
        "provenance": {"made_by": "hand"},
    }
    if (folder / RANKER).exists():
        fields["parity"] = replace(PARITY, ranker_error=1e-6)
    write_manifest(folder, **{**fields, **changes})
    return folder


def edit(bundle, *path_and_value, stamped=True):
    """Change one value of the manifest, its digest with it unless told; `...` deletes."""
    *path, last, value = path_and_value
    manifest = json.loads((bundle / "bundle.json").read_text())
    entry = manifest
    for name in path:
        entry = entry[name]
    if value is ...:
        del entry[last]
    else:
        entry[last] = value
    if stamped:
        with suppress(ValueError):  # NaN, which has none
            manifest[DIGEST] = _digest(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))
