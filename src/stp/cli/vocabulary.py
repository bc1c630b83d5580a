"""`stp vocabulary`: fit the gene means of a vocabulary to the training side of a collection."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp._log import count
from stp.cli.paths import path_or_url, require_collection, require_file

if TYPE_CHECKING:
    from stp.data.collection import Collection

TRAIN = "train"
SPECIES = "species"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    summary = "fit the gene means of a vocabulary to the training side of a collection"
    parser = commands.add_parser("vocabulary", help=summary, description=f"{summary}.")
    parser.add_argument(
        "collection", type=path_or_url, help="collection.parquet, a CSV file, or a folder, or a URL"
    )
    parser.add_argument("--out", type=Path, required=True, help="parquet file of the vocabulary")
    parser.add_argument(
        "--genes",
        type=Path,
        help="the genes: a parquet file of a vocabulary, or a table without header that has ids, "
        "and symbols in its second column, such as features.tsv.gz; by default the human ones",
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler")
    parser.add_argument("--workers", type=int, help="number of processes on this machine (1)")
    parser.add_argument("--table-key", default="table", help="name of the table (table)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fit the vocabulary, write it, and return the exit status."""
    require_collection(options.collection)
    if options.genes is not None:
        require_file(options.genes, "a table of gene ids and symbols, or a vocabulary")
    if options.scheduler and options.workers:
        raise argparse.ArgumentError(None, "give --scheduler or --workers, not both")
    if options.workers is not None and options.workers < 1:
        raise argparse.ArgumentError(None, f"--workers must be positive, not {options.workers}")

    try:
        fit(options)
    except (ValueError, OSError, ImportError) as error:
        raise argparse.ArgumentError(None, str(error)) from error
    return 0


def fit(options: argparse.Namespace) -> None:
    """Fit the vocabulary, write it and print what it is."""
    from stp._atomic import write_atomically
    from stp.data.collection import Collection
    from stp.genes.gene_file import read_genes
    from stp.genes.vocabulary import Vocabulary

    require_replaceable(options.out)
    genes = Vocabulary.default() if options.genes is None else read_genes(options.genes)
    collection = select_training_side(Collection.read(options.collection))
    collection = select_species(collection, genes.species)
    with open_client(options.scheduler, options.workers) as client:
        vocabulary = genes.fit(collection, table_key=options.table_key, client=client)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, vocabulary.save)
    print(f"Wrote {options.out}: {vocabulary!r}")


def select_training_side(collection: "Collection") -> "Collection":
    """Return the stores to train on, and print which they are."""
    from stp.data.collection import SPLIT

    n_stores = len(collection)
    if SPLIT not in collection.table:
        print(f"The collection has no split, so the means are of all {n_stores} stores.")
        return collection
    collection = collection.select(split=TRAIN)
    print(f"The means are of the {len(collection)} of {n_stores} stores with split = {TRAIN!r}.")
    return collection


def select_species(collection: "Collection", species: str | None) -> "Collection":
    """Return the stores of the species of the genes, and print how many others are left out.

    All stores are returned if none is of the species; fitting then says what is wrong.
    """
    from stp.data.column_values import has_value
    from stp.io._prepare_vocabularies import SPECIES_OF

    if species is None or SPECIES not in collection.table:
        return collection
    values = {str(value) for value in collection.table[SPECIES] if has_value(value)}
    plain = {value: value.casefold() for value in sorted(values)}
    same = [value for value, text in plain.items() if SPECIES_OF.get(text, text) == species]
    if not same:
        return collection
    of_species = collection.select({SPECIES: same})
    n_others = len(collection) - len(of_species)
    if n_others:
        print(f"The genes are of {species}, which leaves out {count(n_others, 'store')}.")
    return of_species if n_others else collection


def require_replaceable(path: Path) -> None:
    """Raise ValueError if there is something else than a vocabulary at a path."""
    from stp.genes.vocabulary_file import read_columns

    if not path.exists():
        return
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; give a file for the vocabulary")
    try:
        read_columns(path)
    except ValueError as error:
        raise ValueError(
            f"--out {path} exists and is no vocabulary, so it is not replaced; give another file"
        ) from error


@contextmanager
def open_client(scheduler: str | None, n_workers: int | None) -> Iterator[Any]:
    """Yield a Dask client, or None if this process does the work."""
    if scheduler is None and n_workers in (None, 1):
        yield None
        return
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with Client(scheduler) as client:
            yield client
        return
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client
