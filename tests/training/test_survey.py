"""What is decided of a data set is decided by all of it."""

import json

import numpy as np
import pytest
import torch
from builders.training import (
    NO_TOUCH,
    any_press,
    make_gestures,
    measure_the_loss_alone,
    press,
    vj2_ddim,
)

from vj2_ddim_plugin.gestures import decode, encode, is_valid
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.condition_encoders import LatentEncoder
from vj2_ddim_training.data import steps
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.trajectories import open_trajectories
from vj2_ddim_training.examples import action_parts, open_examples
from vj2_ddim_training.survey import ActionSurvey, infer_action_spec, moments_of

TEMPLATE = any_press(20, 0, path_knots=None, representation="raw")
SMALL = ("--d-model", 16, "--num-layers", 1, "--nhead", 2, "--num-epochs", 1, "--wandb", "disabled")


def presses(num, shortest, longest, rng):
    """Straight presses of `shortest` to `longest` steps of 250, float32 `[num, 250, 3]`."""
    duration = rng.integers(shortest, longest, num, endpoint=True)
    duration[:2] = shortest, longest
    begins = rng.integers(0, 250 - duration, endpoint=True)
    points = rng.random((num, 2, 2))
    each = [
        press(begin, begin + steps, *ends, length=250)
        for begin, steps, ends in zip(begins, duration, points, strict=True)
    ]
    return np.stack(each)


