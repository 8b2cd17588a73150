"""SHIM: moved to builders.runtime."""

from builders.runtime import HOOK, run  # noqa: F401
