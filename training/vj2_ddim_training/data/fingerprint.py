"""A short name for the exact data something was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from vj2_ddim_plugin.files import sha256_of

__all__ = ["fingerprint_files"]

FINGERPRINT_DIGITS = 16


def fingerprint_files(files: Iterable[Path]) -> str:
    """Fingerprint of some files' names and bytes, which hold the arrays' shapes as well.

    The order in which the files are given and the folder they lie in do not matter.

    Args:
        files: Files to read.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, content in sorted((path.name, sha256_of(path)) for path in files):
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]
