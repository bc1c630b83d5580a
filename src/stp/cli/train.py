"""`stp pretrain` and `stp align`: run a training stage from a TOML file."""

import argparse
from pathlib import Path

from stp._log import logger
from stp.cli.paths import require_file

STAGES = {
    "pretrain": "stage one: train a gene encoder; also under torchrun --no-python",
    "align": "stage two: align an image encoder with it",
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add both commands and their options."""
    for stage, summary in STAGES.items():
        parser = commands.add_parser(
            stage, help=summary, description=f"{summary}. A run that was stopped continues."
        )
        parser.add_argument(
            "recipe", type=Path, help="TOML file: stores, output_dir, and the fields of the configs"
        )
        parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the stage that the recipe describes, and return the exit status."""
    require_file(options.recipe, "a TOML file; https://toml.io describes the format")

    from stp.cli.recipe import read_recipe

    try:
        train = read_recipe(options.recipe, options.command)
        train()
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        logger.debug("traceback of the error:", exc_info=True)
        raise argparse.ArgumentError(None, str(error)) from error
    return 0
