import numpy as np
import pytest
from builders.training import any_press

from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import read_flat_actions

SPEC = ActionSpec()
SHORT = any_press(4)


def sequences(num, length=4, seed=0):
    actions = np.random.default_rng(seed).random((num, length, 3), dtype=np.float32)
    actions[..., 2] = 1.0
    return actions


def save(folder, name, array):
    np.save(folder / name, array)
    return folder / name


def test_files_are_joined_in_sorted_order(tmp_path):
    parts = [sequences(1 + i % 3, seed=i) for i in range(12)]
    for i in (7, 2, 11, 0, 9, 4, 1, 10, 3, 8, 6, 5):
        save(tmp_path, f"batch_{i:06d}_actions.npy", parts[i].reshape(-1, 3))
    save(tmp_path, "states.npy", np.zeros(3))
    data = read_flat_actions(tmp_path, SHORT)
    np.testing.assert_array_equal(data.actions, np.concatenate(parts))
    assert data.actions.dtype == np.float32
    assert [int(file.name[6:12]) for file in data.files] == list(range(12))
    assert not data.tail_rows
    assert not data.faults


@pytest.mark.parametrize("shape", [(12, 3), (3, 4, 3), (3, 12), (3, 1, 4, 3), (3, 1, 12)])
def test_every_documented_shape_gives_the_same_sequences(tmp_path, shape):
    actions = sequences(3)
    save(tmp_path, "a_actions.npy", actions.reshape(shape))
    np.testing.assert_array_equal(read_flat_actions(tmp_path, SHORT).actions, actions)


def test_design_width_of_750(tmp_path):
    actions = sequences(2, length=250)
    file = save(tmp_path, "a_actions.npy", actions.reshape(2, 750))
    np.testing.assert_array_equal(read_flat_actions(file, SPEC).actions, actions)


def test_float64_is_converted(tmp_path):
    save(tmp_path, "a_actions.npy", sequences(1).astype(np.float64)[0])
    assert read_flat_actions(tmp_path, SHORT).actions.dtype == np.float32


def test_tail_is_reported_and_whole_sequences_are_kept(tmp_path):
    actions = sequences(3)
    save(tmp_path, "a_actions.npy", actions.reshape(-1, 3)[:10])
    save(tmp_path, "b_actions.npy", actions.reshape(-1, 3))
    data = read_flat_actions(tmp_path, SHORT)
    np.testing.assert_array_equal(data.actions, np.concatenate([actions[:2], actions]))
    assert data.tail_rows == {"a_actions.npy": 2}
    (fault,) = data.faults
    assert "a_actions.npy" in fault
    assert "2 rows" in fault


def test_fingerprint_follows_contents_and_names_not_place(tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "three", "four")]
    for folder in folders:
        folder.mkdir()
    actions = sequences(2).reshape(-1, 3)
    save(folders[0], "a_actions.npy", actions)
    save(folders[1], "a_actions.npy", actions)
    save(folders[2], "b_actions.npy", actions)
    save(folders[3], "a_actions.npy", np.nextafter(actions, 0))
    prints = [read_flat_actions(folder, SHORT).data_fingerprint for folder in folders]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert len(prints[0]) == 16


def with_value(value, row=5, column=0):
    rows = sequences(2).reshape(-1, 3).astype(np.float64)
    rows[row, column] = value
    return rows


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 2), np.float32), r"shape \(8, 2\), expected \[n \* 4, 3\]"),
        (np.zeros((2, 5, 3), np.float32), r"shape \(2, 5, 3\)"),
        (np.float32(1.0), r"shape \(\)"),
        (np.zeros((8, 3), np.int64), "dtype int64"),
        (np.zeros((8, 3), np.complex64), "dtype complex64"),
        (np.zeros((3, 3), np.float32), "3 rows, expected at least one sequence of 4"),
        (np.zeros((0, 3), np.float32), "0 rows"),
        (with_value(np.nan), "1 values are NaN or infinite, the first in row 5"),
        (with_value(-np.inf, row=2), "first in row 2"),
        (with_value(1e300), "NaN or infinite"),
        (with_value(1.5), r"channel 'x' is 1.5 in row 5, expected 0 to 1"),
        (with_value(-0.5, column=2), r"channel 'press' is -0.5"),
    ],
)
def test_bad_arrays_are_named(tmp_path, array, message):
    save(tmp_path, "a_actions.npy", sequences(1)[0])
    save(tmp_path, "bad_actions.npy", array)
    with pytest.raises(DataError, match=message) as caught:
        read_flat_actions(tmp_path, SHORT)
    assert "bad_actions.npy" in str(caught.value)


def test_object_arrays_are_refused_without_unpickling(tmp_path):
    np.save(tmp_path / "bad_actions.npy", np.array([{}, None], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"bad_actions.npy.*Python objects"):
        read_flat_actions(tmp_path, SHORT)


@pytest.mark.parametrize("keep", [0, 5, 60, 130, 200])
def test_truncated_files_are_refused(tmp_path, keep):
    file = save(tmp_path, "bad_actions.npy", sequences(2).reshape(-1, 3))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"bad_actions.npy.*truncated"):
        read_flat_actions(tmp_path, SHORT)


def test_other_formats_under_the_same_name_are_refused(tmp_path):
    with open(tmp_path / "bad_actions.npy", "wb") as stream:
        np.savez(stream, actions=sequences(1))
    with pytest.raises(DataError, match=r"bad_actions.npy.*npz"):
        read_flat_actions(tmp_path, SHORT)
    (tmp_path / "bad_actions.npy").write_text("x,y,press\n")
    with pytest.raises(DataError, match=r"bad_actions.npy is not a readable .npy file"):
        read_flat_actions(tmp_path, SHORT)


def test_released_zeros_are_in_range_whatever_the_bounds(tmp_path):
    pixels = any_press(4, bounds=((10, 10), (90, 90)))
    actions = np.zeros((1, 4, 3), np.float32)
    actions[0, 1:3] = [20, 30, 1]
    save(tmp_path, "a_actions.npy", actions)
    assert len(read_flat_actions(tmp_path, pixels).actions) == 1
    actions[0, 1, 0] = 0.0
    save(tmp_path, "a_actions.npy", actions)
    with pytest.raises(DataError, match="'x' is 0 in row 1, expected 10 to 90"):
        read_flat_actions(tmp_path, pixels)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such file, expected a folder of"):
        read_flat_actions(tmp_path / "nowhere", SHORT)
    with pytest.raises(DataError, match="an empty folder"):
        read_flat_actions(tmp_path, SHORT)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="1 other entries"):
        read_flat_actions(tmp_path, SHORT)
    (tmp_path / "train").mkdir()
    save(tmp_path / "train", "a_actions.npy", sequences(1)[0])
    with pytest.raises(DataError, match="Its folders train hold some"):
        read_flat_actions(tmp_path, SHORT)
