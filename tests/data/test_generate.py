from dataclasses import replace

import numpy as np
import pytest
from builders.training import make_settings
from scipy import stats

from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import count_segments
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.generate import generate_gestures, write_gestures
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.inspect import describe_data
from vj2_ddim_training.data.settings import GESTURE_KINDS, PATTERNS
from vj2_ddim_training.gestures import find_gestures
from vj2_ddim_training.run import train_run
from vj2_ddim_training.survey import infer_action_spec

SPEC = ActionSpec()


def generate(num=2000, seed=0, **settings):
    return generate_gestures(num, rng=np.random.default_rng(seed), **settings)


@pytest.mark.parametrize("kind", GESTURE_KINDS)
def test_all_are_valid_gestures_in_vj2_gui_convention(kind):
    actions = generate(kind=kind)
    assert actions.shape == (2000, 250, 3)
    assert actions.dtype == np.float32
    assert gestures.is_valid(actions, replace(SPEC, path_knots=None, representation="raw")).all()
    pressed = actions[..., 2] == 1.0
    assert set(np.unique(actions[..., 2])) == {0.0, 1.0}
    assert (actions[~pressed] == 0.0).all()
    assert (count_segments(pressed) == 1).all()


@pytest.mark.parametrize("kind", ["swipe", "mixed"])
def test_paths_are_linspace_over_the_pressed_steps(kind):
    for sequence in generate(50, kind=kind):
        points = sequence[sequence[:, 2] == 1.0, :2]
        np.testing.assert_allclose(
            points, np.linspace(points[0], points[-1], len(points)), atol=2e-7
        )


ANY_PRESS = {"min_press_steps": 0, "max_press_steps": None, "path_knots": None}
CHOSEN = {kind: ("path", 2) for kind in GESTURE_KINDS}
CHOSEN |= {"path": ("path", 9), "circle": ("held", None), "patterns": ("held", None)}


@pytest.mark.parametrize("kind", GESTURE_KINDS)
def test_each_kind_is_found_sound_and_gets_the_representation_that_inverts(kind, tmp_path):
    write(tmp_path / kind, 60, kind=kind)
    template = replace(SPEC, representation="raw", **ANY_PRESS)
    assert describe_data(tmp_path / kind, template).faults == []
    spec = infer_action_spec(generate(60, kind=kind), "auto", template)
    assert (spec.representation, spec.path_knots) == CHOSEN[kind]


@pytest.mark.parametrize("kind", ["path", "circle", "patterns"])
def test_each_new_kind_can_be_trained_on(kind, tmp_path):
    share = {"min_duration_share": 0.5, "max_duration_share": 0.9, "sequence_length": 20}
    write(tmp_path / "data", 14, kind=kind, **share)
    settings = make_settings(tmp_path, num_epochs=1)
    spec = train_run(settings).model.action_spec
    assert spec.representation == CHOSEN[kind][0]


def ends_of(actions):
    found = find_gestures(actions, SPEC)
    return np.concatenate([found.start_point, found.end_point], axis=1).round(5).tolist()


def test_patterns_are_at_fixed_places_in_turn():
    """Of any seed; only the times differ."""
    corner, row = 0.1, [0.2, 0.5, 0.8, 0.5]
    expected = {
        "centre_click": [[0.5] * 4],
        "corner_clicks": [[x, y, x, y] for y in (corner, 0.9) for x in (corner, 0.9)],
        "horizontal_swipes": [row, [0.8, 0.5, 0.2, 0.5]],
        "vertical_swipes": [[0.5, 0.2, 0.5, 0.8], [0.5, 0.8, 0.5, 0.2]],
        "diagonal_swipes": [
            [0.2, 0.2, 0.8, 0.8], [0.8, 0.2, 0.2, 0.8], [0.2, 0.8, 0.8, 0.2], [0.8, 0.8, 0.2, 0.2],
        ],
        "circle": [[0.8, 0.5, 0.8, 0.5]],
    }  # fmt: skip
    assert tuple(expected) == PATTERNS
    for kind, places in expected.items():
        for seed in (0, 1):
            assert ends_of(generate(2 * len(places), seed, kind=kind)) == places * 2
    assert ends_of(generate(14, kind="patterns")) == [of for all in expected.values() for of in all]


def test_a_circle_is_one_turn_of_equal_steps():
    (sequence,) = generate(1, kind="circle", min_duration_share=0.3, max_duration_share=0.3)
    points = sequence[sequence[:, 2] == 1.0, :2] - 0.5
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.3, atol=3e-4)
    angles = np.unwrap(np.arctan2(points[:, 1], points[:, 0]))
    np.testing.assert_allclose(np.diff(angles), 2 * np.pi / 74, rtol=0.01)


def test_paths_turn_pause_and_change_their_speed():
    actions = generate(500, kind="path", min_duration_share=0.26, max_duration_share=0.26)
    pressed = actions[actions[..., 2] == 1.0].reshape(500, 65, 3)[..., :2]  # eight legs of 8 steps
    legs = np.diff(pressed[:, ::8], axis=1)
    length = np.linalg.norm(legs, axis=2)
    assert 0.08 < np.mean(length < 1e-4) < 0.18  # an eighth stands still
    moving = np.sort(length, axis=1)
    assert np.median(moving[:, -1] / moving[:, -3]) > 1.3
    straight = np.linalg.norm(pressed[:, -1] - pressed[:, 0], axis=1)
    assert np.mean(length.sum(axis=1) > 1.2 * straight) > 0.6


@pytest.mark.parametrize(("complexity", "kind"), [(1, "click"), (2, "swipe"), (3, "path")])
def test_a_level_of_complexity_is_a_kind(complexity, kind):
    np.testing.assert_array_equal(generate(20, complexity=complexity), generate(20, kind=kind))


