"""`stp demo`: train, embed, cluster and predict on synthetic slides."""

import argparse
from pathlib import Path

from stp.cli.paths import require_no_file


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "demo", help="train, embed, cluster and predict on synthetic slides, offline"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for stores, models, figures and the report"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo and return the exit status."""
    require_no_file(options.out)

    from stp.workflows.demo import run as run_demo

    return run_demo(options.out)
