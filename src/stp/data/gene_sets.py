"""Gene sets of a file, reduced to genes that a vocabulary knows and stores measure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stp._log import count, logger, preview
from stp.data.store import SpotStore
from stp.genes.gene_set_files import parse_gene_sets
from stp.genes.vocabulary import Vocabulary

MIN_GENES = 5  # smallest number of known and measured genes of a set


def read_gene_sets(
    path: str | Path, vocabulary: Vocabulary, stores: Sequence[SpotStore]
) -> dict[str, np.ndarray]:
    """Read gene sets from a file, and log which sets and genes are left out.

    Parameters
    ----------
    path
        GMT file, or a table with the columns set and gene (csv, tsv, parquet).
    vocabulary
        Vocabulary with the known genes.
    stores
        Stores that measure the genes; a gene that no store measures is left out.

    Returns
    -------
    Vocabulary indices of the genes of each set, in the order of the file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file has another format, or no set has five genes that are known and measured.
    """
    path = Path(path)
    gene_sets = parse_gene_sets(path)
    index = _map_genes(gene_sets, vocabulary, stores)
    all_sets = {
        name: np.unique([index[gene] for gene in genes if gene in index])
        for name, genes in gene_sets.items()
    }
    usable_sets = {name: genes for name, genes in all_sets.items() if len(genes) >= MIN_GENES}
    if not usable_sets:
        raise ValueError(
            f"none of the {len(gene_sets)} gene sets of {path} has {MIN_GENES} genes "
            "that the stores measure"
        )
    _report(path, gene_sets, usable_sets, index)
    return usable_sets


def _map_genes(
    gene_sets: Mapping[str, list[str]], vocabulary: Vocabulary, stores: Sequence[SpotStore]
) -> dict[str, int]:
    """Return the vocabulary index of each gene name that is known and that a store measures."""
    measured: set[int] = set()
    for store_genes in {tuple(store.gene_names) for store in stores}:  # most stores have the same
        measured.update(vocabulary.encode(store_genes).tolist())
    genes = _unique_genes(gene_sets)
    indices = vocabulary.encode(genes).tolist()
    return {
        gene: index
        for gene, index in zip(genes, indices, strict=True)
        if index >= 0 and index in measured
    }


def _unique_genes(gene_sets: Mapping[str, list[str]]) -> list[str]:
    """Return the gene names of all sets, each once, in the order of the file."""
    return list(dict.fromkeys(gene for genes in gene_sets.values() for gene in genes))


def _report(
    path: Path,
    gene_sets: Mapping[str, list[str]],
    usable_sets: Mapping[str, np.ndarray],
    index: Mapping[str, int],
) -> None:
    """Log how many sets are used, and the sets and genes that are left out."""
    unknown = [gene for gene in _unique_genes(gene_sets) if gene not in index]
    unknown_names = f": {preview(unknown)}" if unknown else ""
    logger.info(
        f"Using {len(usable_sets)} of {len(gene_sets)} gene sets of {path}; left out "
        f"{count(len(unknown), 'gene')} that no store measures or the vocabulary lacks"
        f"{unknown_names}."
    )
    dropped = [name for name in gene_sets if name not in usable_sets]
    if dropped:
        logger.warning(
            f"Left out {count(len(dropped), 'gene set')} of {path} with fewer than {MIN_GENES} "
            f"genes that the stores measure: {preview(dropped)}."
        )
