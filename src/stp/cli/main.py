"""The `stp` command and the list of its subcommands, each of which has its own file."""

import argparse
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from stp import __version__
from stp.cli import demo, doctor, embed, prepare, release_check, slides, split, train, vocabulary

COMMANDS = (demo, prepare, split, vocabulary, train, embed, slides, release_check, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit status; a wrong argument exits with status 2."""
    if isinstance(sys.stdout, TextIOWrapper):
        # Names beyond the locale are printed with escapes.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="stp", description="STAMP for AnnData and SpatialData")
    parser.add_argument("--version", action="version", version=f"stp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except argparse.ArgumentError as error:
        parser.exit(2, f"stp {options.command}: error: {error}\n")
