"""`stp embed`: embed the spots of many stores with one model."""

import argparse
from pathlib import Path

from stp.io import embed_stores


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    summary = "embed the spots of many stores by genes and images; also under torchrun --no-python"
    parser = commands.add_parser(
        "embed", help=summary, description=f"{summary}. Finished embeddings are skipped."
    )
    parser.add_argument(
        "stores",
        type=_store_place,
        nargs="+",
        help="SpatialData zarr folders, or URLs such as s3://...; results are added to them",
    )
    parser.add_argument(
        "--model", required=True, help="folder of a Stamp or encoder, or the name of a backbone"
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        default="stp_embed.jsonl",
        help="JSON lines file: the result of each store",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="spots per batch (64)")
    parser.add_argument("--device", help="torch device; by default a GPU if there is one")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--table-key", default="table", help="name of the table (table)")
    parser.add_argument(
        "--output-dir",
        type=Path,
        help="folder for copies of remote stores with their results, which are not uploaded then",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Embed the stores; return 1 if one of them failed."""
    missing = [store for store in options.stores if isinstance(store, Path) and not store.exists()]
    if len(missing) == len(options.stores):  # else one error lists all that is wrong
        texts = ", ".join(map(str, missing))
        raise argparse.ArgumentError(None, f"no store at {texts}; give SpatialData zarr folders")
    try:
        n_failed = embed_stores(
            options.stores,
            options.model,
            manifest=options.manifest,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            table_key=options.table_key,
            output_dir=options.output_dir,
        )
    except (ImportError, ValueError, OSError) as error:
        raise argparse.ArgumentError(None, str(error)) from error
    if n_failed:
        print(f"{n_failed} stores failed: see {options.manifest}")
    return 1 if n_failed else 0


def _store_place(text: str) -> Path | str:
    """Return a store of the command line: a path, or a URL as it is."""
    return text if "://" in text else Path(text)
