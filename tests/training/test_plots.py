import numpy as np
import pytest

from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.validation import plot_noise, plot_sequences

SPEC = ActionSpec()
ACTIONS = generate_gestures(4, kind="swipe", rng=np.random.default_rng(0))


def test_sequences_show_the_numbers_they_were_given():
    noisy, recreated = ACTIONS + 0.1, ACTIONS * 0.9
    figure = plot_sequences(ACTIONS, noisy, recreated, SPEC)
    assert len(figure.axes) == 6  # two samples of three
    shown = [actions[i] for i in (0, 1) for actions in (ACTIONS, noisy, recreated)]
    for axis, actions in zip(figure.axes, shown, strict=True):
        for channel, line in enumerate(axis.lines):
            np.testing.assert_allclose(line.get_ydata(), actions[:, channel])
    titles = [f"{name}, sample 1" for name in ("original", "noisy", "recreated")]
    assert [axis.get_title() for axis in figure.axes][3:] == titles


def test_sequences_show_what_is_diffused():
    noisy = gestures.encode(ACTIONS, SPEC)
    figure = plot_sequences(ACTIONS, noisy, ACTIONS, SPEC, most=1)
    (line,) = figure.axes[1].lines
    np.testing.assert_allclose(line.get_ydata(), noisy[0, :, 0])


def test_most_and_few_samples():
    assert len(plot_sequences(ACTIONS, ACTIONS, ACTIONS, SPEC, most=3).axes) == 9
    assert len(plot_sequences(ACTIONS[:1], ACTIONS[:1], ACTIONS[:1], SPEC).axes) == 3
    with pytest.raises(ActionError, match="nothing to draw"):
        plot_sequences(ACTIONS[:0], ACTIONS, ACTIONS, SPEC)
    with pytest.raises(ActionError, match="max_samples is 0"):
        plot_noise(ACTIONS, ACTIONS, most=0)


def test_noise_shows_truth_prediction_and_difference():
    rng = np.random.default_rng(0)
    truth, predicted = rng.standard_normal((2, 3, 250, 3))
    figure = plot_noise(truth, predicted, most=1)
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    for image, noise in zip(shown, (truth[0], predicted[0], predicted[0] - truth[0]), strict=True):
        np.testing.assert_allclose(image, noise.T)
