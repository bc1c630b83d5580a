"""The share of UMIs that a vocabulary knows, and what the others are."""

from collections.abc import Mapping

import numpy as np

from stp._log import warn
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


def check_coverage(unmapped: Mapping[str, int], total: int, label: str = "") -> float:
    """Return the share of UMIs in genes of the vocabulary, and warn if it is below 80 %.

    Parameters
    ----------
    unmapped
        UMIs of the names without a gene, by the reason.
    total
        UMIs of all genes.
    label
        Name of the table, for messages.

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


def _main_reasons(unmapped: Mapping[str, int], total: int) -> str:
    """List the three reasons with most unmapped UMIs, and their shares of all UMIs."""
    largest = sorted(sorted(unmapped), key=lambda reason: -unmapped[reason])[:3]
    return ", ".join(f"{reason} {unmapped[reason] / total:.1%}" for reason in largest)