def write(folder, splits, latents=lambda rng, num: rng.standard_normal((num, 2, 1, 3))):
    """`{split: {file: actions [n, L, 3]}}`, each action a trajectory of two latents `[1, 3]`."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for name, actions in ((n, a) for files in splits.values() for n, a in files.items()):
        z = latents(rng, len(actions)).astype(np.float32)
        np.savez(folder / f"{name}.npz", embeddings=z, actions=actions[:, None])
    names = {split: [f"{name}.npz" for name in files] for split, files in splits.items()}
    (folder / "manifest.json").write_text(json.dumps({"splits": names}))
    return folder


def train(root, *options, data="data"):
    run = ("--data-dir", root / data, "--val-data-dir", root / data, "--save-dir", root / "run")
    return vj2_ddim("train", *run, *SMALL, *options)


class TestWholeDataSets:
    def test_long_presses_in_a_late_file(self, tmp_path, capsys):
        """5,100 transitions of presses of 10 to 40 steps, then 600 of 120 to 180."""
        rng = np.random.default_rng(0)
        late = presses(600, 120, 180, rng)
        files = {"a": presses(5100, 10, 40, rng), "b": late}
        means = iter([0.0, 100.0, 0.0])  # the second file's latents lie elsewhere

        def latents(rng, num):
            goals_differ = np.array([[[0.0]], [[7.0]]])
            return rng.standard_normal((num, 2, 1, 3)) + goals_differ + next(means)

        data = write(tmp_path / "data", {"train": files, "validation": {"c": late[:9]}}, latents)
        options = ("--condition", "latents", "--epoch-share", "0.001", "--num-validation", 4)
        assert train(tmp_path, *options) == 0
        model = load_checkpoint(tmp_path / "run" / "checkpoint.pt").model
        spec = model.action_spec
        assert (spec.min_press_steps, spec.max_press_steps) == (10, 180)
        assert is_valid(late, spec).all()
        long = press(50, 187, (0.1, 0.2), (0.9, 0.4), length=250)  # 137 steps
        np.testing.assert_allclose(decode(encode(long, spec), spec), long, atol=1e-5)
        said = " ".join(capsys.readouterr().out.split())
        assert "5,709 action blocks, presses of 10 to 180 steps: representation path" in said
        z = [np.load(data / f"{name}.npz")["embeddings"].reshape(-1, 3) for name in "ab"]
        z = np.concatenate(z).astype(float)
        np.testing.assert_allclose(model.condition_encoder.latent_mean, z.mean(0), rtol=1e-5)
        np.testing.assert_allclose(model.condition_encoder.latent_std, z.std(0), rtol=1e-5)

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_a_late_file_without_a_press(self, tmp_path, capsys, split):
        """`auto` is `held`, wherever it lies; the lengths are those of training."""
        gestures = make_gestures(8)
        splits = {"train": {"a": gestures}, "validation": {"b": gestures[:2]}}
        splits[split]["z"] = np.zeros((1, 20, 3), np.float32)
        write(tmp_path / "data", splits)
        options = ("--condition", "latents", "--action-block", 20, "--num-validation", 9)
        assert train(tmp_path, *options) == 0
        spec = load_checkpoint(tmp_path / "run" / "checkpoint.pt").model.action_spec
        assert (spec.representation, spec.path_knots) == ("held", None)
        assert spec.min_press_steps == (0 if split == "train" else 5)
        said = " ".join(capsys.readouterr().out.split())
        assert "representation held; not path: a block has no press (z.npz)" in said

    def test_one_late_block_among_gestures(self, tmp_path):
        """More sequences than are looked at at once."""
        (tmp_path / "data").mkdir()
        gestures = make_gestures(2100)
        gestures[-1] = 0.0
        np.save(tmp_path / "data" / "a_actions.npy", gestures.reshape(-1, 3))
        survey = ActionSurvey(TEMPLATE)
        for where, part in action_parts(tmp_path / "data", TEMPLATE, "none"):
            survey.look(part, where)
        assert survey.spec("auto") == infer_action_spec(gestures, "auto", TEMPLATE)
        assert survey.spec("auto").representation == "held"

    def test_a_data_set_that_a_model_cannot_hold_names_the_file(self, tmp_path, capsys):
        gestures = make_gestures(8)
        write(tmp_path / "data", {"train": {"a": gestures}, "validation": {"b": gestures[:2]}})
        assert train(tmp_path, "--condition", "latents", "--action-block", 20) == 0
        bad = {"c": gestures[:2], "d": np.zeros((1, 20, 3), np.float32)}
        write(tmp_path / "other", {"train": {"a": gestures}, "validation": bad})
        checkpoint = tmp_path / "run" / "checkpoint.pt"
        assert vj2_ddim("evaluate", checkpoint, tmp_path / "other") == 1
        assert "needs exactly one press segment" in capsys.readouterr().err

    def test_parts_are_bounded_and_complete(self, tmp_path, monkeypatch):
        z = np.random.default_rng(0).random((7, 2, 1, 3)).astype(np.float32)
        gestures = make_gestures(7)
        write(tmp_path / "data", {"train": {"a": gestures}}, lambda rng, num: z[:num])
        monkeypatch.setattr(steps, "PART_NUMBERS", 12)  # two trajectories of latents
        opened = open_trajectories(tmp_path / "data", TEMPLATE)
        parts = [part for _, part in opened.parts("embeddings")]
        assert [len(part) for part in parts] == [4, 4, 4, 2]
        np.testing.assert_array_equal(np.concatenate(parts), z.reshape(-1, 1, 3))
        actions = [part for _, part in opened.parts("actions")]
        assert len(actions) == 7  # one block is more than a part may be
        np.testing.assert_array_equal(np.concatenate(actions), gestures)
        monkeypatch.setattr(steps, "PART_NUMBERS", 1)  # not even one trajectory
        parts = [part for _, part in opened.parts("embeddings")]
        np.testing.assert_array_equal(np.concatenate(parts), z.reshape(-1, 1, 3))
        assert max(map(len, parts)) == 1


STRAIGHT = press(4, 16, (0.13, 0.21), (0.88, 0.93), length=20)
BLURRED = STRAIGHT * [1, 1, 0.9]
HOVERING = np.where(STRAIGHT[:, 2:] > 0, STRAIGHT, [0.3, 0.0, 0.0])
FALLS = [
    (BLURRED, "raw; not path: press is 0.9 where it should be 0 or 1"),
    (HOVERING, "raw; not path: coordinates are not 0 where the finger is up"),
    (STRAIGHT + STRAIGHT[::-1] * 0, "path, 2 knots"),
    (STRAIGHT.astype(np.float16), "path, 2 knots; what float16 rounds is allowed for"),
    (STRAIGHT**2, "held; not path: a path is curved"),
    (STRAIGHT * 0, "held; not path: a block has no press"),
]


@pytest.mark.parametrize(("actions", "words"), FALLS)
def test_what_was_chosen_is_said_and_why(actions, words):
    survey = ActionSurvey(TEMPLATE)
    survey.look(actions[None].astype(np.float32))
    assert words in survey.summary(survey.spec("auto"))


def test_no_touches_are_said_to_be_none():
    survey = ActionSurvey(ActionSpec(2, representation="raw", **NO_TOUCH))
    survey.look(np.zeros((3, 2, 1), np.float32))
    assert "3 action blocks of u: no channel is named press" in survey.summary(survey.spec("auto"))


class TestDisplacements:
    """Their unit is that in which they are as wide as places drawn evenly from the screen."""

    @staticmethod
    def surveyed(*parts, template=TEMPLATE):
        survey = ActionSurvey(template)
        for part in parts:
            survey.look(np.asarray(part, np.float32))
        return survey

    @staticmethod
    def moves(*reaches):
        """Straight presses that go so far, in shares of the screen, to the right."""
        ends = ([[0.1, 0.5], [0.1 + reach, 0.5]] for reach in reaches)
        return np.stack([press(2, 12, *each, length=20) for each in ends])

    def test_by_hand(self):
        survey = self.surveyed(self.moves(0.4, 0.2))
        mean_square = (0.8**2 + 0.4**2 + 0.0 + 0.0) / 4  # x twice, y twice; a screen is 2 wide
        assert survey.displacement_scale() == round((3 * mean_square) ** 0.5, 1) == 0.8
        spec = survey.spec("auto")
        assert spec.displacement_scale == 0.8
        assert "path, 2 knots; displacements in units of 0.8" in survey.summary(spec)
        numbers = encode(self.moves(0.4, 0.2), spec)[:, 2:4]
        assert np.sqrt(np.mean(numbers**2)) == pytest.approx(3**-0.5, rel=0.05)

    def test_those_between_places_drawn_evenly_keep_the_places_unit(self):
        """They are wider than the places, by sqrt(2)."""
        template = any_press(250, 0, path_knots=None, representation="raw")
        survey = self.surveyed(presses(500, 5, 75, np.random.default_rng(0)), template=template)
        assert survey.displacement_scale() == 1.0

    def test_the_order_of_the_files_and_the_knots_found_do_not_matter(self):
        bent = self.moves(0.4)
        bent[0, 2:12, 0] = np.interp(np.arange(10), [0, 4.5, 9], [0.1, 0.5, 0.3])
        straight = self.moves(0.1, 0.2, 0.3)
        one, other = self.surveyed(bent, straight), self.surveyed(straight, bent)
        assert one.spec("path") == other.spec("path")
        assert one.spec("path").path_knots == 3
        squares = [0.8**2, 0.2**2, 0.4**2, 0.6**2]  # the bend reaches 0.4, in two displacements
        expected = (3 * sum(squares) / 8) ** 0.5 / 2
        assert one.displacement_scale() == pytest.approx(expected, abs=0.05)

    def test_taps_alone_keep_a_unit(self):
        assert self.surveyed(self.moves(0.0, 0.0)).displacement_scale() == 0.1

    def test_only_a_path_has_displacements_and_what_is_told_is_used(self):
        survey = self.surveyed(self.moves(0.2))
        assert survey.spec("held").displacement_scale == 1.0
        assert survey.spec("held", 0.5).displacement_scale == 1.0
        assert survey.spec("path", 0.5).displacement_scale == 0.5
        no_touch = ActionSurvey(ActionSpec(2, representation="raw", **NO_TOUCH))
        assert no_touch.spec("auto", 0.5).displacement_scale == 1.0

    def test_held_out_data_do_not_count(self):
        survey = self.surveyed(self.moves(0.2))
        before = survey.displacement_scale()
        survey.look(self.moves(0.9).astype(np.float32), limits=False)
        assert survey.displacement_scale() == before

    def test_a_run_that_goes_on_keeps_its_own(self, tmp_path, capsys):
        """One that was begun before there was a unit, too."""
        data = np.random.default_rng(0).choice(self.moves(0.1, 0.2, 0.3), 8)
        (tmp_path / "data").mkdir()
        np.save(tmp_path / "data" / "a_actions.npy", data.astype(np.float32))
        with pytest.MonkeyPatch.context() as patch:
            measure_the_loss_alone(patch)
            told = ("--action-block", 20, "--displacement-scale", 1.0, "--max-time", 0.001)
            assert train(tmp_path, *told) == 0
            run = tmp_path / "run"
            identity = json.loads((run / "run.json").read_text())
            assert identity["data"].pop("displacement_scale") == 1.0
            (run / "run.json").write_text(json.dumps(identity))
            assert vj2_ddim("train", "--save-dir", run, "--resume", "--max-time", "1h") == 0
        spec = load_checkpoint(run / "checkpoint.pt").model.action_spec
        assert (spec.representation, spec.displacement_scale) == ("path", 1.0)
        assert "units" not in capsys.readouterr().out


class TestFloat16:
    @pytest.mark.parametrize("seed", range(3))
    def test_files_of_straight_gestures_are_paths(self, tmp_path, seed):
        """In bounds that float16 rounds outward, too."""
        high = np.array([0.3, 1080.0, 1.0])
        gestures = make_gestures(200, seed=seed, kind="swipe") * high
        gestures[0] = 0.0
        gestures[0, 5:15] = high
        (tmp_path / "data").mkdir()
        np.save(tmp_path / "data" / "a_actions.npy", gestures.astype(np.float16))
        spec = any_press(20, 0, bounds=((0, 0), high[:2]), path_knots=None, representation="raw")
        read = read_flat_actions(tmp_path / "data", spec).actions
        inferred = infer_action_spec(read, "auto", spec)
        assert (inferred.representation, inferred.path_knots) == ("path", 2)
        assert is_valid(read, inferred).all()
        back = decode(encode(read, inferred), inferred)
        assert np.abs((back - read) / high).max() < 1.1e-3

    def test_curves_stay_curves(self):
        curved = STRAIGHT.copy()
        curved[4:16, 0] = 0.5 + 0.4 * np.cos(np.linspace(0, 6, 12))
        curved = curved.astype(np.float16).astype(np.float32)[None]
        assert infer_action_spec(curved, "auto", TEMPLATE).representation == "held"


class TestStatistics:
    @pytest.mark.parametrize("cuts", [[], [1], [3, 4, 17]])
    def test_all_of_it_in_one_pass(self, cuts):
        z = np.random.default_rng(0).standard_normal((20, 4, 3)) * [1, 2, 3] + [1e4, 0, -5]
        mean, std = moments_of(np.split(z, cuts))
        np.testing.assert_allclose(mean, z.mean(axis=(0, 1)), rtol=1e-12)
        np.testing.assert_allclose(std, z.std(axis=(0, 1)), rtol=1e-9)

    def test_the_order_of_the_files_does_not_matter(self):
        z = np.random.default_rng(1).standard_normal((30, 3)) + np.arange(30)[:, None]
        one, other = moments_of([z[:20], z[20:]]), moments_of([z[20:], z[:20]])
        np.testing.assert_allclose(one, other, rtol=1e-12)

    @pytest.mark.parametrize("dead", [0.0, 1e-6, 1e-3])
    def test_a_dead_feature_does_not_drown_the_others(self, dead):
        rng = np.random.default_rng(0)
        z = rng.standard_normal((500, 4, 6)).astype(np.float32)
        z[..., 2] = 0.3 + dead * z[..., 2]
        encoder = LatentEncoder({"state": (4, 6), "goal": (4, 6)}, 16, 1, 2, 2)
        encoder.set_statistics([z])
        state, goal = torch.from_numpy(z[:8]), torch.from_numpy(z[8:16])
        drifted, live = goal.clone(), goal.clone()
        drifted[..., 2] += 1e-4
        live[..., 1] += 1.0
        moved = [(encoder(state, to) - encoder(state, goal)).norm() for to in (drifted, live)]
        assert moved[0] < 0.02 * moved[1]

    @pytest.mark.parametrize(
        "z", [np.full((1, 3), 0.3), np.zeros((9, 3)), np.full((7, 3), [1e6, 1, 0]), np.ones((1, 1))]
    )
    def test_where_nothing_differs_nothing_is_scaled(self, z):
        mean, std = moments_of([z.astype(np.float32)])
        np.testing.assert_array_equal(std, 1.0)
        np.testing.assert_allclose(mean, z[0], rtol=1e-6)

    def test_one_transition_trains(self, tmp_path):
        gestures = make_gestures(2)
        write(tmp_path / "data", {"train": {"a": gestures[:1]}, "validation": {"b": gestures[1:]}})
        examples = open_examples(tmp_path / "data", TEMPLATE, "latents")
        _, std = moments_of(examples.latents())
        assert np.isfinite(std).all()
        assert (std > 0).all()
