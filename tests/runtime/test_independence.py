"""A row's result does not depend on the rows beside it, to the last bit."""

import numpy as np
import pytest
from builders.bundles import describe, make_bundle, save_graph, tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx.rows import BLOCK_NUMBERS, IndependentRows
from vj2_ddim_plugin.optimizer import DDIMOptimizer

CPU = "CPUExecutionProvider"
SHAPES = {"sample": (3, 1), "timestep": ()}
LARGEST = 64  # rows of a run
rng = np.random.default_rng(0)


class Uneven:
    """A graph whose last rows beyond a multiple come out a little different, as kernels' do."""

    def __init__(self, multiple, provider=CPU, largest=10**9):
        self.provider, self.multiple, self.largest, self.batches = provider, multiple, largest, []
        self.constant = ()

    def run(self, feeds):
        sample = feeds["sample"]
        rows = len(sample)
        self.batches.append(rows)
        output = 2 * sample + feeds["timestep"][:, None, None]
        output[rows - rows % self.multiple :] *= np.float32(1.0000002)
        output[self.largest :] *= np.float32(1.0000002)
        return [output]


def feeds(rows):
    return {
        "sample": rng.standard_normal((rows, 3, 1), np.float32),
        "timestep": rng.integers(10, size=rows),
    }


@pytest.mark.parametrize("multiple", [1, 2, 4, 8, 16])
def test_the_smallest_safe_multiple_is_found(multiple):
    assert IndependentRows(Uneven(multiple), SHAPES, 10).multiple == multiple


@pytest.mark.parametrize("multiple", [1, 2, 4, 16])
@pytest.mark.parametrize("rows", [1, 2, 3, 15, 16, 63, 64, 65, 129, 200])
def test_every_row_is_as_if_it_were_in_the_middle_of_a_large_batch(multiple, rows):
    graph = Uneven(multiple, largest=LARGEST)
    independent, given = IndependentRows(graph, SHAPES, 10), feeds(rows)
    graph.batches.clear()
    (found,) = independent.run(given)
    expected = 2 * given["sample"] + given["timestep"][:, None, None]
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
    assert sum(graph.batches) == rows + -rows % multiple  # no row more than needed
    assert max(graph.batches) <= LARGEST


@pytest.mark.parametrize(("largest", "block"), [(63, 16), (15, 4), (3, 1), (2, 1), (1, 1)])
def test_blocks_are_so_small_that_all_of_their_rows_are_alike(largest, block):
    graph, given = Uneven(1, largest=largest), feeds(37)
    independent = IndependentRows(graph, SHAPES, 10)
    assert independent.block == block
    (found,) = independent.run(given)
    np.testing.assert_array_equal(found, 2 * given["sample"] + given["timestep"][:, None, None])


