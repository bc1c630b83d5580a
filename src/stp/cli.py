"""The command line: `stp demo`."""

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="stp", description="STAMP for AnnData and SpatialData")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train, embed, cluster and predict on synthetic slides, offline")
    demo.add_argument("--out", type=Path, required=True, help="folder for stores, models, figures and the report")
    options = parser.parse_args(arguments)
    from stp.demo import run

    return run(options.out)
