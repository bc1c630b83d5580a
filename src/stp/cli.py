"""The command line: `stp demo`, `stp pretrain` and `stp align`."""

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="stp", description="STAMP for AnnData and SpatialData")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train, embed, cluster and predict on synthetic slides, offline")
    demo.add_argument("--out", type=Path, required=True, help="folder for stores, models, figures and the report")
    stages = {
        "pretrain": "stage one: train a gene encoder; also under torchrun --no-python",
        "align": "stage two: align an image encoder with it",
    }
    for stage, what in stages.items():
        command = commands.add_parser(stage, help=what, description=f"{what}. A run that was stopped goes on.")
        command.add_argument("recipe", type=Path, help="TOML file: stores, output_dir, and the fields of the configs")
    options = parser.parse_args(arguments)
    return _demo(options) if options.command == "demo" else _train(parser, options)


def _demo(options: argparse.Namespace) -> int:
    from stp.demo import run

    return run(options.out)


def _train(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from stp.train.recipe import read_recipe

    try:
        run, arguments = read_recipe(options.recipe, options.command)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    run(**arguments)
    return 0
