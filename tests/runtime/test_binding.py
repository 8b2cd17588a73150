"""Bound runs give what plain runs give, from fixed addresses and with no copy too many."""

import numpy as np
import onnxruntime
import pytest
from builders.bundles import save_denoiser

from vj2_ddim_plugin.onnx import SessionSettings, session
from vj2_ddim_plugin.onnx.session import MAX_SHAPES, BoundRuns, OnnxGraph

rng = np.random.default_rng(0)
ortvalue_from_numpy = onnxruntime.OrtValue.ortvalue_from_numpy  # the real one


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "denoiser.onnx"
    save_denoiser(path, conditional=True)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def on_the_cpu(array):
    return ortvalue_from_numpy(array, "cpu", 0)


def feeds(rows):
    return {
        "sample": rng.standard_normal((rows, 6, 1), np.float32),
        "timestep": np.full(rows, 7, np.int64),
        "condition": rng.standard_normal((rows, 2, 3), np.float32),
    }


class Recording:
    """A session that notes how it was run."""

    def __init__(self, session):
        self._session, self.plain, self.bound, self.addresses = session, [], [], []

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run(self, names, feeds, options=None):
        self.plain.append(options)
        return self._session.run(names, feeds)

    def run_with_iobinding(self, binding, options=None):
        self.bound.append(options)
        self.addresses.append([value.data_ptr() for value in binding.get_outputs()])
        return self._session.run_with_iobinding(binding)


class Placed:
    """An `OrtValue` whose copies are counted."""

    copies = []

    def __new__(cls, array):
        value = on_the_cpu(array)
        original = value.update_inplace

        def update_inplace(array):
            cls.copies.append(array.shape)
            original(array)

        value.update_inplace = update_inplace
        return value


def test_bound_runs_are_plain_runs_to_the_bit(plain):
    bound = BoundRuns(plain, on_the_cpu, lambda graph: None, ["condition"])
    for rows in [1, 3, 1, 8, 3, 3]:
        given = feeds(rows)
        np.testing.assert_array_equal(bound.run(given)[0], plain.run(None, given)[0])


def test_what_was_returned_is_not_overwritten_by_the_next_run(plain):
    bound = BoundRuns(plain, on_the_cpu, lambda graph: None)
    first, second = feeds(2), feeds(2)
    (kept,) = bound.run(first)
    bound.run(second)
    np.testing.assert_array_equal(kept, plain.run(None, first)[0])


def test_the_callers_arrays_are_copied_and_need_not_be_contiguous(plain):
    bound = BoundRuns(plain, on_the_cpu, lambda graph: None)
    given = feeds(4)
    bound.run(given)
    before = {name: array.copy() for name, array in given.items()}
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in feeds(4).items()}
    np.testing.assert_array_equal(bound.run(strided)[0], plain.run(None, strided)[0])
    for name, array in given.items():
        np.testing.assert_array_equal(array, before[name])


def test_a_sample_that_is_changed_in_place_is_copied_again(plain):
    bound = BoundRuns(plain, on_the_cpu, lambda graph: None, ["condition"])
    given = feeds(2)
    bound.run(given)
    given["sample"] += 1
    np.testing.assert_array_equal(bound.run(given)[0], plain.run(None, given)[0])


def test_the_condition_is_copied_once_a_loop(plain, monkeypatch):
    monkeypatch.setattr(Placed, "copies", [])
    bound = BoundRuns(plain, Placed, lambda graph: None, ["condition"])
    one, other = feeds(2), feeds(2)
    for condition, steps in ((one, 10), (other, 5)):
        for _ in range(steps):
            given = {**feeds(2), "condition": condition["condition"]}
            np.testing.assert_array_equal(bound.run(given)[0], plain.run(None, given)[0])
    assert Placed.copies.count((2, 2, 3)) == 2
    assert Placed.copies.count((2, 6, 1)) == 15


def test_a_cuda_graph_has_an_id_of_its_own_and_fixed_addresses_for_each_shape(plain):
    recording = Recording(plain)
    bound = BoundRuns(recording, on_the_cpu, lambda graph: graph)
    for rows in [2, 2, 5, 2, 5]:
        bound.run(feeds(rows))
    assert recording.plain == [-1, -1]  # what tells the outputs' shapes is not recorded
    assert recording.bound == [1, 1, 2, 1, 2]
    two, five = recording.addresses[0], recording.addresses[2]
    assert recording.addresses == [two, two, five, two, five]
    assert two != five


def test_buffers_of_old_shapes_are_freed_and_their_ids_not_used_again(plain):
    recording = Recording(plain)
    bound = BoundRuns(recording, on_the_cpu, lambda graph: graph)
    for rows in [*range(1, MAX_SHAPES + 2), 1]:
        given = feeds(rows)
        np.testing.assert_array_equal(bound.run(given)[0], plain.run(None, given)[0])
    assert recording.bound == list(range(1, MAX_SHAPES + 3))


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_a_graph_on_a_gpu_runs_bound(plain, tmp_path, monkeypatch, cuda_graph):
    """A session on the CPU that says it is CUDA, and CUDA memory that is the CPU's."""
    save_denoiser(tmp_path / "denoiser.onnx", conditional=True)
    real = onnxruntime.InferenceSession
    made = []

    def pretend(graph, options, providers, **others):
        made.append(Recording(real(graph, options, providers=["CPUExecutionProvider"])))
        made[0].get_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return made[0]

    places = []

    def place(array, device_type, device_id):
        places.append((device_type, device_id))
        return on_the_cpu(array)

    monkeypatch.setattr(session, "why_not", lambda provider: "")
    monkeypatch.setattr(onnxruntime, "InferenceSession", pretend)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(place))
    settings = SessionSettings("cuda", cuda_graph=cuda_graph, provider_options={"device_id": "1"})
    graph = OnnxGraph(tmp_path / "denoiser.onnx", settings, ["condition"])
    given = feeds(3)
    for _ in range(2):
        np.testing.assert_array_equal(graph.run(given)[0], plain.run(None, given)[0])
    assert set(places) == {("cuda", 1)}
    ids = [o and o.get_run_config_entry("gpu_graph_id") for o in made[0].plain + made[0].bound]
    assert ids == (["-1", "1", "1"] if cuda_graph else [None, None, None])


def test_a_run_with_options_of_its_own_leaves_the_buffers_alone(plain):
    session = Recording(plain)
    runs = BoundRuns(session, on_the_cpu, lambda graph_id: None)
    options, given = onnxruntime.RunOptions(), feeds(2)
    for own in (None, options, None):
        (found,) = runs.run(given, own)
        np.testing.assert_array_equal(found, plain.run(None, given)[0])
    assert session.plain.count(options) == 1
    assert len(session.bound) == 2
