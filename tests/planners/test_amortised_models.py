"""The amortised models against closed forms: what they learn, and what their files keep."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.amortised import (
    DENOISER,
    SHAPES,
    SPEC,
    TRAINING,
    make_context,
    make_model,
    quick,
    same_latents,
    save,
    tap_latents,
    taps,
    write_examples,
)
from builders.training import make_examples

from vj2_ddim_benchmark.amortised.base import KINDS, AmortisedConfig, Sampling
from vj2_ddim_benchmark.amortised.heads import BETA, STD_FLOOR, gaussian_nll
from vj2_ddim_benchmark.amortised.training import (
    FIELDS,
    build_amortised,
    load_amortised,
    train_amortised,
)
from vj2_ddim_benchmark.assets.settings import AssetSettings
from vj2_ddim_benchmark.model_files import round_weights
from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_plugin.gestures import decode
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.denoisers.dit import DiTDenoiser


def num_weights(module):
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    "sizes", [{}, {"d_model": 128, "num_layers": 4}, {"d_model": 64, "condition_tokens": 4}]
)
def test_the_head_is_as_large_as_the_denoiser(sizes):
    spec, denoiser = ActionSpec(), replace(AssetSettings().model, **sizes)
    model = build_amortised(AmortisedConfig.like("gaussian", denoiser, spec), spec, SHAPES)
    how = denoiser.d_model, denoiser.num_layers, denoiser.nhead
    dit = DiTDenoiser(*spec.diffused_shape, *how, conditional=True)
    assert num_weights(model.head) == pytest.approx(num_weights(dit), rel=0.02)


class TestLoss:
    @pytest.mark.parametrize(("seed", "centre"), [(0, 0.0), (1, -3.0), (2, 2.0)])
    def test_nll_and_its_gradient_are_those_of_torch(self, seed, centre):
        generator = torch.Generator().manual_seed(seed)
        original, mean, log_std = torch.randn(3, 5, 6, 1, generator=generator, dtype=torch.double)
        ours = [mean.clone().requires_grad_(), (log_std + centre).requires_grad_()]
        theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
        loss = gaussian_nll(original, *ours)
        expected = -torch.distributions.Normal(theirs[0], theirs[1].exp()).log_prob(original).mean()
        torch.testing.assert_close(loss, expected)
        grad = torch.autograd.grad
        torch.testing.assert_close(grad(loss, ours), grad(expected, theirs))

        for beta in (0.5, 1.0):  # scales each gradient by a power of the std
            weight = theirs[1].detach().exp() ** (2 * beta)
            weighted = grad(gaussian_nll(original, *theirs, beta), theirs)
            plain = grad(gaussian_nll(original, *theirs), theirs)
            torch.testing.assert_close(weighted, tuple(weight * each for each in plain))

    def test_the_gaussian_s_mean_has_the_gradient_of_the_squared_error(self):
        original, mean = torch.randn(2, 5, 6, 1, generator=torch.Generator().manual_seed(2))
        mean.requires_grad_()
        log_std = torch.linspace(-3, 1, 6)[:, None].expand(5, 6, 1)
        loss = gaussian_nll(original, mean, log_std, BETA)
        squared = (original - mean).square().mean() / 2
        torch.testing.assert_close(*(torch.autograd.grad(of, mean) for of in (loss, squared)))

    def test_the_std_has_a_floor(self):
        model = make_model("gaussian")
        with torch.no_grad():
            model.head[-2].bias -= 100
        context = {name: torch.from_numpy(z) for name, z in make_context().items()}
        std = model(**context)[1].exp()
        assert std.min() >= STD_FLOOR * 0.999
        assert std.max() <= STD_FLOOR * 1.01


@pytest.fixture(scope="module")
def tap_examples(tmp_path_factory):
    points = np.random.default_rng(1).uniform(size=(192, 2))
    folder = tmp_path_factory.mktemp("taps") / "data"
    return write_examples(folder, tap_latents(points), taps(points))


@pytest.fixture(scope="module")
def two_mode_examples(tmp_path_factory):
    """Three quarters of the taps at x 0.2 and a quarter at 0.8, whatever the latents."""
    points = np.tile([[0.2, 0.5], [0.2, 0.5], [0.2, 0.5], [0.8, 0.5]], (16, 1))
    folder = tmp_path_factory.mktemp("modes") / "data"
    return write_examples(folder, same_latents(len(points)), taps(points))


def learned(kind, examples, path, **settings):
    """Trained, written and read again."""
    training = replace(TRAINING, **settings)
    train_amortised(kind, examples, DENOISER, training, path)
    return load_amortised(path, kind)


class TestLearning:
    @pytest.mark.parametrize("kind", ["regression", "gaussian"])
    def test_a_known_map_is_learned(self, tap_examples, tmp_path, kind):
        """On taps that were not seen, against always tapping the mean point."""
        model = learned(kind, tap_examples, tmp_path / "model.pt", num_epochs=14, batch_size=16)
        points = np.random.default_rng(2).uniform(size=(200, 2))
        state, goal = tap_latents(points, seed=3)
        mean, _ = model.predict({"state": state, "goal": goal})
        tapped = decode(mean, SPEC)[:, 4:12, :2].max(axis=1)
        error = np.square(tapped - points).mean()
        baseline = np.square(points - points.mean(axis=0)).mean()
        assert error < 0.1 * baseline

    def test_regression_of_two_modes_is_their_average_and_the_gaussian_covers_both(
        self, two_mode_examples, tmp_path
    ):
        """Mean and standard deviation of the mixture, in units of half a screen around 0.5."""
        context = dict(zip(("state", "goal"), same_latents(1), strict=True))
        model = learned("regression", two_mode_examples, tmp_path / "model.pt", num_epochs=30)
        tapped = decode(model.predict(context)[0], SPEC)[0, 4:12, :2]
        x = 0.75 * 0.2 + 0.25 * 0.8
        np.testing.assert_allclose(tapped, np.tile([x, 0.5], (8, 1)), atol=0.03)
        model = learned("gaussian", two_mode_examples, tmp_path / "model.pt", num_epochs=30)
        mean, std = model.predict(context)
        assert mean[0, 0, 0] == pytest.approx(2 * 0.35 - 1, abs=0.06)
        assert std[0, 0, 0] == pytest.approx(2 * 0.6 * np.sqrt(0.75 * 0.25), rel=0.1)
        modes = 2 * np.array([0.2, 0.8]) - 1
        assert (np.abs(modes - mean[0, 0, 0]) < 2 * std[0, 0, 0]).all()
        assert std[0, 1, 0] < 0.1  # y is always the same


class TestTraining:
    def test_the_same_seed_gives_the_same_weights(self, tap_examples, tmp_path):
        def weights(name, seed):
            training = quick(seed=seed, batch_size=128)
            train_amortised("gaussian", tap_examples, DENOISER, training, tmp_path / name)
            return load_amortised(tmp_path / name).state_dict()

        first, again, other = weights("a.pt", 3), weights("b.pt", 3), weights("c.pt", 4)
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    @pytest.mark.parametrize("kind", ["regression", "mixture", "flow"])
    def test_half_precision_is_nearly_full_precision(self, tap_examples, tmp_path, kind):
        def losses(precision):
            file = tmp_path / precision
            training = quick(num_epochs=2, precision=precision)
            train_amortised(kind, tap_examples, DENOISER, training, file)
            contents = torch.load(file, weights_only=True)
            assert {of.dtype for of in contents["weights"].values()} == {torch.float16}
            return contents["provenance"]["loss_by_epoch"]

        full, half = losses("float32"), losses("bfloat16")
        assert half != full
        np.testing.assert_allclose(half, full, rtol=0.05)

    def test_networks_are_compiled_where_told(self, tap_examples, tmp_path, monkeypatch):
        compiled = []
        monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self)))
        for kind in ("regression", "flow"):
            training = quick(num_epochs=1, compile=True)
            train_amortised(kind, tap_examples, DENOISER, training, tmp_path / kind)
        names = [of.__name__ for of in compiled]
        assert names == ["LatentEncoder", "Sequential", "LatentEncoder", "DiffusionModel"]

    @pytest.mark.parametrize("kind", ["regression", "gaussian"])
    @pytest.mark.parametrize("stop", [3, 6])  # within an epoch of 6 steps, and at its end
    def test_an_interrupted_training_goes_on_bit_for_bit(self, tap_examples, tmp_path, kind, stop):
        def train(name, progress=lambda *_: None):
            arguments = (tap_examples, DENOISER, quick(num_epochs=2, seed=3), tmp_path / name)
            train_amortised(kind, *arguments, progress)
            return torch.load(tmp_path / name, weights_only=True)

        def interrupt(phase, done, total):
            if done == stop:
                raise KeyboardInterrupt

        told = []
        whole = train("whole.pt")
        with pytest.raises(KeyboardInterrupt):
            train("cut.pt", interrupt)
        assert not (tmp_path / "cut.pt").exists()
        cut = train("cut.pt", lambda phase, done, total: told.append(done))
        assert told[0] == stop + 1
        assert cut["provenance"]["loss_by_epoch"] == whole["provenance"]["loss_by_epoch"]
        assert all(torch.equal(cut["weights"][n], w) for n, w in whole["weights"].items())
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pt", "whole.pt"]

    def test_progress_is_told_and_torch_s_own_randomness_left_alone(
        self, two_mode_examples, tmp_path
    ):
        told, path, training = [], tmp_path / "model.pt", quick(num_epochs=2, batch_size=25)
        torch.manual_seed(11)
        expected = torch.rand(3)
        torch.manual_seed(11)
        watch = lambda *step: told.append(step)  # noqa: E731
        train_amortised("regression", two_mode_examples, DENOISER, training, path, watch)
        torch.testing.assert_close(torch.rand(3), expected)
        assert told == [("train the regression planner", step, 6) for step in range(1, 7)]
        contents = torch.load(path, weights_only=True)
        assert contents["data_fingerprint"] == two_mode_examples.data_fingerprint
        assert contents["training"]["batch_size"] == 25
        assert contents["provenance"]["num_examples"] == 64
        assert len(contents["provenance"]["loss_by_epoch"]) == 2

    def test_without_latents_there_is_nothing_to_learn_from(self, tmp_path):
        with pytest.raises(ConfigError, match=r"'state' and 'goal'; found 12 examples with \['sk"):
            train_amortised("gaussian", make_examples(), DENOISER, quick(), tmp_path / "model.pt")
        assert not list(tmp_path.iterdir())
        with pytest.raises(ConfigError, match="condition 'latents'; found 'sketch'"):
            AmortisedConfig.like("gaussian", ModelConfig(), SPEC)


class TestFile:
    @pytest.mark.parametrize("kind", KINDS)
    def test_round_trip(self, tmp_path, kind):
        model = make_model(kind)
        round_weights(model)
        loaded = load_amortised(save(model, tmp_path / "model.pt"), kind)
        assert (loaded.config, loaded.action_spec) == (model.config, model.action_spec)
        assert loaded.condition == model.condition
        assert not loaded.training
        asked = make_context(), Sampling(), 3
        if kind == "ddim":
            assert all(
                torch.equal(of, model.state_dict()[n]) for n, of in loaded.state_dict().items()
            )
            with pytest.raises(ConfigError, match="'ddim' is sampled by DDIMOptimizer"):
                loaded.draw(*asked, np.random.default_rng(0))
            return
        found, expected = (each.draw(*asked, np.random.default_rng(0)) for each in (loaded, model))
        np.testing.assert_array_equal(found, expected)

    def test_the_other_kind_or_none_at_all_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"model.pt: no such file"):
            load_amortised(tmp_path / "model.pt")
        path = save(make_model("gaussian"), tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match=r"model.pt.*'gaussian', expected 'regression'"):
            load_amortised(path, "regression")

    def test_a_truncated_file_or_another_is_named_and_pickled_code_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "sprung"),)

        path = save(make_model(), tmp_path / "model.pt")
        whole = path.read_bytes()
        for keep in (0, 10, len(whole) // 2, int(0.99 * len(whole)), None):
            if keep is None:
                torch.save({"format": Trap()}, path)
            else:
                path.write_bytes(whole[:keep])
            with pytest.raises(CheckpointError, match=r"model.pt: cannot be opened"):
                load_amortised(path)
        assert not (tmp_path / "sprung").exists()
        for content in ([1], {}, {"format": "9"}, {"format": torch.zeros(2)}):
            torch.save(content, path)
            with pytest.raises(CheckpointError, match=r"model.pt: found format"):
                load_amortised(path)

    def test_every_field_is_needed(self, tmp_path):
        path = save(make_model(), tmp_path / "model.pt")
        contents = torch.load(path, weights_only=True)
        assert set(contents) == {"format", *FIELDS, "data_fingerprint"}
        for name in (*FIELDS, "data_fingerprint"):
            torch.save({key: contents[key] for key in contents if key != name}, path)
            with pytest.raises(CheckpointError, match=f"model.pt: the field '{name}' is missing"):
                load_amortised(path)

    @pytest.mark.parametrize(
        ("field", "name", "value", "reason"),
        [
            ("config", "head_width", 3, "size mismatch"),
            ("config", "surprise", 1, "unknown fields"),
            ("action_spec", "action_block", 0, "action_block"),
            ("condition", "num_tokens", 9, "'condition'"),
            ("condition", "inputs", {}, "fit"),
            ("weights", "surprise", torch.zeros(1), "surprise"),
            ("weights", "queries", torch.zeros(1), "queries"),
            ("weights", "encoder.latent_mean", torch.full((3,), torch.nan), "latent_mean.*finite"),
        ],
    )
    def test_fields_that_do_not_fit_are_refused(self, tmp_path, field, name, value, reason):
        path = save(make_model(), tmp_path / "model.pt")
        contents = torch.load(path, weights_only=True)
        contents[field][name] = value
        torch.save(contents, path)
        with pytest.raises(CheckpointError, match=f"model.pt.*{reason}"):
            load_amortised(path)

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = save(make_model(), tmp_path / "model.pt")
        before = path.read_bytes()

        def full_disk(*_):
            raise OSError("no space left")

        monkeypatch.setattr(torch, "save", full_disk)
        with pytest.raises(CheckpointError, match=r"model.pt: cannot be written \(no space left"):
            save(make_model(seed=1), path)
        assert path.read_bytes() == before
