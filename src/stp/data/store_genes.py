"""Checks that a vocabulary knows the genes of training stores."""

from collections.abc import Sequence

from stp.data.store import SpotStore
from stp.genes.coverage import check_coverage, sum_by_rule
from stp.genes.matches import Names
from stp.genes.species import is_compatible
from stp.genes.vocabulary import Vocabulary


def check_genes(stores: Sequence[SpotStore], vocabulary: Vocabulary) -> None:
    """Raise ValueError if a store has another species, or too few UMIs in the vocabulary.

    A share of UMIs below 80 % is a warning, and below 50 % an error.
    """
    matches: dict[str, Names] = {}  # by digest of gene names, which most stores share
    for store in stores:
        if not is_compatible(store.species, vocabulary.species):
            raise ValueError(
                f"{store.source} has genes of {store.species}, the vocabulary is of "
                f"{vocabulary.species}; train on stores of one species, with a vocabulary of it"
            )
        if store.genes not in matches:
            matches[store.genes] = _recognize(store, vocabulary)
        rules = matches[store.genes].rule
        is_unmapped = matches[store.genes].index < 0
        umis = store.gene_umis
        if umis is not None:
            unmapped = sum_by_rule(rules[is_unmapped], umis[is_unmapped])
            check_coverage(unmapped, int(umis.sum()), n_genes=len(vocabulary), label=store.source)


def _recognize(store: SpotStore, vocabulary: Vocabulary) -> Names:
    try:
        return vocabulary.recognize(store.gene_names)
    except ValueError as error:
        raise ValueError(f"{store.source}: {error}") from error
