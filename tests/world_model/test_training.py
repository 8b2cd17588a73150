"""Training a world model: what it learns, that it goes on where it stopped, and its file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.world_model import TINY, TOY, touched_cells, toy_predictor

from vj2_ddim_benchmark.world.collect import (
    Transitions,
    collect_transitions,
    load_transitions,
    save_transitions,
)
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world_model.embed import (
    embed_files,
    embed_transitions,
    only_changes,
)
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.train import (
    adversarial_actions,
    prediction_loss,
    train_predictor,
    train_world_model,
)
from vj2_ddim_plugin.cli.console import silent
from vj2_ddim_plugin.errors import CheckpointError, ConfigError, DataError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.trajectories import open_trajectories


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "model.pt"
    seen = []
    model = train_world_model(TINY, path, lambda *call: seen.append(call))
    return model, path, seen


def test_training_learns_a_toy_world_and_beats_predicting_no_change():
    rng = np.random.default_rng(0)
    predictor = toy_predictor()
    config = replace(TOY, num_epochs=8, batch_size=32, learning_rate=1e-2)
    losses = train_predictor(predictor, *touched_cells(500, rng), config, silent)
    latents, actions = touched_cells(300, rng)
    with torch.no_grad():
        predicted = predictor(latents[:, :1], actions)
    error = (predicted - latents[:, 1:]).square().mean()
    copied = (latents[:, :1] - latents[:, 1:]).square().mean()
    assert losses[-1] < 0.2 * losses[0]
    assert error < 0.2 * copied


@pytest.mark.parametrize("step", [1, 5, 6, 14])  # of 15, 5 an epoch
@pytest.mark.parametrize("radius", [0.0, 0.05])
def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path, radius, step):
    config = replace(TOY, num_epochs=3, unchanged_share=0.8, adversarial_radius=radius)
    data = touched_cells(40, np.random.default_rng(0))
    state = tmp_path / "state"

    def train(progress, config=config, origin=None):
        predictor = toy_predictor()
        losses = train_predictor(predictor, *data, config, progress, state=state, origin=origin)
        return losses, predictor.state_dict()

    def stop(phase, done, total):
        assert total == 15
        if done == step:
            raise KeyboardInterrupt

    losses, weights = train(silent)
    state.unlink()
    with pytest.raises(KeyboardInterrupt):
        train(stop)
    for change in ({"config": replace(config, seed=1)}, {"origin": "another"}):
        with pytest.raises(CheckpointError, match="other settings"):
            train(silent, **change)
    resumed_losses, resumed = train(silent)
    assert resumed_losses == losses
    for name, value in weights.items():
        assert torch.equal(resumed[name], value), name


def test_the_loss_counts_the_tokens_that_change_as_one():
    config = replace(TOY, change_weight=2.0)
    before = torch.zeros(1, 4, 3)
    after = before.clone()
    after[0, :2] = 1
    # smooth L1 with beta 0.5: an error of 1 costs 0.75
    missed = prediction_loss(before, before, after, config)
    assert missed.item() == pytest.approx(0.75 * 2 / 4 + 2 * 0.75)
    for token, value, expected in ((1, 0, 0.75 / 4 + 2 * 0.75 / 2), (3, 1, 0.75 / 4)):
        other = after.clone()  # half of the change missed, and another token's invented
        other[0, token] = value
        assert prediction_loss(other, before, after, config).item() == pytest.approx(expected)


def test_fewer_transitions_than_a_batch_are_refused():
    latents, actions = touched_cells(40, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"3 transitions.* batch_size 8"):
        train_predictor(toy_predictor(), latents[:3], actions[:3], TOY, silent)
    latents[:, 1], config = latents[:, 0], replace(TOY, unchanged_share=0.0)
    with pytest.raises(DataError, match="found 0 transitions"):
        train_predictor(toy_predictor(), latents, actions, config, silent)


def test_every_phase_reports_progress_and_a_checkpoint_comes_back_exactly(trained):
    model, path, seen = trained
    last = {phase: (done, total) for phase, done, total in seen}
    assert last == {"collect": (24, 24), "train": (3, 3), "report": (3, 3)}
    assert list(path.parent.iterdir()) == [path]  # nothing is left of its training
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
    predictor = toy_predictor()
    for weight in predictor.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    latents, actions = touched_cells(64, np.random.default_rng(1))
    before, after, touch, radius = latents[:, 0], latents[:, 1], actions[:, 0], 0.02
    config = replace(TOY, adversarial_radius=radius)
    generator = torch.Generator().manual_seed(0)
    moved = adversarial_actions(predictor, before, touch, after, config, generator)
    shift = moved - touch
    assert shift.abs().amax() <= radius + 1e-6
    assert torch.equal(moved[..., 2], touch[..., 2])
    assert moved[..., :2].min() >= 0.0
    assert moved[..., :2].max() <= 1.0
    assert all(weight.grad is None for weight in predictor.parameters())

    def loss(actions):
        with torch.no_grad():
            predicted = predictor(latents[:, :1], actions[:, None])[:, 0]
        return prediction_loss(predicted, before, after, config).item()

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


def test_recorded_transitions_train_the_same_model_which_is_not_measured(tmp_path, trained):
    how = {"horizon": TINY.horizon, "split": "train", "seed": TINY.seed, "size": TINY.screen_size}
    file = tmp_path / "recorded.h5"
    save_transitions(file, collect_transitions(TINY.num_trajectories, **how))
    found = train_world_model(TINY, tmp_path / "recorded.pt", recorded=[file])
    for name, value in trained[0].state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    assert found.report == {}
    assert found.provenance["recorded_sha256"] == [sha256_of(file)]
    assert found.provenance["num_transitions"] == TINY.num_trajectories * TINY.horizon
    with pytest.raises(DataError, match=r"recorded.h5: has pictures of 64 x 64.*expected 32 x 32"):
        train_world_model(replace(TINY, screen_size=32), tmp_path / "small.pt", recorded=[file])
    save_transitions(tmp_path / "longer.h5", collect_transitions(2, **how | {"horizon": 3}))
    with pytest.raises(DataError, match=r"found \[2, 3\]"):
        train_world_model(TINY, tmp_path / "two.pt", recorded=[file, tmp_path / "longer.h5"])
    both = train_world_model(TINY, tmp_path / "both.pt", recorded=[file, file])
    assert both.provenance["num_transitions"] == 2 * TINY.num_trajectories * TINY.horizon


def test_the_report_covers_every_kind_and_embedding_keeps_trajectories_and_actions(trained):
    measures = trained[0].report["measures"]
    asked = one_gesture_problems(TINY.num_report_problems, split="validation", seed=TINY.seed + 1)
    assert set(measures) == {"overall", *asked.kind.tolist()}
    for values in measures.values():
        assert 1 <= values["next_state_rank"] <= 101
        assert 0 <= values["reference_below_random"] <= 1
        assert 0 <= values["best_of_64_succeeds"] <= 1
    transitions = collect_transitions(3, horizon=2, split="validation", seed=4)
    ((embeddings, actions),) = embed_transitions(trained[0], transitions)
    assert embeddings.shape == (3, 3, 64, 8)
    np.testing.assert_array_equal(actions, transitions.actions)
    alone = trained[0].encode(transitions.frames[1, 2])
    np.testing.assert_allclose(embeddings[1, 2], alone, atol=1e-5)


def test_moved_trajectories_keep_their_touches_where_the_picture_is(trained):
    model, size = trained[0], TINY.screen_size
    transitions = collect_transitions(12, horizon=2, split="train", seed=4)
    transitions.actions[0, 0, :, 2] = 0.0  # a block without a touch
    transitions.actions[1, 0, 40] = [1.0, 0.5, 1.0]  # one at the edge: there is no room beyond
    offsets = []
    unmoved, *moved = embed_transitions(model, transitions, 2, seed=1)
    np.testing.assert_allclose(unmoved[0], model.encode(transitions.frames), atol=1e-5)
    np.testing.assert_array_equal(unmoved[1], transitions.actions)
    for latents, actions in moved:
        pressed = transitions.actions[..., 2] > 0
        np.testing.assert_array_equal(actions[..., 2], transitions.actions[..., 2])
        np.testing.assert_array_equal(actions[~pressed], transitions.actions[~pressed])
        assert actions.min() >= 0.0
        assert actions.max() <= 1.0
        for row in range(12):
            by = (actions - transitions.actions)[row, pressed[row], :2]
            offset = np.rint(size * by[0]).astype(int)
            np.testing.assert_allclose(by, np.tile(offset / size, (len(by), 1)), atol=1e-6)
            assert np.abs(offset).max() <= size // 8
            offsets.append(offset)
            columns, rows = (np.clip(np.arange(size) - each, 0, size - 1) for each in offset)
            pictures = transitions.frames[row][:, rows][:, :, columns]
            np.testing.assert_allclose(latents[row], model.encode(pictures), atol=1e-4)
    assert len(np.unique(offsets, axis=0)) > 12
    assert offsets[1][0] <= 0


def test_files_are_embedded_in_one_folder_with_moved_copies_to_train_on(trained, tmp_path):
    paths = []
    for number, (num, horizon) in enumerate([(5, 2), (4, 2), (3, 2), (2, 3)]):
        paths.append(tmp_path / f"{number}.h5")
        how = {"horizon": horizon, "split": "train", "seed": number}
        save_transitions(paths[-1], collect_transitions(num, **how))
    files = {"train": paths[:2], "validation": paths[2:3]}
    assert embed_files(trained[0], files, tmp_path / "latents", num_moved=2) == 3 * (5 + 4) + 3
    found = open_trajectories(tmp_path / "latents", ActionSpec(), "train")
    assert len(found) == 3 * (5 + 4) * 2
    assert len(open_trajectories(tmp_path / "latents", ActionSpec(), "validation")) == 3 * 2
    first = load_transitions(paths[0])
    state, goal, actions = found.gather(np.arange(2))
    latents = trained[0].encode(first.frames[0])
    np.testing.assert_allclose(state, latents[:2], atol=4e-3)  # half precision
    np.testing.assert_allclose(goal, latents[1:], atol=4e-3)
    np.testing.assert_array_equal(actions, first.actions[0])
    with pytest.raises(DataError, match=r"3\.h5: has trajectories of 3 touches.* of 2"):
        embed_files(trained[0], {"train": [paths[0], paths[3]]}, tmp_path / "mixed")
    idle = replace(first, states=np.zeros_like(first.states))
    save_transitions(paths[2], idle)
    with pytest.raises(DataError, match="no touch that changes a state"):
        embed_files(trained[0], {"train": paths[2:3]}, tmp_path / "none", changes_only=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(path.name for path in paths), "latents",
    ]  # fmt: skip


def test_training_sees_moved_copies_of_recorded_transitions(tmp_path):
    how = {"horizon": TINY.horizon, "split": "train", "seed": TINY.seed}
    save_transitions(tmp_path / "recorded.h5", collect_transitions(TINY.num_trajectories, **how))
    config = replace(TINY, num_moved=2)
    model = train_world_model(config, tmp_path / "m.pt", recorded=[tmp_path / "recorded.h5"])
    assert model.provenance["num_transitions"] == 3 * TINY.num_trajectories * TINY.horizon


@pytest.mark.parametrize(
    ("field", "key"),
    [
        *((field, None) for field in ("config", "encoder", "predictor", "report", "provenance")),
        *(("config", "width"), ("encoder", "mean"), ("predictor", "position")),
    ],
)
def test_a_missing_field_setting_array_or_weight_is_named(trained, tmp_path, field, key):
    contents = torch.load(trained[1], weights_only=True)
    del (contents if key is None else contents[field])[key or field]
    torch.save(contents, tmp_path / "broken.pt")
    with pytest.raises(CheckpointError, match=rf"broken\.pt.*{key or repr(field)}"):
        WorldModel.load(tmp_path / "broken.pt")


def test_files_of_another_kind_and_settings_that_cannot_work_are_refused(trained, tmp_path):
    path, whole = tmp_path / "broken.pt", trained[1].read_bytes()
    with pytest.raises(CheckpointError, match="no such file"):
        WorldModel.load(path)
    for content in (b"not a checkpoint", whole[: len(whole) // 2], {"a": torch.zeros(1)}, [1, 2]):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        wanted = r"broken\.pt.*format" if isinstance(content, dict) else r"broken\.pt"
        with pytest.raises(CheckpointError, match=wanted):
            WorldModel.load(path)
    wrong = {"width": 0, "learning_rate": -1.0, "cost_kind": "cosine", "patch_size": 7}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=name):
            replace(TINY, **{name: value})


def test_touches_that_change_nothing_are_left_out_in_order():
    states = np.array([[0, 0, 1, 1, 2], [3, 3, 3, 3, 3], [0, 1, 2, 3, 4]])[..., None]
    frames = np.zeros((3, 5, 8, 8, 3), np.uint8)
    actions = np.zeros((3, 4, 250, 3), np.float32)
    actions[..., 0] = np.arange(12).reshape(3, 4, 1)
    latents = np.arange(15, dtype=np.float32).reshape(3, 5, 1, 1)
    kept, touches, lengths = only_changes(latents, Transitions(frames, actions, states))
    assert lengths.tolist() == [3, 5]
    assert kept[0, :3, 0, 0].tolist() == [0, 2, 4]  # before the first, after the second and fourth
    assert touches[0, :2, 0, 0].tolist() == [1, 3]
    assert kept[1, :, 0, 0].tolist() == [10, 11, 12, 13, 14]
    assert touches[1, :, 0, 0].tolist() == [8, 9, 10, 11]
