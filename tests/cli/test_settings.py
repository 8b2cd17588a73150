"""Settings: each is declared once, and checked by its declaration wherever it comes from."""

import json
import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_plugin.errors import ConfigError, ScheduleError
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.settings import Settings, declared, setting, with_changes


@dataclass(frozen=True)
class Oven(Settings):
    """One field of each kind, and a rule between two."""

    error = ScheduleError

    shelves: int = setting(2, "How many.", low=1, high=5)
    heat: float = setting(0.5, "How hot.", above=0, below=1)
    fan: bool = setting(False, "Whether it blows.")
    mode: str = setting("bake", "What for.", choices=("bake", "grill"))
    steps: tuple[int, ...] = setting((1, 2), "In turn.", low=0)
    limit: float | None = setting(None, "At most.", low=0)
    extra: Mapping[str, Any] | None = setting(None, "Passed on.")
    note: str | int = setting("", "A word or a number.")
    loaves: int = setting(1, "How many at once.")

    def check(self):
        if self.fan and self.mode == "grill":
            raise self.error("fan goes with mode='bake' only")


def test_what_is_declared_can_be_read():
    rules = declared(Oven)
    assert list(rules) == [
        "shelves",
        "heat",
        "fan",
        "mode",
        "steps",
        "limit",
        "extra",
        "note",
        "loaves",
    ]
    assert rules["shelves"].help == "How many."
    ranges = {name: rule.range for name, rule in rules.items() if rule.range}
    assert ranges == {
        "shelves": "at least 1 and at most 5",
        "heat": "above 0 and below 1",
        "mode": "one of bake, grill",
        "limit": "at least 0",
        "steps": "at least 0",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shelves": 0}, "shelves must be at least 1 and at most 5; found 0"),
        ({"steps": (1, -2)}, "steps must be at least 0; found (1, -2)"),
        ({"loaves": 2**32 + 1}, "loaves must be at most 4294967296; found 4294967297"),
        ({"shelves": 6}, "shelves must be at least 1 and at most 5; found 6"),
        ({"shelves": 2.0}, "shelves must be an integer; found 2.0"),
        ({"shelves": True}, "shelves must be an integer; found True"),
        ({"shelves": None}, "shelves must be an integer; found None"),
        ({"shelves": "2"}, "shelves must be an integer; found '2'"),
        ({"heat": 0}, "heat must be above 0 and below 1; found 0"),
        ({"heat": 1.0}, "heat must be above 0 and below 1; found 1.0"),
        ({"heat": math.nan}, "heat must be above 0 and below 1; found nan"),
        ({"heat": "hot"}, "heat must be a number; found 'hot'"),
        ({"fan": 1}, "fan must be true or false; found 1"),
        ({"mode": "boil"}, "mode 'boil' is unknown; use one of bake, grill"),
        ({"mode": 3}, "mode 3 is unknown; use one of bake, grill"),
        ({"steps": 1}, "steps must be a sequence, each an integer; found 1"),
        ({"steps": (1, 0.5)}, "steps must be a sequence, each an integer; found (1, 0.5)"),
        ({"limit": -1}, "limit must be at least 0; found -1"),
        ({"limit": math.inf}, "limit must be at least 0; found inf"),
        ({"limit": "x"}, "limit must be a number or None; found 'x'"),
        ({"note": 0.5}, "note must be text or an integer; found 0.5"),
        ({"note": -math.inf}, "note must be text or an integer; found -inf"),
        ({"fan": True, "mode": "grill"}, "fan goes with mode='bake' only"),
    ],
)
def test_what_cannot_be_is_refused_by_name_however_it_comes(change, message):
    for make in (
        lambda: Oven(**change),
        lambda: with_changes(Oven(), change),
        lambda: Oven.from_dict(Oven().to_dict() | change),
    ):
        with pytest.raises(ScheduleError) as raised:
            make()
        assert str(raised.value) == message


@given(
    shelves=st.integers(-3, 9),
    heat=st.floats(allow_nan=True, allow_infinity=True),
    limit=st.none() | st.floats(),
)
def test_the_range_is_exactly_what_is_declared(shelves, heat, limit):
    fits = 1 <= shelves <= 5 and 0 < heat < 1
    fits = fits and (limit is None or (math.isfinite(limit) and limit >= 0))
    try:
        Oven(shelves=shelves, heat=heat, limit=limit)
    except ScheduleError:
        assert not fits
    else:
        assert fits


def test_numbers_of_numpy_and_lists_become_pythons_own():
    oven = Oven(shelves=np.int64(3), heat=np.float32(0.5), steps=[3, np.int32(4)])
    assert oven == Oven(shelves=3, heat=0.5, steps=(3, 4))
    assert [*map(type, (oven.shelves, oven.heat, *oven.steps))] == [int, float, int, int]
    assert Oven(steps=np.arange(2)).steps == (0, 1)
    assert Oven(heat=np.float64(0.25), limit=1) == Oven(heat=0.25, limit=1)
    json.dumps(oven.to_dict())


def test_settings_are_values():
    oven = Oven(limit=2.5, extra={"a": 1})
    with pytest.raises(FrozenInstanceError):
        oven.shelves = 3
    assert oven == Oven(limit=2.5, extra={"a": 1})
    assert oven != Oven()


@pytest.mark.parametrize(
    "settings",
    [
        Oven(limit=2.5, steps=(), extra={"a": 1}),
        SearchSettings(num_refinements=None, num_ranked=2),
        SessionSettings(provider="cpu", num_threads=1),
        NoiseSchedule(num_train_timesteps=20),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_what_is_written_comes_back(settings):
    written = json.loads(json.dumps(settings.to_dict()))
    assert type(settings).from_dict(written) == settings
    name = next(iter(written))
    with pytest.raises(settings.error, match=rf"missing fields \['{name}'\] .* \['colour'\]"):
        type(settings).from_dict({"colour": 1} | {k: v for k, v in written.items() if k != name})


def test_a_change_of_what_is_no_setting_lists_those_that_are():
    with pytest.raises(ConfigError, match=r"'colour' is no setting; use one of .*heat, .*size"):
        with_changes(Oven(), {"colour": 1}, also_known=["size"])
    oven = Oven()
    assert with_changes(oven, {}) is oven
    assert with_changes(oven, {"fan": True}) == Oven(fan=True)


def test_a_setting_without_a_default_has_to_be_given():
    @dataclass(frozen=True)
    class Needed(Settings):
        size: int = setting(help="How large.", low=1)

    with pytest.raises(TypeError, match="size"):
        Needed()
    assert Needed(2).size == 2
    with pytest.raises(ConfigError, match="size must be at least 1"):
        Needed(0)
