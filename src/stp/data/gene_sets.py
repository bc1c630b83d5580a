"""Gene sets of a GMT file, as far as a vocabulary knows their genes and stores measure them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stp._log import logger
from stp.data.store import SpotStore
from stp.genes.vocabulary import Vocabulary

MIN_GENES = 5  # of a set that are known and measured


def read_gene_sets(
    path: str | Path, vocabulary: Vocabulary, stores: Sequence[SpotStore]
) -> dict[str, np.ndarray]:
    """Read a GMT file; what is left out is logged.

    Parameters
    ----------
    path
        A gene set per line: name, description, genes, divided by tabs.
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
        It is no GMT file, or no set has five genes that are known and measured.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no gene sets at {path}; give a GMT file, such as MSigDB and Reactome publish"
        )
    named = _named(Path(path))
    columns = {tuple(store.gene_names) for store in stores}  # most stores have the same
    measured = np.unique(np.concatenate([vocabulary.encode(names) for names in columns]))
    genes = list(dict.fromkeys(gene for of_set in named.values() for gene in of_set))
    index = dict(zip(genes, vocabulary.encode(genes).tolist(), strict=True))
    usable = set(measured[measured >= 0].tolist())
    sets = {
        name: np.unique([i for g in of_set if (i := index[g]) in usable])
        for name, of_set in named.items()
    }
    kept = {name: of_set for name, of_set in sets.items() if len(of_set) >= MIN_GENES}
    if not kept:
        raise ValueError(
            f"none of the {len(sets)} gene sets of {path} has {MIN_GENES} genes that the stores measure"
        )
    _report(
        path,
        [name for name in sets if name not in kept],
        kept,
        [gene for gene in genes if index[gene] not in usable],
    )
    return kept


def _named(path: Path) -> dict[str, list[str]]:
    """Read names and genes; columns are divided by tabs, because names hold spaces."""
    lines = [line.split("\t") for line in path.read_text().splitlines() if line.strip()]
    if short := [number for number, line in enumerate(lines, 1) if len(line) < 3]:
        raise ValueError(
            f"{path} is no GMT file: line {short[0]} has no name, description and genes divided by tabs"
        )
    names = [line[0] for line in lines]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{path} has several gene sets {max(names, key=names.count)!r}; give each a name of its own"
        )
    return {name: [gene for gene in genes if gene] for name, _, *genes in lines}


def _report(path: str | Path, dropped: list[str], kept: Mapping, unknown: list[str]) -> None:
    """Say which sets and genes are left out."""
    logger.info(
        f"{len(kept)} of {len(kept) + len(dropped)} gene sets of {path} are used; "
        f"{len(unknown)} genes are not measured or not in the vocabulary{_some(unknown)}"
    )
    if dropped:
        logger.warning(
            f"{len(dropped)} gene sets of {path} have fewer than {MIN_GENES} genes that the stores measure and are "
            f"left out{_some(dropped)}"
        )


def _some(names: Sequence[str]) -> str:
    return f", e.g. {', '.join(map(str, names[:3]))}" if len(names) else ""
