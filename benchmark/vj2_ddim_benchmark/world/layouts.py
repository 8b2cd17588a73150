"""What a page looks like: splits, arrangements, and layouts with sizes, places and colours.

Arrangement, palette (two sectors of hue) and sizes (width and height class) are codes; a split owns
residues of them modulo 5. So each single kind, sector and class occurs in every split and none of
their combinations in two: a test screen combines anew what was seen in training.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import product
from zlib import crc32

import numpy as np

from vj2_ddim_benchmark.settings import SPLITS
from vj2_ddim_benchmark.world.painting import NUM_SECTORS, PackedColors, draw_palettes
from vj2_ddim_benchmark.world.touch import PAGE
from vj2_ddim_benchmark.world.widgets import NUM_SLOTS, SLOT_KINDS, WIDGETS
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import FloatArray

RESIDUES = dict(zip(SPLITS, ((0, 1, 2), (3,), (4,)), strict=True))
MODULUS = NUM_SIZE_CLASSES = 5
EDGE = GAP = 8.0  # least page pixels between a widget and the edge of the page, and the next
NUM_DRAWS, MAX_TRIES = 8000, 6  # pages drawn, and bands that are tried on each

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
    for name, num in counts.items():
        if num < 1 or seed < 0:
            raise ConfigError(f"{name} must be at least 1 and seed 0; found {num} and {seed}")
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
    """The arrangement in words, as in `"carousel / keypad + switch"`."""
    return " / ".join(" + ".join(WIDGETS[kind].kind for kind in band) for band in arrangement)


@cache
def all_arrangements() -> tuple[Arrangement, ...]:
    """A fixed choice out of the many stacks that fit a page and mix at least two kinds."""
    rng = np.random.default_rng(0)
    kinds = range(len(WIDGETS))
    # Width and height that any choice of options can be squeezed into.
    least = [widget.size_range(np.array(widget.choices))[0].max(axis=0) for widget in WIDGETS]
    widths, heights = np.array(least).T.tolist()
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
    codes = [crc32(name_of(arrangement).encode()) % MODULUS for arrangement in all_arrangements()]
    return np.flatnonzero(np.isin(codes, require_split(split)))


def _fits(lengths: list[float]) -> bool:  # in a row across the page
    return sum(lengths) + GAP * (len(lengths) - 1) + 2 * EDGE <= PAGE


def _allowed(stack: Arrangement) -> bool:  # no more widgets of a kind than there may be
    counts = Counter(kind for band in stack for kind in band)
    return all(count <= WIDGETS[kind].max_count for kind, count in counts.items())


@dataclass(frozen=True)
class Layout:
    """What a touch cannot change, for n screens of S slots; an absent widget's slot is all zero."""

    boxes: FloatArray  # [n, S, 4] left, top, right, bottom in page pixels
    options: IntArray  # [n, S, 2], what each kind makes of them
    num_states: IntArray  # [n, S], 0 where the widget is absent
    colors: PackedColors  # [n, COUNT]
    codes: IntArray  # [n, 5] arrangement, accent and base sector, width and height class

    def select(self, index: IntArray) -> "Layout":
        """The layouts at an index."""
        return Layout(**{name: values[index] for name, values in vars(self).items()})


def draw_layouts(num: int, split: str, rng: np.random.Generator) -> Layout:
    """Layouts of a split."""
    arrangement = rng.choice(arrangements_of(split), num)
    sectors = draw_pairs(num, NUM_SECTORS, split, rng)
    colors = draw_palettes(sectors, rng)
    classes = draw_pairs(num, NUM_SIZE_CLASSES, split, rng)
    boxes, options = np.zeros((num, NUM_SLOTS, 4)), np.zeros((num, NUM_SLOTS, 2), np.int64)
    num_states = np.zeros((num, NUM_SLOTS), np.int64)
    for code in np.unique(arrangement):
        rows = np.flatnonzero(arrangement == code)
        chosen = all_arrangements()[code]
        kinds = np.concatenate(chosen)
        before = np.tril(kinds[:, None] == kinds, -1).sum(axis=1)  # of the same kind
        place = rows[:, None], np.searchsorted(SLOT_KINDS, kinds) + before
        boxes[place], options[place] = _lay_out(chosen, classes[rows], rng)
    for slot, kind in enumerate(SLOT_KINDS):
        rows = np.flatnonzero(boxes[:, slot, 2] > 0)
        num_states[rows, slot] = WIDGETS[kind].num_states(options[rows, slot])
    codes = np.concatenate([arrangement[:, None], sectors, classes], axis=1)
    return Layout(boxes, options, num_states, colors, codes)


def _lay_out(
    arrangement: Arrangement, classes: IntArray, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Boxes `[m, k, 4]` and options of an arrangement's k widgets on the screens of m classes."""
    widgets = [WIDGETS[kind] for band in arrangement for kind in band]
    options = [rng.choice(np.array(widget.choices), len(classes)) for widget in widgets]
    ranges = [widget.size_range(own) for widget, own in zip(widgets, options, strict=True)]
    smallest, largest = (np.stack(sizes, axis=1) for sizes in zip(*ranges, strict=True))
    share = (classes[:, None] + rng.random(smallest.shape)) / NUM_SIZE_CLASSES
    wanted = smallest + share * (largest - smallest)
    ends = np.cumsum([len(band) for band in arrangement])
    bands = np.split(np.arange(len(widgets)), ends[:-1])
    low = np.stack([smallest[:, band, 1].max(axis=1) for band in bands], axis=1)
    high = np.stack([wanted[:, band, 1].max(axis=1) for band in bands], axis=1)
    tops, heights = _spread(low, high, rng)
    boxes = []
    for index, band in enumerate(bands):
        lefts, widths = _spread(smallest[:, band, 0], wanted[:, band, 0], rng)
        height = np.minimum(wanted[:, band, 1], heights[:, index, None])
        spare = heights[:, index, None] - height
        top = tops[:, index, None] + spare * rng.random(spare.shape)
        boxes.append(np.stack([lefts, top, lefts + widths, top + height], axis=-1))
    return np.concatenate(boxes, axis=1), np.stack(options, axis=1)


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
