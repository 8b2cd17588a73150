"""Training of everything that is trained takes the steps that were recorded."""

import numpy as np
import pytest
from golden.recording import (
    Digest,
    Golden,
    make_gestures,
    of_weights,
    sha256,
    train_tiny,
    train_tiny_amortised,
    train_tiny_ranker,
    train_tiny_world_model,
)

LOSS = {"rtol": 1e-4, "atol": 1e-7}
# A weight without a gradient is moved by rounding alone, and AdamW makes whole steps of it.
WEIGHTS = {"rtol": 1e-3, "atol": 1e-2}
MEASURES = {"rtol": 0.05, "atol": 0.02}


@pytest.fixture(scope="module")
def golden():
    golden = Golden("training")
    yield golden
    golden.save()


def is_later(name):
    """Whether a measure came after the recording: spreads, and variances beside their ratios."""
    variance = "variance_" in name or "smoothness_" in name
    spread = name.endswith("_std") and name not in ("lowest_std", "highest_std")
    return spread or (variance and "_ratio_" not in name)


def flat(numbers):
    """Nested mappings of numbers as their paths and one array; what is no number is left out."""
    found, left = {}, [("", numbers)]
    while left:
        path, mapping = left.pop()
        for name, value in mapping.items():
            if isinstance(value, dict):
                left.append((f"{path}{name}/", value))
            elif isinstance(value, int | float) and not (isinstance(value, bool) or is_later(name)):
                found[f"{path}{name}"] = float(value)
    return {"names": sorted(found), "values": np.array([found[name] for name in sorted(found)])}


@pytest.fixture(scope="module", params=["none", "sketch", "latents", "minimal"])
def uninterrupted(request, tmp_path_factory):
    """Two epochs of six steps, and where they lie."""
    root = tmp_path_factory.mktemp(request.param)
    return request.param, root, train_tiny(root, request.param, num_epochs=2)


def test_generated_gestures(golden):
    gestures = make_gestures(8, seed=4)
    golden.check("gestures", {"gestures": gestures}, rtol=1e-6, atol=1e-6)


def test_first_five_steps(golden, uninterrupted):
    condition, root, _ = uninterrupted
    found = train_tiny(root, condition, "five", stop_after=5)
    assert (found["step"], len(found["losses"])) == (5, 5)
    golden.check(f"losses {condition}", {"losses": found["losses"]}, **LOSS)
    golden.check(f"weights {condition}", of_weights(found["weights"]), **WEIGHTS)
    golden.check(f"average {condition}", of_weights(found["averaged"]), **WEIGHTS)


def test_whole_run(golden, uninterrupted):
    condition, _, found = uninterrupted
    golden.check(f"weights {condition}, whole", of_weights(found["weights"]), **WEIGHTS)
    golden.check(f"average {condition}, whole", of_weights(found["averaged"]), **WEIGHTS)
    losses = [line["loss"] for line in found["metrics"]]
    golden.check(f"losses {condition}, whole", {"losses": np.array(losses)}, rtol=1e-3, atol=1e-7)
    for line in found["metrics"]:
        golden.check(f"measures {condition} {line['epoch']}", flat(line), **MEASURES)


STOPS = {"none": 6, "sketch": 4, "latents": 8, "minimal": 11}  # of twelve, six an epoch


def test_stopped_and_resumed_is_the_run_that_was_not_stopped(uninterrupted):
    """On every machine to the last bit."""
    condition, root, whole = uninterrupted
    stop_after = STOPS[condition]
    stopped = train_tiny(root, condition, "stopped", num_epochs=2, stop_after=stop_after)
    assert stopped["step"] == stop_after
    resumed = train_tiny(root, condition, "stopped", num_epochs=2, resume=True)
    for part in ("weights", "averaged"):
        assert sha256(Digest(stopped[part])) != sha256(Digest(whole[part]))
        assert sha256(Digest(resumed[part])) == sha256(Digest(whole[part]))
    assert resumed["metrics"] == whole["metrics"]


def test_ranker(golden, uninterrupted):
    condition, _, found = uninterrupted
    if condition == "sketch":
        weights, metrics = train_tiny_ranker(found["model"], found["data"])
        golden.check("ranker", of_weights(weights), **WEIGHTS)
        golden.check("ranker's measures", flat(metrics), rtol=0.0, atol=0.3)


def test_amortised(golden, uninterrupted, tmp_path):
    condition, _, found = uninterrupted
    if condition == "latents":
        for kind in ("regression", "gaussian"):
            weights, losses = train_tiny_amortised(
                kind, found["model"], found["data"], tmp_path / f"{kind}.pt"
            )
            golden.check(kind, of_weights(weights), **WEIGHTS)
            golden.check(f"{kind}'s losses", {"losses": np.array(losses)}, **LOSS)


def test_world_model(golden, tmp_path):
    weights, losses, report = train_tiny_world_model(tmp_path / "world_model.pt")
    golden.check("world model", of_weights(weights), **WEIGHTS)
    golden.check("world model's losses", {"losses": np.array(losses)}, **LOSS)
    golden.check("world model's report", flat(report), **MEASURES)
