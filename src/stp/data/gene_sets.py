"""Gene sets of a GMT file, as far as a vocabulary knows their genes and stores measure them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stp._extras import extra
from stp._log import logger
from stp.data.store import SpotStore
from stp.vocabulary import Vocabulary

MIN_GENES = 5  # of a set that are known and measured, as decoupler's default


def read_gene_sets(path: str | Path, vocabulary: Vocabulary, stores: Sequence[SpotStore]) -> dict[str, np.ndarray]:
    """Read a GMT file through decoupler; what is left out is logged.

    Parameters
    ----------
    path
        A gene set per line: name, description, genes.
    vocabulary
        The genes that are known.
    stores
        Where they are measured: a gene that none of them has is left out.

    Returns
    -------
    Vocabulary indices of the genes of each set, in the order of the file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        No set has five genes that are known and measured.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no gene sets at {path}; give a GMT file, such as MSigDB and Reactome publish")
    table = extra("decoupler").pp.read_gmt(str(path))
    index = vocabulary.encode(table["target"])
    columns = {tuple(store.gene_names) for store in stores}  # most stores have the same
    known = np.isin(index, np.concatenate([vocabulary.encode(names) for names in columns])) & (index >= 0)
    rows = table.groupby("source", sort=False).indices
    sets = {str(name): np.unique(index[of_set][known[of_set]]) for name, of_set in rows.items()}
    kept = {name: genes for name, genes in sets.items() if len(genes) >= MIN_GENES}
    if not kept:
        raise ValueError(f"none of the {len(sets)} gene sets of {path} has {MIN_GENES} genes that the stores measure")
    _report(path, list(sets), kept, table["target"].to_numpy(), known)
    return kept


def _report(path, names: Sequence[str], kept: Mapping, genes: np.ndarray, known: np.ndarray) -> None:
    """Say which sets and genes are left out."""
    all_genes, unknown = np.unique(genes.astype(str)), np.unique(genes[~known].astype(str))
    logger.info(
        f"{len(kept)} of {len(names)} gene sets of {path}; of their {len(all_genes)} genes {len(unknown)} are not "
        f"measured or not in the vocabulary{_some(unknown)}"
    )
    if dropped := [name for name in names if name not in kept]:
        why = f"have fewer than {MIN_GENES} such genes and are left out"
        logger.warning(f"{len(dropped)} gene sets of {path} {why}{_some(dropped)}")


def _some(names: Sequence[str]) -> str:
    return f", e.g. {', '.join(map(str, names[:3]))}" if len(names) else ""
