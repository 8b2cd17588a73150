"""The command line; it needs the extra `cli`, and its subcommands the extra that each names."""

from vj2_ddim_plugin.cli.app import COMMANDS, Command, build_app, main

__all__ = ["COMMANDS", "Command", "build_app", "main"]
