"""Genes that are looked up by their names."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stp._log import preview
from stp.genes.matches import Names
from stp.genes.names import GeneNames, build_gene_names

if TYPE_CHECKING:
    import pandas as pd


class NamedGenes:
    """Genes with ids, symbols and aliases, as `Vocabulary` describes them, and their look-ups."""

    gene_ids: np.ndarray
    symbols: np.ndarray
    aliases: Mapping[str, tuple[str, ...]]

    def encode(self, names: Iterable[str]) -> np.ndarray:
        """Map gene names to vocabulary indices.

        Parameters
        ----------
        names
            Ensembl ids (a version suffix is ignored), current symbols or other names, also mixed.

        Returns
        -------
        int64, shape (n_names,): the vocabulary index; -1 if the name is unknown or ambiguous.
        """
        return self._names.recognize(names).index

    def recognize(self, names: Iterable[str]) -> Names:
        """Map gene names as :meth:`encode` does, and return the rule that recognized each of them.

        Returns
        -------
        Arrays of shape (n_names,): `index`, and `rule` and `note` as in :meth:`explain`.

        Raises
        ------
        ValueError
            If the names are of another species than the vocabulary, or it has none of them.
        """
        return self._names.require(names)

    def explain(self, names: Iterable[str]) -> "pd.DataFrame":
        """Show which gene each name maps to, and by which rule.

        Returns
        -------
        A row per name: `gene_id` and `symbol` ("" if the name is not mapped), `rule` (how it was
        recognized, or why it was not) and `note` (the genes that it may stand for).
        """
        import pandas as pd

        names = [str(name) for name in names]
        index, rule, note = self._names.recognize(names)
        columns = {
            "gene_id": np.where(index >= 0, self.gene_ids[index], ""),
            "symbol": np.where(index >= 0, self.symbols[index], ""),
            "rule": rule,
            "note": note,
        }
        return pd.DataFrame(columns, index=names)

    @property
    def species(self) -> str | None:
        """Species of the ids or symbols, such as "human"; None if they do not show it."""
        return self._names.species

    @cached_property
    def _names(self) -> GeneNames:
        return build_gene_names(
            tuple(self.gene_ids), tuple(self.symbols), tuple(self.aliases.items())
        )

    def _check_names(self) -> None:
        """Raise ValueError if ids repeat, or aliases are of genes without an id here."""
        repeated = [gene_id for gene_id, count in Counter(self.gene_ids).items() if count > 1]
        if repeated:
            raise ValueError(f"gene ids must be unique, these repeat: {preview(repeated)}")
        strangers = set().union(*self.aliases.values()).difference(self.gene_ids)
        if strangers:
            raise ValueError(f"aliases of genes outside the vocabulary: {preview(strangers)}")
