"""SHIM: moved to vj2_ddim_plugin.cli.console."""

from vj2_ddim_plugin.cli.console import Progress, progress_bars

__all__ = ["Progress", "progress_bars"]
