from dataclasses import replace

import numpy as np
import pytest
import torch

from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.model import WorldModel, embed_transitions
from vj2_ddim_benchmark.world_model.predictor import Predictor
from vj2_ddim_benchmark.world_model.train import (
    adversarial_actions,
    prediction_loss,
    train_predictor,
    train_world_model,
)
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, DataError
from vj2_ddim_plugin.files import sha256_of

TINY = WorldModelConfig(
    num_trajectories=12, horizon=2, width=16, num_layers=1, num_heads=2, token_dim=8,
    num_epochs=1, batch_size=8, unchanged_share=1.0, num_report_problems=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "model.pt"
    seen = []
    model = train_world_model(TINY, path, lambda *call: seen.append(call))
    return model, path, seen


def touched_cells(num, rng):
    """A toy world: a tap turns the touched one of 2 x 2 cells from 0 to 1."""
    before = rng.integers(0, 2, (num, 4)).astype(np.float32)
    places = rng.random((num, 2))
    cell = 2 * (places[:, 1] > 0.5) + (places[:, 0] > 0.5)
    after = before.copy()
    after[np.arange(num), cell] = 1
    actions = np.zeros((num, 1, 20, 3), np.float32)
    actions[:, 0, 5:15, :2] = places[:, None]
    actions[:, 0, 5:15, 2] = 1
    latents = np.stack([before, after], axis=1)[..., None] * np.ones(3, np.float32)
    return torch.from_numpy(latents), torch.from_numpy(actions)


def test_training_learns_a_toy_world_and_beats_predicting_no_change():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    predictor = Predictor(
        num_tokens=4, token_dim=3, action_block=20, width=16, num_layers=1, num_heads=2
    )
    config = replace(TINY, num_epochs=8, batch_size=32, learning_rate=1e-2)
    latents, actions = touched_cells(500, rng)
    losses = train_predictor(predictor, latents, actions, config, lambda *call: None)
    latents, actions = touched_cells(300, rng)
    with torch.no_grad():
        predicted = predictor(latents[:, :1], actions)
    error = (predicted - latents[:, 1:]).square().mean()
    copied = (latents[:, :1] - latents[:, 1:]).square().mean()
    assert losses[-1] < 0.2 * losses[0]
    assert error < 0.2 * copied


def test_the_loss_counts_the_tokens_that_change_as_one():
    before = torch.zeros(1, 4, 3)
    after = before.clone()
    after[0, :2] = 1
    # smooth L1 with beta 0.5: an error of 1 costs 0.75
    missed = prediction_loss(before, before, after, 2.0)
    assert missed.item() == pytest.approx(0.75 * 2 / 4 + 2 * 0.75)
    half_missed = after.clone()
    half_missed[0, 1] = 0
    assert prediction_loss(half_missed, before, after, 2.0).item() == pytest.approx(
        0.75 / 4 + 2 * 0.75 / 2
    )
    invented = after.clone()
    invented[0, 3] = 1
    assert prediction_loss(invented, before, after, 2.0).item() == pytest.approx(0.75 / 4)


def test_unchanged_transitions_are_left_out_when_told():
    latents, actions = touched_cells(40, np.random.default_rng(0))
    latents[:, 1] = latents[:, 0]
    predictor = Predictor(num_tokens=4, token_dim=3, action_block=20, width=8, num_layers=1)
    with pytest.raises(DataError, match="found 0 transitions"):
        train_predictor(
            predictor, latents, actions, replace(TINY, unchanged_share=0.0), lambda *call: None
        )


def test_fewer_transitions_than_a_batch_are_refused():
    latents, actions = touched_cells(3, np.random.default_rng(0))
    predictor = Predictor(num_tokens=4, token_dim=3, action_block=20, width=8, num_layers=1)
    with pytest.raises(DataError, match=r"3 transitions.* batch_size 8"):
        train_predictor(predictor, latents, actions, TINY, lambda *call: None)


def test_every_phase_reports_progress_to_its_end(trained):
    _, _, seen = trained
    last = {phase: (done, total) for phase, done, total in seen}
    assert last == {"collect": (24, 24), "train": (3, 3), "report": (3, 3)}


def test_a_checkpoint_opens_safely_and_comes_back_exactly(trained):
    model, path, _ = trained
    assert isinstance(torch.load(path, weights_only=True), dict)
    loaded = WorldModel.load(path)
    assert loaded.config == TINY
    assert loaded.report == model.report
    assert loaded.provenance == model.provenance
    assert not loaded.training
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    latents = loaded.encode(frames)
    np.testing.assert_array_equal(latents, model.encode(frames))
    z, actions = torch.from_numpy(latents), torch.rand(2, 250, 3)
    with torch.no_grad():
        assert torch.equal(loaded.rollout(z, actions), model.rollout(z, actions))


def test_adversarial_actions_go_where_the_prediction_is_worse_and_no_farther():
    torch.manual_seed(0)
    predictor = Predictor(num_tokens=4, token_dim=3, action_block=20, width=16, num_layers=1)
    for weight in predictor.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    latents, actions = touched_cells(64, np.random.default_rng(1))
    before, after, touch, radius = latents[:, 0], latents[:, 1], actions[:, 0], 0.02
    moved = adversarial_actions(
        predictor, before, touch, after, radius, 1.0, torch.Generator().manual_seed(0)
    )
    shift = moved - touch
    assert shift.abs().amax() <= radius + 1e-6
    assert torch.equal(moved[..., 2], touch[..., 2])
    assert moved[..., :2].min() >= 0.0
    assert moved[..., :2].max() <= 1.0
    assert all(weight.grad is None for weight in predictor.parameters())

    def loss(actions):
        with torch.no_grad():
            return prediction_loss(predictor(latents[:, :1], actions[:, None])[:, 0], before, after,
                                   1.0).item()  # fmt: skip

    assert loss(moved) > loss(touch)
    assert loss(moved) > loss(touch - shift)


def test_adversarial_training_differs_and_goes_on_from_a_model(trained, tmp_path):
    model, path, _ = trained
    further = train_world_model(
        replace(TINY, adversarial_radius=0.05), tmp_path / "further.pt", start=path
    )
    assert further.config.adversarial_radius == 0.05
    plain = train_world_model(TINY, tmp_path / "plain.pt", start=path)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(further.encoder.state_dict()[name], value), name
    positions = [m.predictor.position for m in (model, plain, further)]
    assert not torch.equal(positions[0], positions[1])
    assert not torch.equal(positions[1], positions[2])
    assert further.provenance["started_from_sha256"] == sha256_of(path)

    def refuse(phase, done, total):
        raise AssertionError("collected before the mistake was found")

    with pytest.raises(ConfigError, match=r"model\.pt.*'width': \(16, 32\)"):
        train_world_model(replace(TINY, width=32), tmp_path / "wide.pt", refuse, start=path)
    assert not (tmp_path / "wide.pt").exists()


def test_the_same_seed_trains_the_same_model_and_leaves_the_global_generator(tmp_path, trained):
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    again = train_world_model(TINY, tmp_path / "again.pt")
    assert torch.equal(torch.rand(1), expected)
    for name, value in trained[0].state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert again.report == trained[0].report


def test_the_report_covers_every_kind_of_widget(trained):
    measures = trained[0].report["measures"]
    asked = one_gesture_problems(TINY.num_report_problems, split="validation", seed=TINY.seed + 1)
    assert set(measures) == {"overall", *asked.kind.tolist()}
    for values in measures.values():
        assert 1 <= values["next_state_rank"] <= 101
        assert 0 <= values["reference_below_random"] <= 1
        assert 0 <= values["best_of_64_succeeds"] <= 1


def test_embedding_keeps_trajectories_and_actions(trained):
    from vj2_ddim_benchmark.world.collect import collect_transitions

    transitions = collect_transitions(3, horizon=2, split="validation", seed=4)
    embeddings, actions = embed_transitions(trained[0], transitions)
    assert embeddings.shape == (3, 3, 64, 8)
    np.testing.assert_array_equal(actions, transitions.actions)
    alone = trained[0].encode(transitions.frames[1, 2])
    np.testing.assert_allclose(embeddings[1, 2], alone, atol=1e-5)


@pytest.mark.parametrize("field", ["config", "encoder", "predictor", "report", "provenance"])
def test_a_missing_field_is_named(trained, tmp_path, field):
    contents = torch.load(trained[1], weights_only=True)
    del contents[field]
    torch.save(contents, tmp_path / "broken.pt")
    with pytest.raises(CheckpointError, match=rf"broken\.pt.*'{field}'"):
        WorldModel.load(tmp_path / "broken.pt")


def test_a_missing_weight_array_or_setting_is_named(trained, tmp_path):
    path = tmp_path / "broken.pt"
    for field, key in [("config", "width"), ("encoder", "mean"), ("predictor", "position")]:
        contents = torch.load(trained[1], weights_only=True)
        del contents[field][key]
        torch.save(contents, path)
        with pytest.raises(CheckpointError, match=rf"broken\.pt.*{key}"):
            WorldModel.load(path)


def test_files_of_another_kind_are_refused(trained, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        WorldModel.load(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        WorldModel.load(tmp_path / "text.pt")
    half = trained[1].read_bytes()
    (tmp_path / "half.pt").write_bytes(half[: len(half) // 2])
    with pytest.raises(CheckpointError, match=r"half\.pt"):
        WorldModel.load(tmp_path / "half.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt.*format"):
        WorldModel.load(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list\.pt"):
        WorldModel.load(tmp_path / "list.pt")


@pytest.mark.parametrize(
    "change",
    [{"width": 0}, {"learning_rate": -1.0}, {"cost_kind": "cosine"}, {"patch_size": 7}],
)
def test_settings_that_cannot_work_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(TINY, **change)
