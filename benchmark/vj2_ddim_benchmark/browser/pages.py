"""What a page is: its widgets, words, colours and places, drawn for a split; and its states.

Arrangement, hues and words are codes, and a split owns residues of them modulo 5, as it does on the
touch screen: what is in all splits are the kinds of widgets and the two themes.
"""

import colorsys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike

from vj2_ddim_benchmark.world.layouts import MODULUS, draw_pairs, require_split
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.gestures.segments import IntArray

THEMES = ("ios", "md")
NUM_LEVELS, SHEET = 6, 3  # of a range and a stepper; states of a sheet that is closed, and open
KINDS = {  # number of states, and most pixels in height, of 320
    "toggle": (2, 40), "checkbox": (2, 40), "radio": (3, 120), "segment": (3, 44),
    "range": (NUM_LEVELS, 44), "stepper": (NUM_LEVELS, 44), "swipeout": (3, 40),
    "accordion": (2, 88), "swiper": (3, 64), "actions": (2 * SHEET, 44), "sortable": (6, 120),
    "hold": (2, 44),
}  # fmt: skip
PAIRS = (("toggle", "checkbox"), ("range", "stepper"), ("segment", "radio"), ("segment", "swiper"))
NUM_WIDGETS, MAX_WIDGETS = (3, 4, 5), 5
ABSENT = -1  # the state of a widget that a page does not have
HEIGHT = 320
GAPS, TOPS, SIDES = (4, 8, 12), (12, 16, 24), (0, 12, 24)  # CSS pixels
NUM_HUES = 10
WORDS = (  # a word's place says whose it is
    "oak", "tide", "fern", "moss", "reef", "dune", "lark", "wren", "pike", "carp", "kelp", "sage",
    "mint", "dill", "plum", "pear", "fig", "lime", "kiwi", "date", "corn", "rice", "oats", "bean",
    "leek", "kale", "beet", "yarn", "silk", "wool", "jute", "hemp", "felt", "lace", "tin", "zinc",
    "iron", "gold", "onyx", "opal", "jade", "ruby", "coal", "salt", "sand", "clay", "silt",
    "loam", "peat", "snow", "hail", "mist", "rain", "gale", "dawn", "dusk", "noon", "moon",
    "star", "mars",
)  # fmt: skip


@dataclass(frozen=True)
class Widget:
    """One widget of a page."""

    kind: str
    value: int  # widgets with the same number show one value
    label: str
    options: tuple[str, str, str]
    hue: int  # degrees
    bullets: bool  # of a swiper


@dataclass(frozen=True)
class Page:
    """What touches cannot change."""

    theme: str
    dark: bool
    color: str  # `#rrggbb`
    gap: int
    top: int
    side: int
    widgets: tuple[Widget, ...]

    @property
    def arrangement(self) -> str:
        """Kinds from top to bottom, each with the value it shows, as in `toggle0 swiper1`."""
        return _arrangement([(each.kind, each.value) for each in self.widgets])

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)

    def checked(self, state: ArrayLike) -> IntArray:
        """A state `[5]` of integers, -1 where a widget is absent; a `DataError` if it is none."""
        found = np.asarray(state)
        if found.shape != (MAX_WIDGETS,) or found.dtype.kind not in "iu":
            raise DataError(
                f"state must be integers of shape {(MAX_WIDGETS,)}; found {found.dtype} of shape "
                f"{found.shape}"
            )
        able = [range(KINDS[each.kind][0]) for each in self.widgets]
        able += [range(ABSENT, 0)] * (MAX_WIDGETS - len(able))
        known = all(number in of for number, of in zip(found.tolist(), able, strict=True))
        shown = {(each.value, int(found[index])) for index, each in enumerate(self.widgets)}
        if not known or len(shown) > len(dict(shown)):
            raise DataError(
                f"state {found.tolist()} is none that {self.arrangement!r} can show; use states of "
                f"this page"
            )
        return found.astype(np.int64)

    def padded(self, read: Sequence[int]) -> IntArray:
        """The state `[5]` of as many integers as the page has widgets."""
        return np.array([*read, *[ABSENT] * (MAX_WIDGETS - len(read))], np.int64)

    def distance(self, state: ArrayLike, goal: ArrayLike) -> float:
        """In how many values two states `[5]` differ; widgets of one value count once."""
        apart = np.flatnonzero(np.asarray(state) != np.asarray(goal))
        return float(len({self.widgets[index].value for index in apart}))


def draw_page(split: str, rng: np.random.Generator, kinds: Collection[str] = ()) -> Page:
    """A page of a split (train, validation or test), with one of these kinds of widgets if any.

    A `ConfigError` says that there is no such split or no such kind.
    """
    residues = require_split(split)
    if strangers := sorted(set(kinds) - set(KINDS)):
        raise ConfigError(f"no kind of widget is {strangers[0]!r}; use some of {', '.join(KINDS)}")
    wanted = set(kinds or KINDS)
    chosen: list[tuple[str, int]] = []
    code = -1
    while code not in residues or len(chosen) < min(NUM_WIDGETS) or wanted.isdisjoint(dict(chosen)):
        chosen = _draw_kinds(rng)
        code = crc32(_arrangement(chosen).encode()) % MODULUS
    words = [word for index, word in enumerate(WORDS) if index % MODULUS in residues]
    (accent, slides), dark = draw_pairs(1, NUM_HUES, split, rng)[0].tolist(), rng.random() < 0.4
    hue, light = (accent + rng.uniform(0.1, 0.9)) / NUM_HUES, rng.uniform(0.3, 0.5) + 0.15 * dark
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, light, 0.7))
    widgets = []
    for kind, value in chosen:
        first, second, *options = rng.choice(words, 5, replace=False).tolist()
        label, degrees = f"{first.title()} {second}", int(36 * (slides + rng.random()))
        names = tuple(word.title() for word in options)
        widgets.append(Widget(kind, value, label, names, degrees, bool(rng.random() < 0.5)))
    gap, top, side = (int(rng.choice(sizes)) for sizes in (GAPS, TOPS, SIDES))
    theme = THEMES[rng.integers(len(THEMES))]
    color = f"#{red:02x}{green:02x}{blue:02x}"
    return Page(theme, bool(dark), color, gap, top, side, tuple(widgets))


def _draw_kinds(rng: np.random.Generator) -> list[tuple[str, int]]:
    """Kinds with the number of the value each shows; none twice, and no more than have room."""
    wanted = int(rng.choice(NUM_WIDGETS))
    chosen: list[tuple[str, int]] = []
    if rng.random() < 0.5:
        chosen = [(kind, 0) for kind in PAIRS[rng.integers(len(PAIRS))]]
    room = HEIGHT - max(TOPS) - sum(KINDS[kind][1] + max(GAPS) for kind, _ in chosen)
    for kind in rng.permutation(list(KINDS)).tolist():
        height = KINDS[kind][1] + max(GAPS)
        if len(chosen) < wanted and height <= room and kind not in dict(chosen):
            chosen.append((kind, len(chosen)))
            room -= height
    return [chosen[place] for place in rng.permutation(len(chosen))]


def _arrangement(kinds: list[tuple[str, int]]) -> str:
    return " ".join(f"{kind}{value}" for kind, value in kinds)
