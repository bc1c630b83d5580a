"""`stp release-check`: how details of the release move the embeddings of a section."""

import argparse
from pathlib import Path

from stp.cli.paths import require_file, require_folder


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "release-check",
        help="how tie order, rounding, pooling and channel order change the embeddings of the "
        "authors' weights",
    )
    parser.add_argument("checkpoint", type=Path, help="the authors' pytorch_model.bin")
    parser.add_argument(
        "assets", type=Path, help="folder of model.h5ad, Visium_mean.npy and gene_name_id_dict.pkl"
    )
    parser.add_argument(
        "section", type=Path, help="your section: SpatialData zarr folder, or h5ad without image"
    )
    parser.add_argument("--n-spots", type=int, default=100, help="number of random spots (100)")
    parser.add_argument("--table-key", default="table", help="name of the table (table)")
    parser.add_argument(
        "--allow-upsampling",
        action="store_true",
        help="accept an image coarser than 0.625 um per pixel, 1.25 times the scale of the weights",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the comparison and return the exit status."""
    require_file(options.checkpoint, "the authors' checkpoint")
    require_folder(options.assets, "the folder of the authors' gene files")
    if not options.section.exists():
        raise argparse.ArgumentError(None, f"there is no section at {options.section}")

    from stp.workflows.release_check import print_comparison

    try:
        print_comparison(
            options.checkpoint,
            options.assets,
            options.section,
            n_spots=options.n_spots,
            table_key=options.table_key,
            allow_upsampling=options.allow_upsampling,
        )
    except (ValueError, KeyError, OSError) as error:
        raise argparse.ArgumentError(None, str(error)) from error
    return 0
