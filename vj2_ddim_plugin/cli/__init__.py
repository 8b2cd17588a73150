"""The command line; it needs the extra `cli`, and its subcommands what each of them names."""

from vj2_ddim_plugin.cli.app import COMMANDS, Command, build_app, main

__all__ = ["COMMANDS", "Command", "build_app", "main"]
