"""Refuse to write over what should be kept."""

from __future__ import annotations

from pathlib import Path

from vj2_ddim_plugin.errors import ConfigError

__all__ = ["require_replaceable"]


def require_replaceable(folder: Path, patterns: tuple[str, ...], overwrite: bool) -> None:
    """Make sure that replacing a whole folder loses nothing but an earlier data set.

    Args:
        folder: The folder that is about to be made or replaced.
        patterns: What the files of an earlier data set are called.
        overwrite: Whether such files may be replaced.

    Raises:
        ConfigError: The folder is a file, is not empty, or holds anything else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder that does not exist yet")
    found = sorted(folder.iterdir())
    if found and not overwrite:
        raise ConfigError(
            f"{folder} is not empty ({len(found)} entries); name another folder, or pass overwrite"
        )
    for path in found:
        if not any(path.match(pattern) for pattern in patterns):
            raise ConfigError(
                f"{folder} holds {path.name}, which is no part of such a data set, and "
                f"overwriting replaces the whole folder; name another folder, or move it away"
            )
