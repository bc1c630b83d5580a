"""`stp split`: divide the stores of a collection into training, validation and test."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stp._log import count
from stp._urls import without_secrets
from stp.cli.paths import path_or_url, require_collection

if TYPE_CHECKING:
    from stp.data.collection import Collection

STRATIFY = ("organ", "platform")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    summary = "divide the stores of a collection into training, validation and test by patient"
    parser = commands.add_parser(
        "split",
        help=summary,
        description=f"{summary}. The sides are written into the column 'split' of the table, both "
        ".parquet and .csv.",
    )
    parser.add_argument(
        "collection", type=path_or_url, help="collection.parquet, a CSV file, or a folder, or a URL"
    )
    parser.add_argument("--by", default="patient", help="column of the patients (patient)")
    parser.add_argument("--validation", type=float, default=0.1, help="share of the spots (0.1)")
    parser.add_argument("--test", type=float, default=0.1, help="share of the spots (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    parser.add_argument(
        "--stratify",
        nargs="*",
        default=STRATIFY,
        help="columns whose values have the same shares on each side (organ platform)",
    )
    parser.add_argument(
        "--no-duplicates",
        action="store_true",
        help="do not look for near-duplicates, which takes time",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing split")
    parser.add_argument("--dry-run", action="store_true", help="print the split, and write nothing")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the split, write it, and return the exit status."""
    require_collection(options.collection)
    try:
        split(options)
    except (ValueError, OSError, ImportError) as error:
        raise argparse.ArgumentError(None, str(error)) from error
    return 0


def split(options: argparse.Namespace) -> None:
    """Assign the sides, print them, and write them unless this is a dry run."""
    from stp.data.collection import SPLIT, Collection
    from stp.data.collection_file import find_file
    from stp.tl import find_duplicates
    from stp.tl._assign_split import assign_split, count_sides

    file = options.collection
    if isinstance(file, Path):
        file = find_file(file)
    collection = Collection.read(file)
    if isinstance(file, Path):
        require_equal_files(file, collection)
    label = without_secrets(str(file))
    if SPLIT in collection.table and not options.overwrite:
        raise ValueError(f"{label} has a split; pass --overwrite to replace it")
    duplicates = None
    if not options.no_duplicates:
        duplicates = find_duplicates(collection)
    divided = assign_split(
        collection,
        by=options.by,
        validation=options.validation,
        test=options.test,
        seed=options.seed,
        stratify=options.stratify,
        duplicates=duplicates,
        overwrite=options.overwrite,
    )
    sides = count_sides(divided, options.by, SPLIT)
    print(sides.to_string(formatters={"share": "{:.1%}".format}))
    if duplicates is not None and len(duplicates):
        verb = "is" if len(duplicates) == 1 else "are"
        pairs = count(len(duplicates), "pair")
        print(f"{pairs} of near-duplicates {verb} on one side each")
    if options.dry_run:
        print(f"This was a dry run: {label} has not changed.")
        return
    divided.write(file)
    print(f"Wrote the column {SPLIT!r} of {label}.")


def require_equal_files(file: Path, collection: "Collection") -> None:
    """Raise ValueError if the CSV file next to a parquet file was changed, as both are written."""
    from stp.data.collection_file import csv_text, read_table

    other = file.with_suffix(".csv")
    if other == file or not other.exists():
        return
    if csv_text(read_table(other)) != csv_text(collection.table):
        raise ValueError(
            f"{other} has other values than {file}, and both would be written; pass the one that "
            "is right, or delete the CSV file"
        )
