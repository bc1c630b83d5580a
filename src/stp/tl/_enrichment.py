"""Genes and gene sets that are higher in some measured spots than in the rest of their slides."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, preview, warn
from stp._progress import track
from stp.genes.gene_choice import GeneChoice, open_lookups
from stp.metrics._rank_sum import RankSums
from stp.tables.counts import log_normalized_blocks

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csc_matrix, csr_matrix

MIN_GENES = 5  # smallest number of measured genes of a set
DECIMALS = 6  # of the score of a set: errors of sums must not order equal spots


class Enrichment:
    """Compare hits with the rest of their slides, gene by gene or set by set.

    Parameters
    ----------
    n_columns
        Number of genes or sets.
    """

    def __init__(self, n_columns: int) -> None:
        self.rank_sums = RankSums(n_columns)
        self._hits = np.zeros(n_columns)
        self._rest = np.zeros(n_columns)
        self._n_hits = 0

    def add(self, values: "csc_matrix", is_hit: np.ndarray) -> None:
        """Add a slide: values (n, n_columns), and which spots (n,) are hits."""
        n_hits = int(is_hit.sum())
        if n_hits in (0, len(is_hit)):
            return
        self.rank_sums.add(values, is_hit)
        hit_sum = np.asarray(values.T @ is_hit.astype(float)).ravel()
        rest_sum = np.asarray(values.T @ (~is_hit).astype(float)).ravel()
        self._hits += hit_sum
        self._rest += rest_sum * n_hits / (len(is_hit) - n_hits)
        self._n_hits += n_hits

    def table(
        self, names: "Sequence[str] | np.ndarray", columns: Mapping[str, Any]
    ) -> "pd.DataFrame":
        """Return a row per gene or set that varies, the most enriched first.

        Parameters
        ----------
        names
            Names of the genes or sets.
        columns
            Further columns of the table.
        """
        import pandas as pd
        from scipy.stats import false_discovery_control, norm

        frame = pd.DataFrame(dict(columns), index=np.asarray(names, dtype=str))
        frame["mean_hits"] = self._hits / max(self._n_hits, 1)
        frame["mean_rest"] = self._rest / max(self._n_hits, 1)
        if self._n_hits == 0:
            return frame.iloc[:0].assign(auroc=[], z=[], p=[], q=[])
        frame["auroc"] = self.rank_sums.auroc
        frame["z"] = self.rank_sums.z
        frame = frame[np.isfinite(frame["z"])]
        frame["p"] = 2 * norm.sf(np.abs(frame["z"]))
        frame["q"] = false_discovery_control(frame["p"]) if len(frame) else frame["p"]
        return frame.sort_values("z", ascending=False, kind="stable")


def compare_with_rest(
    tables: Mapping[str, "AnnData"],
    genes: GeneChoice,
    hits: np.ndarray,
    slides: np.ndarray,
    *,
    is_usable: np.ndarray,
    layer: str | None,
    gene_sets: Mapping[str, Sequence[str]],
) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Return the genes and the gene sets that are higher in the hits than in their slides.

    Only slides with hits are read, one at a time.

    Parameters
    ----------
    tables
        Tables by their labels.
    genes
        The genes to compare.
    hits
        Rows (n_hits,) of the hits, counted through all tables.
    slides
        Number of the slide of each spot (n_spots,).
    is_usable
        Which spots (n_spots,) belong to the rest.
    layer
        Layer with the raw counts.
    gene_sets
        Names of the genes of each set.
    """
    sizes, average = _average_sets(tables, genes, gene_sets)
    by_gene = Enrichment(len(genes))
    by_set = Enrichment(len(sizes))
    is_hit = np.zeros(len(slides), dtype=bool)
    is_hit[hits] = True
    for slide in track(np.unique(slides[hits]), "compare with the rest", "slide"):
        is_own = (slides == slide) & is_usable
        values = _read_slide(tables, genes, is_own, layer)
        by_gene.add(values.tocsc(), is_hit[is_own])
        if len(sizes):
            scores = (values @ average).tocsc()
            scores.data = np.round(scores.data, DECIMALS)
            by_set.add(scores, is_hit[is_own])
    gene_table = by_gene.table(genes.names, {"gene_id": genes.ids.astype(str)})
    return gene_table, by_set.table(list(sizes), {"n_genes": list(sizes.values())})


def _read_slide(
    tables: Mapping[str, "AnnData"], genes: GeneChoice, is_own: np.ndarray, layer: str | None
) -> "csr_matrix":
    """Return log1p of counts per 10,000 (n, n_genes) of the spots of one slide."""
    from scipy.sparse import vstack

    parts = []
    first = 0
    for label, table in tables.items():
        rows = np.flatnonzero(is_own[first : first + table.n_obs])
        if len(rows):
            columns = genes.columns[label]
            parts += [block[:, columns] for block in log_normalized_blocks(table, layer, rows)]
        first += table.n_obs
    return vstack(parts, format="csr")


def _average_sets(
    tables: Mapping[str, "AnnData"], genes: GeneChoice, gene_sets: Mapping[str, Sequence[str]]
) -> tuple[dict[str, int], "csr_matrix"]:
    """Return the number of measured genes of each usable set, and weights that average over them.

    The weights are (n_genes, n_sets). Sets with too few measured genes are left out with a warning.

    Raises
    ------
    ValueError
        There are sets, and none has enough measured genes.
    """
    from scipy.sparse import csr_matrix

    label, lookup = next(iter(open_lookups(tables).items()))
    position = {int(column): number for number, column in enumerate(genes.columns[label])}
    members: dict[str, list[int]] = {}
    for name, set_genes in gene_sets.items():
        columns = lookup.find(set_genes, skip_ambiguous=True).tolist()
        members[name] = sorted({position[column] for column in columns if column in position})
    small = [name for name, numbers in members.items() if len(numbers) < MIN_GENES]
    usable = {name: numbers for name, numbers in members.items() if name not in set(small)}
    if gene_sets and not usable:
        raise ValueError(
            f"none of the {len(gene_sets)} gene sets has {MIN_GENES} genes that all references "
            "measure; check the names of their genes"
        )
    if small:
        warn(
            f"left out {count(len(small), 'gene set')} with fewer than {MIN_GENES} genes that all "
            f"references measure: {preview(small)}"
        )
    sizes = {str(name): len(numbers) for name, numbers in usable.items()}
    rows = np.array([number for numbers in usable.values() for number in numbers], dtype=int)
    columns_of = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    weights = 1 / np.repeat(np.array(list(sizes.values()), dtype=float), list(sizes.values()))
    return sizes, csr_matrix((weights, (rows, columns_of)), shape=(len(genes), len(sizes)))
