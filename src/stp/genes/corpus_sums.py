"""Sums of the counts of many tables by gene, in this process or on a Dask cluster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stp._progress import track
from stp.genes.named_genes import NamedGenes
from stp.genes.table_genes import recognize_table
from stp.genes.table_sums import sum_table
from stp.tables.counts import get_counts
from stp.tables.table import TrainingStores, as_training_data, get_tables


@dataclass(frozen=True)
class CountsQuery:
    """Which counts of a table are summed.

    Parameters
    ----------
    table_key
        Name of the table in a SpatialData.
    layer
        Layer with the raw counts; by default `X`.
    gene_ids_key
        Column of `var` with gene names; None for `var_names`; "auto" for `gene_ids` if it holds
        Ensembl ids, else `var_names`.
    """

    table_key: str
    layer: str | None
    gene_ids_key: str | None


@dataclass(frozen=True)
class CorpusSums:
    """What the means of a vocabulary are computed from.

    Parameters
    ----------
    sums
        UMIs of each gene and number of spots that detect it, int64 (2, n_genes).
    corpus
        Label of each table.
    collection
        Record of the collection that the tables are from; None without.
    """

    sums: np.ndarray
    corpus: tuple[str, ...]
    collection: Mapping[str, Any] | None = None


def sum_corpus(
    genes: NamedGenes, n_genes: int, data: Any, query: CountsQuery, client: Any
) -> CorpusSums:
    """Sum the counts of one or several data by gene, on the workers of a client if there is one.

    Raises
    ------
    ValueError
        There is no data, or a table cannot be used.
    """
    items = as_training_data(data)
    if client is None:
        sums, labels = _sum_tables(genes, n_genes, items, query)
    else:
        sums, labels = _sum_on_cluster(genes, n_genes, items, query, client)
    if not labels:
        raise ValueError("no data to compute means from; pass at least one table")
    collection = items.record() if isinstance(items, TrainingStores) else None
    return CorpusSums(sums, tuple(labels), collection)


def _sum_tables(
    genes: NamedGenes, n_genes: int, data: Iterable[Any], query: CountsQuery
) -> tuple[np.ndarray, list[str]]:
    """Return the sums of tables, int64 (2, n_genes), and the label of each table."""
    sums = np.zeros((2, n_genes), np.int64)
    labels = []
    for label, adata in get_tables(track(data, "compute means", "table"), query.table_key):
        table_genes = recognize_table(genes, adata, query.gene_ids_key)
        sums += sum_table(get_counts(adata, query.layer), table_genes, n_genes, label)
        labels.append(label)
    return sums, labels


def _sum_on_cluster(
    genes: NamedGenes, n_genes: int, data: Iterable[Any], query: CountsQuery, client: Any
) -> tuple[np.ndarray, list[str]]:
    """Sum the counts of stores as `_sum_tables` does, on the workers of a Dask client.

    Sums are whole numbers, so neither their order nor the number of workers matters.

    Raises
    ------
    TypeError
        The data are not paths.
    ValueError
        A store cannot be used.
    """
    from distributed import as_completed

    paths = [_shared_path(item) for item in data]
    shared = client.scatter(genes, broadcast=True)
    # A number per store: Dask would run equal tasks only once.
    futures = [
        client.submit(_sum_store, shared, n_genes, path, query, pure=False) for path in paths
    ]
    position = {future.key: number for number, future in enumerate(futures)}
    sums = np.zeros((2, n_genes), np.int64)
    labels = [""] * len(paths)
    try:
        results = as_completed(futures, with_results=True)
        for future, (store_sums, label) in track(
            results, "compute means", "store", total=len(paths)
        ):
            sums += store_sums
            labels[position[future.key]] = label
    finally:
        client.cancel(futures)
    return sums, labels


def _shared_path(item: Any) -> str:
    """Return a path that does not depend on the folder in which a worker runs."""
    if not isinstance(item, str | Path):
        raise TypeError(
            f"with client= the data must be paths of stores, which workers read, not "
            f"{type(item).__name__}"
        )
    return str(item) if "://" in str(item) else str(Path(item).absolute())


def _sum_store(
    genes: NamedGenes, n_genes: int, path: str, query: CountsQuery
) -> tuple[np.ndarray, str]:
    """Sum the counts of one store on a worker."""
    sums, labels = _sum_tables(genes, n_genes, [path], query)
    return sums, labels[0]
