"""Pictures of plans: what is drawn where, and how they are saved."""

import subprocess
import sys

import numpy as np
import pytest
from builders.training import make_gestures

from vj2_ddim_plugin.cli.pictures import num_samples, plot_plan, save_figure
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.spec import ActionSpec

SPEC = ActionSpec()
ACTIONS = make_gestures(2, length=250)


def test_a_plan_over_time_and_on_the_screen():
    time, screen = plot_plan(ACTIONS[:1], SPEC).axes
    assert [line.get_label() for line in time.lines] == ["x", "y", "press"]
    assert time.lines[0].get_xdata()[-1] == pytest.approx(249 / 500)
    pressed = ACTIONS[0, ACTIONS[0, :, 2] == 1]
    np.testing.assert_allclose(screen.lines[0].get_xydata(), pressed[:, :2])
    assert screen.yaxis_inverted()


def test_names_are_drawn_as_they_are(tmp_path):
    spec = ActionSpec(channels=("_x", "$\\frac$", "press"))
    figure = plot_plan(ACTIONS[:1], spec)
    save_figure(figure, tmp_path / "a.png")
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == " _x"


def test_plans_without_a_press_or_a_screen(tmp_path):
    save_figure(plot_plan(np.zeros((1, 250, 3)), SPEC), tmp_path / "a.png")
    spec = ActionSpec(press_channel=None, representation="raw")
    assert len(plot_plan(ACTIONS[:1], spec).axes) == 1


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ActionError, match="plans have shape"):
        plot_plan(ACTIONS[0], SPEC)
    with pytest.raises(ActionError, match=r"nothing to draw: max_samples is 4 .* 0 samples"):
        plot_plan(ACTIONS[:0], SPEC)
    assert num_samples(5, ACTIONS, ACTIONS[:1]) == 1
    assert len(plot_plan(ACTIONS, SPEC, max_samples=1).axes) == 2


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_figures_are_saved_by_suffix_and_replaced(tmp_path, suffix, magic):
    target = tmp_path / "new" / f"plan{suffix}"
    for _ in range(2):
        save_figure(plot_plan(ACTIONS[:1], SPEC), target)
    assert target.read_bytes().startswith(magic)
    assert list(target.parent.iterdir()) == [target]


def test_an_unknown_suffix_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(plot_plan(ACTIONS[:1], SPEC), tmp_path / "plan.nonsense")
    assert not list(tmp_path.iterdir())


def test_neither_pyplot_nor_torch_is_imported(tmp_path):
    code = (
        "import sys, numpy as np, vj2_ddim_plugin as v, vj2_ddim_plugin.cli.pictures as p\n"
        "p.save_figure(p.plot_plan(np.zeros((1, 250, 3)), v.ActionSpec()), sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "plan.png")], check=True)
