"""The command line: `stp demo | pretrain | align | embed | reference-check | doctor`."""

import argparse
from pathlib import Path

from stp import __version__
from stp._log import logger


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="stp", description="STAMP for AnnData and SpatialData")
    parser.add_argument("--version", action="version", version=f"stp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="train, embed, cluster and predict on synthetic slides, offline"
    )
    demo.add_argument(
        "--out", type=Path, required=True, help="folder for stores, models, figures and the report"
    )
    stages = {
        "pretrain": "stage one: train a gene encoder; also under torchrun --no-python",
        "align": "stage two: align an image encoder with it",
    }
    for stage, what in stages.items():
        command = commands.add_parser(
            stage, help=what, description=f"{what}. A run that was stopped goes on."
        )
        command.add_argument(
            "recipe", type=Path, help="TOML file: stores, output_dir, and the fields of the configs"
        )
    _add_embed(commands)
    _add_reference_check(commands)
    commands.add_parser(
        "doctor", help="what works on this machine; status 1 where the main job cannot run"
    )
    options = parser.parse_args(arguments)
    runs = {"embed": _embed, "demo": _demo, "reference-check": _reference_check, "doctor": _doctor}
    return runs.get(options.command, _train)(parser, options)


def _add_embed(commands: argparse._SubParsersAction) -> None:
    what = "embed the spots of many stores by genes and images; also under torchrun --no-python"
    embed = commands.add_parser(
        "embed", help=what, description=f"{what}. What is finished is skipped."
    )
    embed.add_argument(
        "stores", type=Path, nargs="+", help="SpatialData zarr folders; results are added to them"
    )
    embed.add_argument(
        "--model", required=True, help="folder of a Stamp or encoder, or the name of a backbone"
    )
    embed.add_argument(
        "--manifest",
        type=Path,
        default="stp_embed.jsonl",
        help="JSON lines: what came of each store",
    )
    embed.add_argument("--batch-size", type=int, default=64, help="spots at a time (64)")
    embed.add_argument("--device", help="a torch device; by default a GPU if there is one")
    embed.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    embed.add_argument("--table-key", default="table", help="table of the stores (table)")


def _embed(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from stp.cli.embed import embed_stores, open_model

    names = ("manifest", "batch_size", "device", "precision", "table_key")
    try:
        model = open_model(options.model)
        failed = embed_stores(
            options.stores, model, **{name: getattr(options, name) for name in names}
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if failed:
        print(f"{failed} stores failed: see {options.manifest}")
    return 1 if failed else 0


def _add_reference_check(commands: argparse._SubParsersAction) -> None:
    what = "how tie order, rounding, pooling and channel order move the embeddings of the authors' weights"
    check = commands.add_parser("reference-check", help=what)
    check.add_argument("checkpoint", type=Path, help="their pytorch_model.bin")
    check.add_argument(
        "assets", type=Path, help="folder of model.h5ad, Visium_mean.npy and gene_name_id_dict.pkl"
    )
    check.add_argument(
        "section",
        type=Path,
        help="a section of yours: SpatialData zarr folder, or h5ad without image",
    )
    check.add_argument("--n-spots", type=int, default=100, help="spots drawn from it (100)")
    check.add_argument("--table-key", default="table", help="table of the SpatialData (table)")
    coarse = (
        "accept an image coarser than 0.625 um per pixel, 1.25 times what these weights are for"
    )
    check.add_argument("--allow-upsampling", action="store_true", help=coarse)


def _reference_check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from stp.cli.release_check import run

    chosen = {name: getattr(options, name) for name in ("n_spots", "table_key", "allow_upsampling")}
    try:
        return run(options.checkpoint, options.assets, options.section, **chosen)
    except (ValueError, KeyError, OSError) as error:
        parser.error(str(error))


def _doctor(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from stp.cli.doctor import run

    return run()


def _demo(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from stp.workflows.demo import run

    return run(options.out)


def _train(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from stp.cli.recipe import read_recipe

    try:
        train = read_recipe(options.recipe, options.command)
        train()
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        logger.debug("where it came from:", exc_info=True)
        parser.error(str(error))
    return 0
