"""The share of UMIs that a vocabulary knows, and what the others are."""

from collections.abc import Mapping

import numpy as np

from stp._log import warn
from stp.genes.other_names import OTHER_GENE
from stp.genes.species import SPECIES

# Shares of UMIs in genes of the vocabulary.
MIN_COVERAGE = 0.5
GOOD_COVERAGE = 0.8
MAX_OTHER_SPECIES = 0.01


def sum_by_rule(rules: np.ndarray, umis: np.ndarray) -> dict[str, int]:
    """Return the UMIs of each rule.

    Parameters
    ----------
    rules
        Rule of each name, (n_names,).
    umis
        UMIs of each name, (n_names,).
    """
    labels, positions = np.unique(rules.astype(str), return_inverse=True)
    sums = np.zeros(len(labels), np.int64)
    np.add.at(sums, positions, umis.astype(np.int64))
    return dict(zip(labels.tolist(), sums.tolist(), strict=True))


def check_coverage(
    unmapped: Mapping[str, int],
    total: int,
    *,
    n_genes: int,
    label: str = "",
    training: str | None = None,
) -> float:
    """Return the share of UMIs in genes of the vocabulary, and warn if it is below 80 %.

    If most of the other UMIs are in genes that the vocabulary lacks, the message says so. Otherwise
    it lists the main reasons.

    Parameters
    ----------
    unmapped
        UMIs of the names without a gene, by the reason.
    total
        UMIs of all genes.
    n_genes
        Number of genes in the vocabulary.
    label
        Name of the table, for messages.
    training
        What the model was trained on, "" if that is unknown. None if there is only a vocabulary.

    Raises
    ------
    ValueError
        The share is below one half.
    """
    if not total:
        return 1.0
    coverage = 1 - sum(unmapped.values()) / total
    prefix = f"{label}: " if label else ""
    if coverage < GOOD_COVERAGE:
        if unmapped.get(OTHER_GENE, 0) > sum(unmapped.values()) / 2:
            message = prefix + _describe_lack(coverage, n_genes, training)
        else:
            message = (
                f"{prefix}only {coverage:.1%} of UMIs are in genes of the vocabulary "
                f"(not in it: {_main_reasons(unmapped, total)}); "
                "check species, gene names and gene_ids_key="
            )
        if coverage < MIN_COVERAGE:
            raise ValueError(message)
        warn(message)
        return coverage
    others = {species: unmapped[species] / total for species in SPECIES if species in unmapped}
    if sum(others.values()) > MAX_OTHER_SPECIES:
        shares = ", ".join(f"{species} {share:.1%}" for species, share in others.items())
        warn(f"{prefix}genes of another species are left out (share of UMIs: {shares})")
    return coverage


def _describe_lack(coverage: float, n_genes: int, training: str | None) -> str:
    """Say that the vocabulary lacks genes of the table, what it was made from, and what to do."""
    share = f"{100 * coverage:.1f} % of the UMIs of this table"
    if training is None:
        return (
            f"this vocabulary knows {n_genes} genes; they hold {share}; use one with the genes of "
            "this table, such as Vocabulary.default() for human ones"
        )
    source = f"trained on {training}" if training else "its card names no training data"
    return (
        f"this model knows {n_genes} genes; they hold {share} ({source}); use a model that was "
        "trained on such data, or add the genes with stp.models.grow and train it on them"
    )


def _main_reasons(unmapped: Mapping[str, int], total: int) -> str:
    """List the three reasons with most unmapped UMIs, and their shares of all UMIs."""
    largest = sorted(sorted(unmapped), key=lambda reason: -unmapped[reason])[:3]
    return ", ".join(f"{reason} {unmapped[reason] / total:.1%}" for reason in largest)
