"""Files that can be read, and broken ones, which are left out only where that was asked for."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from vj2_ddim_plugin.errors import DataError, escaped
from vj2_ddim_training.data.settings import READ_ALL, ReadingSettings

__all__ = ["keep_sound", "naming_the_way_out", "report_skipped"]

MUCH, TOO_MUCH = 0.05, 0.5  # shares of the files
WAY_OUT = "Broken files are left out with skip_broken=True, and `vj2-ddim data inspect` lists them"

logger = logging.getLogger(__name__)
T = TypeVar("T")


def keep_sound(
    files: Sequence[tuple[Path, ...]],
    check: Callable[[tuple[Path, ...]], T],
    reading: ReadingSettings,
) -> tuple[list[T], dict[str, str]]:
    """What `check` makes of each file, and the names of those that it refuses, with the reason.

    Raises:
        DataError: Unless broken files are skipped, as the check does.
    """
    sound, skipped = [], {}
    for paths in files:
        try:
            with naming_the_way_out(reading):
                sound.append(check(paths))
        except DataError as error:
            if not reading.skip_broken:
                raise
            skipped[paths[0].name] = str(error)
    return sound, skipped


def report_skipped(folder: Path, skipped: dict[str, str], num_files: int) -> None:
    """Say what is left out of a folder; `DataError` where that is more than half of its files."""
    if not skipped:
        return
    share, why = len(skipped) / num_files, next(iter(skipped.values()))
    words = f"{len(skipped)} of {num_files} files are broken"
    if share > TOO_MUCH:
        raise DataError(
            f"{folder}: {words}, more than half, the first: {why}. With so much gone it is not the "
            f"data that was meant; repair it, or name the sound files in a manifest"
        )
    much = "THIS IS MUCH OF THE DATA: " if share > MUCH else ""
    logger.warning("%s", escaped(f"{folder}: {much}{words} and left out, the first: {why}"))


@contextmanager
def naming_the_way_out(reading: ReadingSettings) -> Iterator[None]:
    """Add to the error of a broken file how to do without it, to whom can say so and did not."""
    try:
        yield
    except DataError as error:
        if reading.skip_broken or reading is READ_ALL:
            raise
        raise DataError(f"{str(error).rstrip('.')}. {WAY_OUT}") from error
