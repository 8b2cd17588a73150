"""Every setting of data: which files are read, how they are divided, what is made up.

Nothing here needs torch or numpy: the command line reads its options here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Settings, setting

__all__ = ["GESTURE_KINDS", "PATH_KNOTS", "PATTERNS", "READ_ALL", "SHARE", "GestureSettings"]
__all__ += ["ManifestSettings", "ReadingSettings", "SplitSettings"]

LEVELS = ("click", "swipe", "path")  # of complexity, from 1
PATTERNS = (
    "centre_click", "corner_clicks", "horizontal_swipes", "vertical_swipes", "diagonal_swipes",
    "circle",
)  # fmt: skip
GESTURE_KINDS = ("click", "swipe", "mixed", "path", *PATTERNS, "patterns")
PATH_KNOTS = 9
SHARE: Any = {"low": 0.0, "high": 1.0}


@dataclass(frozen=True)
class ManifestSettings(Settings):
    """Where it is written which file of a folder belongs to which split."""

    manifest: Path | None = setting(
        None, "The manifest, with the splits; manifest.json beside the data unless told."
    )


@dataclass(frozen=True)
class ReadingSettings(ManifestSettings):
    """Which files of a folder are read."""

    skip_broken: bool = setting(
        False, "Look at every number first and leave broken files out, instead of stopping at one."
    )


READ_ALL = ReadingSettings()  # where nobody is asked


@dataclass(frozen=True)
class SplitSettings(ReadingSettings):
    """How recordings are divided, and the manifest that says so."""

    train: float = setting(0.8, "Share of the bytes, or, all above 1, recordings.", low=0.0)
    validation: float = setting(0.1, "As for train.", low=0.0)
    test: float = setting(0.1, "As for train.", low=0.0)
    together: str = setting(
        "recording",
        "What stays together: the trajectories of one recording ({stem}_traj_*), for neighbours "
        "are alike, or no more than a file.",
        choices=("recording", "file"),
    )
    seed: int = setting(0, "The same seed, the same splits.", low=0, high=2**63 - 1)

    def check(self) -> None:
        """All shares, or all counts."""
        of = self.train, self.validation, self.test
        counts = max(of) > 1.0
        if counts and not all(each == int(each) for each in of):
            raise ConfigError(
                f"train, validation and test must all be shares of at most 1, or all be counts; "
                f"found {', '.join(f'{each:g}' for each in of)}"
            )
        if not counts and not 0.0 < sum(of) <= 1.0 + 1e-9:
            raise ConfigError(
                f"train, validation and test are shares and must add up to more than 0 and at "
                f"most 1; found {sum(of):g}"
            )


@dataclass(frozen=True)
class GestureSettings(Settings):
    """What random gestures are like."""

    kind: str = setting(
        "mixed",
        "A click stays in one place, a swipe goes straight from any point to any other, a path "
        "turns or is curved, at varying speed; mixed is, with equal chances, a click or a "
        "horizontal, vertical or diagonal swipe; patterns are all those at fixed places, in turn.",
        choices=GESTURE_KINDS,
        option="--action-type",
    )
    complexity: int | None = setting(
        None, "In place of the kind: 1 is click, 2 swipe, 3 path.", low=1, high=len(LEVELS)
    )
    min_duration_share: float = setting(
        0.02, "Shortest press, as a share of the sequence.", option="--min-delta-t-pct", **SHARE
    )
    max_duration_share: float = setting(
        0.3, "Longest press, as a share of the sequence.", option="--max-delta-t-pct", **SHARE
    )
    sequence_length: int = setting(250, "Steps in a sequence.", low=1, high=100_000)

    def check(self) -> None:
        """The shortest must not be longer than the longest."""
        if self.min_duration_share > self.max_duration_share:
            raise ConfigError(
                f"need 0 <= min_duration_share <= max_duration_share <= 1; found "
                f"{self.min_duration_share} and {self.max_duration_share}. They are shares of the "
                f"sequence: 0.02 is 2 %"
            )
        if self.complexity is not None and self.kind != "mixed":
            raise ConfigError(f"kind is {self.kind!r} and complexity {self.complexity}; tell one")
        if (
            self.shape == "path"
            and int(self.max_duration_share * self.sequence_length) < PATH_KNOTS
        ):
            raise ConfigError(
                f"a path takes at least {PATH_KNOTS} steps; found a max_duration_share of "
                f"{self.max_duration_share} of {self.sequence_length}"
            )

    @property
    def shape(self) -> str:
        """The kind, whichever way it was told."""
        return self.kind if self.complexity is None else LEVELS[self.complexity - 1]
