"""Correlate contributions of measured spots with measured genes, within slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stp.genes.gene_choice import choose_genes
from stp.genes.gene_lookup import GeneLookup
from stp.metrics._shifts import MIN_SHIFTS, shifted_correlations
from stp.tables.features import find_genes
from stp.tables.profiles import profiles
from stp.tl._gene_effects import GeneEffects, describe_effects, mean_by_patient
from stp.tl._slide_outputs import ExplainedOutput
from stp.tl._spot_contributions import SlideSpots
from stp.tl._tile_genes import group_genes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MIN_DETECTED = 10  # spots of a slide in which a gene must be detected
BLOCK = 1024  # genes or sets whose values are in memory at a time


@dataclass(frozen=True)
class MeasuredGenes:
    """The measured genes, or gene sets, of a table.

    Parameters
    ----------
    table
        The table.
    layer
        Layer with the measured values; None for `X`.
    names
        Names of the genes or sets.
    groups
        Columns of the table of each.
    """

    table: "AnnData"
    layer: str | None
    names: list[str]
    groups: list[np.ndarray]

    @classmethod
    def of(
        cls, table: "AnnData", layer: str | None, gene_sets: Mapping[str, Sequence[str]] | None
    ) -> "MeasuredGenes":
        """Return all genes of a table by their symbols if these are known, or sets of them."""
        if gene_sets is None:
            columns = np.flatnonzero(find_genes(table))
            choice = choose_genes({"adata": table}, table.var_names[columns])
            names = [str(name) for name in choice.names]
            return cls(table, layer, names, [np.array([column]) for column in columns])
        lookup = GeneLookup(table)
        positions = {
            name: lookup.find(genes, skip_ambiguous=True) for name, genes in gene_sets.items()
        }
        label = "the table"
        names, groups = group_genes([str(name) for name in table.var_names], positions, label)
        return cls(table, layer, names, groups)

    def read(self, block: slice, rows: np.ndarray) -> np.ndarray:
        """Return the values (n_rows, n_names) of a block of genes or sets.

        Genes that few of these spots detect are constant: their ranks say little.
        """
        groups = self.groups[block]
        columns = np.concatenate(groups)
        values = np.concatenate(list(profiles(self.table, self.layer, columns, rows)))
        ends = np.cumsum([len(group) for group in groups])
        starts = ends - [len(group) for group in groups]
        sizes = ends - starts
        means = np.add.reduceat(values, starts, axis=1) / sizes
        is_rare = (means != 0).sum(axis=0) < MIN_DETECTED
        means[:, is_rare] = 0
        return means


@dataclass(frozen=True)
class SpotEffects:
    """Effects of genes in each slide, and p-values over all of them.

    Parameters
    ----------
    correlation
        Rank correlations (n_slides, n_outputs, n_genes).
    p
        P-values (n_outputs, n_genes) of their mean over slides.
    """

    correlation: np.ndarray
    p: np.ndarray


def rank_genes(
    spots: Sequence[SlideSpots], genes: MeasuredGenes, n_shifts: int, seed: int
) -> SpotEffects:
    """Correlate contributions with genes in all slides, and with those of shifted maps.

    Raises
    ------
    ValueError
        The map of a slide has too few shifts.
    """
    n_outputs = spots[0].contributions.shape[1]
    correlation = np.full((len(spots), n_outputs, len(genes.names)), np.nan)
    p = np.full(correlation.shape[1:], np.nan)
    for start in range(0, len(genes.names), BLOCK):
        block = slice(start, min(start + BLOCK, len(genes.names)))
        values = [genes.read(block, slide.rows) for slide in spots]
        for output in range(n_outputs):
            observed, null = _correlate_slides(spots, values, output, n_shifts, seed)
            correlation[:, output, block] = observed
            p[output, block] = _p_of_mean(observed, null)
    return SpotEffects(correlation, p)


def describe_genes(
    outputs: Sequence[ExplainedOutput],
    genes: MeasuredGenes,
    effects: SpotEffects,
    model_p: np.ndarray,
    seed: int,
) -> "pd.DataFrame":
    """Return a row per output and gene, strongest first."""
    import pandas as pd

    frames = []
    for number, output in enumerate(outputs):
        values = effects.correlation[:, number]
        part = GeneEffects(values, values, np.arange(len(values)))
        by_slide = mean_by_patient(part)
        p = effects.p[number]
        table = describe_effects(part, by_slide, genes.names, p, float(model_p[number]), seed)
        table = table.drop(columns="n_patients")
        table.insert(0, "output", output.label)
        table.insert(0, "target", output.target.name)
        frames.append(table)
    table = pd.concat(frames, ignore_index=True)
    table.index = table.index.astype(str)
    return table


def _correlate_slides(
    spots: Sequence[SlideSpots],
    values: Sequence[np.ndarray],
    output: int,
    n_shifts: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return correlations (n_slides, n_genes), and those of shifts (n_slides, n_shifts, n_genes).

    The correlations of shifts have mean 0. A slide with fewer shifts repeats some.
    """
    observed = np.empty((len(spots), values[0].shape[1]))
    null = np.empty((len(spots), n_shifts, values[0].shape[1]))
    for number, (slide, genes) in enumerate(zip(spots, values, strict=True)):
        result = shifted_correlations(
            slide.contributions[:, output],
            genes,
            slide.cells,
            n_shifts=n_shifts,
            seed=(seed, number),
        )
        if len(result.null) < MIN_SHIFTS:
            raise ValueError(
                f"the map of the slide {slide.name!r} has only {len(result.null)} shifts that "
                f"keep a quarter of its spots, and {MIN_SHIFTS} are needed; leave the slide out"
            )
        center = result.null.mean(axis=0)
        observed[number] = result.correlation
        rng = np.random.default_rng((seed, number))
        drawn = rng.permutation(np.resize(np.arange(len(result.null)), n_shifts))
        null[number] = result.null[drawn] - center
    return observed, null


def _p_of_mean(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of each gene (n_genes,) from shifts in all slides at once."""
    is_finite = np.isfinite(observed)
    n = is_finite.sum(axis=0)
    mean = np.where(is_finite, observed, 0).sum(axis=0) / np.maximum(n, 1)
    null_mean = np.where(is_finite[:, None], null, 0).sum(axis=0) / np.maximum(n, 1)
    n_larger = (np.abs(null_mean) >= np.abs(mean) - 1e-12).sum(axis=0)
    return np.where(n > 0, (n_larger + 1) / (len(null_mean) + 1), np.nan)