def test_rows_of_many_numbers_run_one_by_one_and_nothing_is_tried():
    graph, given = Uneven(1), {**feeds(3), "sample": rng.standard_normal((3, 7, 1), np.float32)}
    independent = IndependentRows(graph, {**SHAPES, "sample": (BLOCK_NUMBERS // 2, 1)}, 10)
    assert not graph.batches
    independent.run(given)
    assert graph.batches == [1, 1, 1]


def test_no_rows_are_no_rows():
    (found,) = IndependentRows(Uneven(2), SHAPES, 10).run(feeds(0))
    assert found.shape == (0, 3, 1)


def test_a_gpu_gets_batches_as_they_are():
    graph = Uneven(2, "CUDAExecutionProvider")
    IndependentRows(graph, SHAPES, 10).run(feeds(201))
    assert graph.batches == [201]


# A small network with what makes real ones depend on the batch: products with few rows, and sines
# and gates of an odd number of elements a row.


def weights(name, *shape):
    values = np.random.default_rng(len(name)).standard_normal(shape, np.float32)
    return helper.make_tensor(name, TensorProto.FLOAT, shape, values.ravel())


def save_network(folder):
    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs.split(), [output], **attributes)

    def constant(name, *shape):
        return helper.make_node("Constant", [], [name], value=weights(name, *shape))

    flat = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 6])
    back = helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 6, 1])
    column = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1])
    nodes = [
        helper.make_node("Constant", [], ["flat"], value=flat),
        helper.make_node("Constant", [], ["back"], value=back),
        helper.make_node("Constant", [], ["column"], value=column),
        constant("frequencies", 1, 5),
        constant("in", 6, 33),
        constant("time_in", 5, 33),
        constant("condition_in", 6, 33),
        constant("out_of", 33, 6),
        node("Reshape", "sample flat", "rows"),
        node("MatMul", "rows in", "phases"),
        node("Sin", "phases", "hidden"),
        node("Cast", "timestep", "time", to=TensorProto.FLOAT),
        node("Reshape", "time column", "times"),
        node("MatMul", "times frequencies", "angles"),
        node("Sin", "angles", "sines"),
        node("MatMul", "sines time_in", "moment"),
        node("Reshape", "condition flat", "tokens"),
        node("MatMul", "tokens condition_in", "wish"),
        node("Add", "hidden moment", "sum"),
        node("Add", "sum wish", "all"),
        node("Sigmoid", "all", "gate"),
        node("Mul", "all gate", "active"),
        node("MatMul", "active out_of", "result"),
        node("Reshape", "result back", "model_output"),
    ]
    inputs = [tensor("sample", ["B", 6, 1]), tensor("timestep", ["B"], TensorProto.INT64)]
    inputs.append(tensor("condition", ["B", 2, 3]))
    save_graph(folder / "denoiser.onnx", nodes, inputs, [tensor("model_output", ["B", 6, 1])])


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("bundles") / "network")
    save_network(folder)
    return read_bundle(describe(folder))


@pytest.fixture(scope="module", params=[1, 2], ids=["one thread", "two threads"])
def model(request, network):
    return BundleModel(network, "cpu", num_threads=request.param)


SAMPLES = rng.standard_normal((300, 6, 1), np.float32)
GOALS = rng.standard_normal((300, 2, 3), np.float32)


@pytest.fixture(scope="module")
def alone(model):
    return np.concatenate(
        [model.denoise(SAMPLES[i : i + 1], 3, GOALS[i : i + 1]) for i in range(len(SAMPLES))]
    )


@given(st.lists(st.integers(0, 299), min_size=1, max_size=200))
@settings(max_examples=15, deadline=None)
def test_any_rows_in_any_order_give_what_each_gives_alone(model, alone, rows):
    np.testing.assert_array_equal(model.denoise(SAMPLES[rows], 3, GOALS[rows]), alone[rows])


def test_a_plan_does_not_depend_on_its_batch_mates(model):
    optimizer = DDIMOptimizer(model, num_inference_steps=3)
    together = optimizer.optimize(PlanningProblem({"goal": GOALS[:9]})).actions
    for row in range(9):
        plan = optimizer.optimize(PlanningProblem({"goal": GOALS[row : row + 1]})).actions
        np.testing.assert_array_equal(plan[0], together[row])


def test_a_constant_input_is_filled_up_once_and_another_one_anew():
    class Watched(Uneven):
        def run(self, feeds):
            self.seen = feeds["sample"]
            return super().run(feeds)

    graph = Watched(4)
    rows = IndependentRows(graph, SHAPES, 10)
    graph.constant = ("sample",)
    first, second = feeds(3), feeds(3)
    rows.run(first)
    filled = graph.seen
    np.testing.assert_array_equal(filled, first["sample"][[0, 1, 2, 2]])
    rows.run({**second, "sample": first["sample"]})
    assert graph.seen is filled
    rows.run(second)
    np.testing.assert_array_equal(graph.seen, second["sample"][[0, 1, 2, 2]])
