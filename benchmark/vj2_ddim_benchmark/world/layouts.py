"""What a page looks like: splits, arrangements, and layouts with sizes, places and colours.

Three things about a screen are codes: its arrangement (which widgets stand where), its palette
(accent sector, hue sector) and its sizes (width class, height class). Every code has a residue
modulo 5, and a split owns residues: 0, 1 and 2 are training, 3 is validation, 4 is test. So no
arrangement, no pair of palette sectors and no pair of size classes is ever shared between splits,
while each single sector and class, and each kind of widget, occurs in all three: a test screen is
an unseen combination of things seen in training.

A page is a stack of bands, each of one widget or of two side by side, written
`"carousel / keypad + switch"`. A stack that fits the page and mixes at least two kinds is an
arrangement. The sizes of a page's widgets come from a width class and a height class (5 each,
fifths of every widget's range, jittered within), squeezed where the page is full; what room is left
is spread unevenly between and around the widgets. Places are continuous and shared by all splits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import product
from zlib import crc32

import numpy as np

from vj2_ddim_benchmark.world.painting import NUM_SECTORS, PackedColors, draw_palettes
from vj2_ddim_benchmark.world.touch import PAGE
from vj2_ddim_benchmark.world.widgets import NUM_SLOTS, SLOT_KINDS, WIDGETS
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

__all__ = [
    "SPLITS", "Layout", "all_arrangements", "arrangements_of", "draw_layouts", "draw_pairs",
    "name_of", "require_split", "seeded",
]  # fmt: skip

RESIDUES: dict[str, tuple[int, ...]] = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
SPLITS = tuple(RESIDUES)
MODULUS = 5
NUM_SIZE_CLASSES = 5
EDGE = 8.0  # least page pixels between a widget and the edge of the page
GAP = 8.0  # least page pixels between widgets
NUM_DRAWS = 8000  # pages drawn; repeated ones count once
MAX_TRIES = 6  # bands that are tried on a page, one after the other

Band = tuple[int, ...]  # indices in WIDGETS, left to right
Arrangement = tuple[Band, ...]  # bands, top to bottom


def require_split(split: str) -> tuple[int, ...]:
    """The residues that a split owns; a `ConfigError` if there is no such split."""
    if split not in RESIDUES:
        raise ConfigError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
    return RESIDUES[split]


def seeded(split: str, seed: int, *purpose: int, **counts: int) -> np.random.Generator:
    """The generator of a split, a seed and a purpose; a `ConfigError` for what makes no sense."""
    require_split(split)
    for name, count in counts.items():
        if count < 1 or seed < 0:
            raise ConfigError(
                f"{name} must be at least 1 and seed at least 0; found {count} and {seed}"
            )
    return np.random.default_rng([seed, SPLITS.index(split), *purpose])


def draw_pairs(num: int, num_classes: int, split: str, rng: np.random.Generator) -> IntArray:
    """Pairs of classes `[num, 2]` that the split owns, each in `[0, num_classes)`, a multiple of 5.

    The residue of a pair is first + 2 * second, so that every class meets every residue.
    """
    residue = rng.choice(require_split(split), num)
    first = rng.integers(num_classes, size=num)
    second = 3 * (residue - first) % MODULUS  # 3 is the inverse of 2 modulo 5
    second = second + MODULUS * rng.integers(num_classes // MODULUS, size=num)
    return np.stack([first, second], axis=1)


def name_of(arrangement: Arrangement) -> str:
    """The arrangement in words."""
    return " / ".join(" + ".join(WIDGETS[kind].kind for kind in band) for band in arrangement)


@cache
def all_arrangements() -> tuple[Arrangement, ...]:
    """A fixed choice of different arrangements out of the many there are."""
    rng = np.random.default_rng(0)
    kinds = range(len(WIDGETS))
    widths, heights = np.array([_smallest(kind) for kind in kinds]).T.tolist()
    bands: list[Band] = [*((kind,) for kind in kinds), *product(kinds, repeat=2)]
    bands = [band for band in bands if _fits([widths[kind] for kind in band])]
    tall = [max(heights[kind] for kind in band) for band in bands]
    found: dict[str, Arrangement] = {}
    for tries in rng.integers(len(bands), size=(NUM_DRAWS, MAX_TRIES)).tolist():
        chosen: list[int] = []
        for index in tries:
            stack = tuple(bands[i] for i in (*chosen, index))
            if _fits([tall[i] for i in (*chosen, index)]) and _allowed(stack):
                chosen.append(index)
        arrangement = tuple(bands[i] for i in chosen)
        if len({kind for band in arrangement for kind in band}) > 1:
            found[name_of(arrangement)] = arrangement
    return tuple(found.values())


@cache
def arrangements_of(split: str) -> IntArray:
    """Indices in `all_arrangements()` of those that a split owns, by a checksum of their names."""
    residues = require_split(split)
    codes = [crc32(name_of(arrangement).encode()) % MODULUS for arrangement in all_arrangements()]
    return np.flatnonzero(np.isin(codes, residues))


def _smallest(kind: int) -> FloatArray:
    """Width and height that any choice of options can be squeezed into."""
    widget = WIDGETS[kind]
    return np.asarray(widget.size_range(np.array(widget.choices))[0].max(axis=0))


def _fits(lengths: list[float]) -> bool:
    """Whether widgets or bands of these lengths fit in a row across the page."""
    return sum(lengths) + GAP * (len(lengths) - 1) + 2 * EDGE <= PAGE


def _allowed(stack: Arrangement) -> bool:
    """Whether a page has no more widgets of any kind than it may have."""
    counts = Counter(kind for band in stack for kind in band)
    return all(count <= WIDGETS[kind].max_count for kind, count in counts.items())


@dataclass(frozen=True)
class Layout:
    """What a touch cannot change, for n screens of S slots; an absent widget's slot is all zero.

    The codes are arrangement, accent and base sector, width and height class: they say which split
    a layout belongs to, and nothing reads them but a check of that.
    """

    boxes: FloatArray  # [n, S, 4] left, top, right, bottom in page pixels
    options: IntArray  # [n, S, 2], what each kind makes of them
    num_states: IntArray  # [n, S], 0 where the widget is absent
    colors: PackedColors  # [n, COUNT]
    codes: IntArray  # [n, 5]

    def select(self, index: IntArray) -> Layout:
        """The layouts at an index."""
        return Layout(**{name: values[index] for name, values in vars(self).items()})


def draw_layouts(num: int, split: str, rng: np.random.Generator) -> Layout:
    """Layouts of a split."""
    arrangement = rng.choice(arrangements_of(split), num)
    sectors = draw_pairs(num, NUM_SECTORS, split, rng)
    colors = draw_palettes(sectors, rng)
    classes = draw_pairs(num, NUM_SIZE_CLASSES, split, rng)
    boxes = np.zeros((num, NUM_SLOTS, 4))
    options = np.zeros((num, NUM_SLOTS, 2), np.int64)
    num_states = np.zeros((num, NUM_SLOTS), np.int64)
    for code in np.unique(arrangement):
        rows = np.flatnonzero(arrangement == code)
        _lay_out(all_arrangements()[code], rows, classes[rows], (boxes, options), rng)
    for slot, kind in enumerate(SLOT_KINDS):
        rows = np.flatnonzero(boxes[:, slot, 2] > 0)
        num_states[rows, slot] = WIDGETS[kind].num_states(options[rows, slot])
    codes = np.concatenate([arrangement[:, None], sectors, classes], axis=1)
    return Layout(boxes, options, num_states, colors, codes)


def _lay_out(
    arrangement: Arrangement,
    rows: IntArray,
    classes: IntArray,
    out: tuple[FloatArray, IntArray],
    rng: np.random.Generator,
) -> None:
    """Fill in the boxes and options of the screens `rows`, which share an arrangement."""
    slots = _slots(arrangement)
    ranges = []
    for kind, slot in zip((k for band in arrangement for k in band), slots, strict=True):
        options = rng.choice(np.array(WIDGETS[kind].choices), len(rows))
        out[1][rows, slot] = options
        ranges.append(WIDGETS[kind].size_range(options))
    smallest, largest = (np.stack(sizes, axis=1) for sizes in zip(*ranges, strict=True))
    share = (classes[:, None] + rng.random(smallest.shape)) / NUM_SIZE_CLASSES
    wanted = smallest + share * (largest - smallest)
    ends = np.cumsum([len(band) for band in arrangement]).tolist()
    bands = [slice(end - len(band), end) for band, end in zip(arrangement, ends, strict=True)]
    low = np.stack([smallest[:, band, 1].max(axis=1) for band in bands], axis=1)
    high = np.stack([wanted[:, band, 1].max(axis=1) for band in bands], axis=1)
    tops, heights = _spread(low, high, rng)
    for index, band in enumerate(bands):
        lefts, widths = _spread(smallest[:, band, 0], wanted[:, band, 0], rng)
        height = np.minimum(wanted[:, band, 1], heights[:, index, None])
        spare = heights[:, index, None] - height
        top = tops[:, index, None] + spare * rng.random(spare.shape)
        box = np.stack([lefts, top, lefts + widths, top + height], axis=-1)
        out[0][rows[:, None], slots[band]] = box


def _spread(
    smallest: FloatArray, wanted: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Starts and lengths `[m, k]` of k things in a row across the page.

    Each is as long as wanted, or all are squeezed alike towards their smallest until they fit; the
    room that is left goes unevenly before, between and behind them.
    """
    num, count = smallest.shape
    room = PAGE - 2 * EDGE - GAP * (count - 1)
    excess = (wanted - smallest).sum(axis=1)
    squeeze = np.minimum(1.0, (room - smallest.sum(axis=1)) / np.maximum(excess, 1e-9))
    lengths = smallest + squeeze[:, None] * (wanted - smallest)
    spare = room - lengths.sum(axis=1)
    spaces = rng.dirichlet(np.ones(count + 1), num)[:, :count] * spare[:, None] + GAP
    ends = np.cumsum(spaces + lengths, axis=1) - GAP + EDGE
    return ends - lengths, lengths


def _slots(arrangement: Arrangement) -> IntArray:
    """The state column of each widget of an arrangement, in reading order."""
    taken = [0] * len(WIDGETS)
    slots = []
    for kind in (kind for band in arrangement for kind in band):
        slots.append(int(np.flatnonzero(kind == SLOT_KINDS)[taken[kind]]))
        taken[kind] += 1
    return np.array(slots)
