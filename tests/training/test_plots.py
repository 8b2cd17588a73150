import subprocess
import sys

import numpy as np
import pytest

from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.cli.pictures import plot_plan, save_figure
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
    assert [axis.get_title() for axis in figure.axes][3:] == [
        "original, sample 1",
        "noisy, sample 1",
        "recreated, sample 1",
    ]


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


def test_plan_over_time_and_on_the_screen():
    figure = plot_plan(ACTIONS[:1], SPEC)
    time, screen = figure.axes
    assert [line.get_label() for line in time.lines] == ["x", "y", "press"]
    assert time.lines[0].get_xdata()[-1] == pytest.approx(249 / 500)
    pressed = ACTIONS[0, ACTIONS[0, :, 2] == 1]
    np.testing.assert_allclose(screen.lines[0].get_xydata(), pressed[:, :2])
    assert screen.yaxis_inverted()


def test_plans_without_a_press_or_a_screen(tmp_path):
    save_figure(plot_plan(np.zeros((1, 250, 3)), SPEC), tmp_path / "a.png")
    spec = ActionSpec(press_channel=None, representation="raw")
    assert len(plot_plan(ACTIONS[:1], spec).axes) == 1
    with pytest.raises(ActionError, match="plans have shape"):
        plot_plan(ACTIONS[0], SPEC)


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_figures_are_saved_by_suffix_and_replaced(tmp_path, suffix, magic):
    target = tmp_path / "new" / f"plan{suffix}"
    for _ in range(2):
        save_figure(plot_plan(ACTIONS[:1], SPEC), target)
    assert target.read_bytes().startswith(magic)
    assert list(target.parent.iterdir()) == [target]


def test_unknown_suffix_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(plot_plan(ACTIONS[:1], SPEC), tmp_path / "plan.nonsense")
    assert not list(tmp_path.iterdir())


def test_neither_pyplot_nor_torch_is_imported(tmp_path):
    code = (
        "import sys, numpy as np, vj2_ddim_plugin.cli.pictures as p, vj2_ddim_plugin.spec as a\n"
        "p.save_figure(p.plot_plan(np.zeros((1, 250, 3)), a.ActionSpec()), sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "plan.png")], check=True)
