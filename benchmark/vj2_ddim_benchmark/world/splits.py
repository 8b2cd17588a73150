"""What keeps training, validation and test screens apart.

Three things about a screen are codes: its arrangement (which widgets stand where), its palette
(accent sector, hue sector) and its sizes (width class, height class). Every code has a residue
modulo 5, and a split owns residues: 0, 1 and 2 are training, 3 is validation, 4 is test. So no
arrangement, no pair of palette sectors and no pair of size classes is ever shared between splits,
while each single sector and class, and each kind of widget, occurs in all three: a test screen is
an unseen combination of things seen in training.
"""

from __future__ import annotations

import numpy as np

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import IntArray

__all__ = ["RESIDUES", "SPLITS", "draw_pairs", "pair_code", "require_split"]

RESIDUES: dict[str, tuple[int, ...]] = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
SPLITS = tuple(RESIDUES)
MODULUS = 5


def require_split(split: str) -> tuple[int, ...]:
    """The residues a split owns.

    Raises:
        ConfigError: There is no such split.
    """
    if split not in RESIDUES:
        raise ConfigError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
    return RESIDUES[split]


def pair_code(pairs: IntArray) -> IntArray:
    """Residue `[n]` of pairs of classes `[n, 2]`; every class meets every residue."""
    return np.asarray((pairs[:, 0] + 2 * pairs[:, 1]) % MODULUS)


def draw_pairs(num: int, num_classes: int, split: str, rng: np.random.Generator) -> IntArray:
    """Draw pairs of classes `[num, 2]`, each in `[0, num_classes)`, that the split owns.

    Args:
        num: How many pairs.
        num_classes: Classes on each side; a multiple of 5.
        split: The split whose pairs to draw.
        rng: Source of randomness.
    """
    residue = rng.choice(require_split(split), num)
    first = rng.integers(num_classes, size=num)
    second = 3 * (residue - first) % MODULUS  # 3 is the inverse of 2 modulo 5
    second = second + MODULUS * rng.integers(num_classes // MODULUS, size=num)
    return np.stack([first, second], axis=1)
