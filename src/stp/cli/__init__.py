"""The command line."""

from stp.cli.main import main

__all__ = ["main"]