def test_durations_and_start_times_are_uniform():
    gestures = find_gestures(generate(20_000, kind="click"), SPEC)
    durations = gestures.stop - gestures.start
    counts = np.bincount(durations, minlength=76)
    assert counts[:5].sum() == 0
    assert stats.chisquare(counts[5:76]).pvalue > 0.01
    many = find_gestures(
        generate(20_000, min_duration_share=0.9, max_duration_share=0.9, sequence_length=250), SPEC
    )
    assert ((many.stop - many.start) == 225).all()
    assert stats.chisquare(np.bincount(many.start, minlength=26)).pvalue > 0.01


def test_points_are_uniform_and_types_equally_likely():
    actions = generate(20_000, kind="mixed", seed=3)
    gestures = find_gestures(actions, SPEC)
    moves = gestures.start_point != gestures.end_point
    kinds = np.bincount(moves[:, 0] + 2 * moves[:, 1], minlength=4)
    assert stats.chisquare(kinds).pvalue > 0.01
    for points in (gestures.start_point, gestures.end_point):
        for axis in range(2):
            assert stats.kstest(points[:, axis], "uniform").pvalue > 0.01


def test_short_swipes_reach_their_end():
    two_steps = generate(5000, kind="swipe", min_duration_share=0.008, max_duration_share=0.008)
    gestures = find_gestures(two_steps, SPEC)
    assert ((gestures.stop - gestures.start) == 2).all()
    for axis in range(2):
        start, end = gestures.start_point[:, axis], gestures.end_point[:, axis]
        assert stats.pearsonr(start, end).pvalue > 0.01  # independent


def test_click_stays_and_swipe_moves_both_ways():
    clicks = find_gestures(generate(kind="click"), SPEC)
    np.testing.assert_array_equal(clicks.start_point, clicks.end_point)
    swipes = find_gestures(generate(kind="swipe"), SPEC)
    assert (swipes.start_point != swipes.end_point).all()


def test_durations_round_down_and_may_be_none_or_everything():
    assert (generate(20, min_duration_share=0.0, max_duration_share=0.003) == 0.0).all()
    whole = generate(20, min_duration_share=1.0, max_duration_share=1.0)
    assert (whole[..., 2] == 1.0).all()
    one = generate(20, min_duration_share=0.1, max_duration_share=0.1, sequence_length=19)
    assert (one[..., 2].sum(axis=1) == 1).all()


def test_seeds_reproduce():
    np.testing.assert_array_equal(generate(seed=7), generate(seed=7))
    assert (generate(seed=7) != generate(seed=8)).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num": 0}, "at least 1 and at most 10000000; found 0"),
        ({"num": 10**12}, "at once are too many"),
        ({"num": 10**7 + 1, "sequence_length": 1}, "at most 10000000; found 10000001"),
        ({"sequence_length": 0}, "sequence_length must be at least 1.*found 0"),
        ({"sequence_length": 10**9}, "sequence_length must be .*at most 100000"),
        ({"kind": "tap"}, "'tap' is unknown; use one of click, swipe, mixed"),
        ({"kind": "path", "complexity": 2}, "kind is 'path' and complexity 2; tell one"),
        ({"complexity": 4}, "complexity must be at least 1 and at most 3; found 4"),
        ({"kind": "path", "max_duration_share": 0.03}, "a path takes at least 9 steps"),
        (
            {"min_duration_share": -0.1},
            "min_duration_share must be at least 0 and at most 1; found -0.1",
        ),
        ({"min_duration_share": 0.4}, "found 0.4 and 0.3"),
        ({"max_duration_share": 30.0}, "max_duration_share must be .*at most 1; found 30.0"),
        ({"max_duration_share": 0.01}, "shares of the sequence: 0.02 is 2 %"),
        ({"max_duration_share": float("nan")}, "max_duration_share.*found nan"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        generate(**settings)


def write(folder, num=25, seed=0, **settings):
    return write_gestures(folder, num, rng=np.random.default_rng(seed), **settings)


def test_written_files_are_read_back(tmp_path):
    files = write(tmp_path / "out", sequences_per_file=10)
    assert [file.name for file in files] == [f"batch_00000{i}_actions.npy" for i in range(3)]
    assert np.load(files[0]).shape == (2500, 3)
    assert np.load(files[0]).dtype == np.float32
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out"]
    data = read_flat_actions(tmp_path / "out", SPEC)
    np.testing.assert_array_equal(data.actions, generate(25))


def test_sequences_do_not_depend_on_the_file_size(tmp_path):
    write(tmp_path / "one", sequences_per_file=7)
    write(tmp_path / "two", sequences_per_file=100)
    one, two = (read_flat_actions(tmp_path / name, SPEC).actions for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_existing_folders_are_kept_unless_overwritten(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    write(folder, sequences_per_file=10)
    before = read_flat_actions(folder, SPEC).actions
    with pytest.raises(ConfigError, match=r"not empty \(3 entries\)"):
        write(folder, seed=1)
    np.testing.assert_array_equal(read_flat_actions(folder, SPEC).actions, before)
    write(folder, num=3, seed=1, overwrite=True)
    assert len(read_flat_actions(folder, SPEC).actions) == 3


def test_overwriting_spares_what_it_did_not_write(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"holds thesis.tex"):
        write(tmp_path, overwrite=True)
    with pytest.raises(ConfigError, match="is no folder"):
        write(tmp_path / "thesis.tex", overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_failing_to_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(path, array):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_files_need_at_least_one_sequence(tmp_path):
    with pytest.raises(ConfigError, match="sequences_per_file must be at least 1; found 0"):
        write(tmp_path / "out", sequences_per_file=0)
