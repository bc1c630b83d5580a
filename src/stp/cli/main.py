"""The `stp` command and the list of its subcommands, each of which has its own file."""

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from stp import __version__
from stp.cli import (
    demo,
    doctor,
    embed,
    evaluate,
    mcp,
    prepare,
    release_check,
    slides,
    split,
    train,
    vocabulary,
)

COMMANDS = (
    demo,
    prepare,
    split,
    vocabulary,
    train,
    embed,
    evaluate,
    slides,
    mcp,
    release_check,
    doctor,
)


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
        with _plain_warnings():
            return options.run(options)
    except argparse.ArgumentError as error:
        parser.exit(2, f"stp {options.command}: error: {error}\n")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings for the user without the line of the script that starts this command."""
    former = warnings.formatwarning

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if category is UserWarning and filename == sys.argv[0]:
            return f"Warning: {message}\n"
        return former(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning
    try:
        yield
    finally:
        warnings.formatwarning = former
