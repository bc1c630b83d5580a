"""The genes that a model knows: their ids in order, their names, and their mean counts."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.genes.names import GeneNames, Names, book_of, some, unversioned
from stp.genes.special_tokens import N_SPECIAL
from stp.genes.vocabulary_file import (
    genes_by_name,
    names_by_gene,
    read_columns,
    with_aliases,
    write_columns,
)
from stp.tables.counts import get_counts, sum_genes
from stp.tables.table import gene_names, get_tables

if TYPE_CHECKING:
    import pandas as pd

MAX_GENES = 2**16 - 1 - N_SPECIAL  # tokens are uint16
_DTYPES = {"gene_ids": object, "symbols": object, "means": np.float64, "n_detected": np.int64}


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary:
    """The ordered genes of a model, with their names and mean counts. Arrays are read-only.

    Attributes
    ----------
    gene_ids
        Unique Ensembl ids without version suffix, shape (n_genes,); the position is the vocabulary index.
    symbols
        Current gene symbols, shape (n_genes,); "" where unknown.
    means
        Mean raw count over the spots that detect the gene, float64, shape (n_genes,); NaN where none does.
    n_detected
        Number of spots that detect the gene, int64, shape (n_genes,).
    aliases
        Alternate name -> ids of the genes it may mean, in vocabulary order; ambiguous where there are several.
    round_means
        Whether :meth:`divisors` rounds the means, as the released STAMP weights need.
    corpus
        What the means were computed on, a label per table.

    Raises
    ------
    ValueError
        If gene ids repeat, there are more than 65,505 (tokens are uint16), or shapes disagree.

    Examples
    --------
    >>> index = stp.Vocabulary.default().encode(["HER2", "ENSG00000141736.14"])
    """

    gene_ids: np.ndarray
    symbols: np.ndarray
    means: np.ndarray | None = None
    n_detected: np.ndarray | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    round_means: bool = False
    corpus: tuple[str, ...] = ()

    def __post_init__(self):
        for name, dtype in _DTYPES.items():
            if (values := getattr(self, name)) is not None:
                # Frozen copies: the digest must stay true.
                array = np.array(values, dtype)
                array.flags.writeable = False
                object.__setattr__(self, name, array)
                if array.shape != (len(self),):
                    raise ValueError(f"{name} has shape {array.shape}, expected ({len(self)},)")
        if len(self) > MAX_GENES:
            raise ValueError(
                f"{len(self)} genes are more than uint16 tokens can number ({MAX_GENES})"
            )
        if repeated := [gene for gene, count in Counter(self.gene_ids).items() if count > 1]:
            raise ValueError(f"gene ids must be unique, these repeat: {some(repeated)}")
        if strangers := set().union(*self.aliases.values()).difference(self.gene_ids):
            raise ValueError(f"aliases of genes outside the vocabulary: {some(strangers)}")

    def __len__(self) -> int:
        return len(self.gene_ids)

    def __repr__(self) -> str:
        means = (
            "no means"
            if self.means is None
            else f"means of {some(self.corpus) or 'unknown origin'}"
        )
        return f"Vocabulary({len(self)} genes, {means}, digest {self.digest[:12]})"

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self)

    @property
    def n_special(self) -> int:
        """Number of special token ids before the genes."""
        return N_SPECIAL

    @property
    def n_tokens(self) -> int:
        """Number of token ids, special ones and genes."""
        return len(self) + N_SPECIAL

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of gene ids, means and their rounding, which decide tokens."""
        digest = hashlib.sha256("\n".join(self.gene_ids).encode())
        if self.means is not None:
            # One bit pattern for every NaN: 0/0 has another sign on another CPU.
            digest.update(
                b"\0means"
                + np.where(np.isnan(self.means), np.nan, self.means).astype("<f8").tobytes()
            )
        digest.update(b"\0rounded" if self.round_means else b"\0exact")
        return digest.hexdigest()

    def divisors(self) -> np.ndarray:
        """Return what counts are divided by to rank genes.

        Returns
        -------
        float64, shape (n_genes,): the means, rounded half up if `round_means`; 1 for a gene never detected.

        Raises
        ------
        ValueError
            If there are no means.
        """
        if self.means is None:
            raise ValueError(
                "this vocabulary has no means to rank genes by; Vocabulary.fit(data) computes them"
            )
        means = np.nan_to_num(np.floor(self.means + 0.5) if self.round_means else self.means)
        return np.where(means > 0, means, 1.0)

    def encode(self, names: Iterable[str]) -> np.ndarray:
        """Map gene names to vocabulary indices.

        Parameters
        ----------
        names
            Ensembl ids (a version suffix is ignored), current symbols or other names, also mixed.

        Returns
        -------
        int64, shape (n_names,): the vocabulary index; -1 for a name that is unknown or ambiguous.
        """
        return self._book.recognize(names).index

    def recognize(self, names: Iterable[str]) -> Names:
        """Map gene names as :meth:`encode` does, and tell by which rule; refuse those of another species.

        Raises
        ------
        ValueError
            If the names belong to another species than the vocabulary, or none of them is in it.
        """
        return self._book.require(names)

    def explain(self, names: Iterable[str]) -> "pd.DataFrame":
        """Tell what each gene name is taken for.

        Returns
        -------
        A row per name: `gene_id` and `symbol` ("" where unmapped), `rule` (how it was recognized, or why it was not)
        and `note` (what it may stand for).
        """
        import pandas as pd

        names = [str(name) for name in names]
        index, rule, note = self._book.recognize(names)
        gene_id, symbol = (
            np.where(index >= 0, values[index], "") for values in (self.gene_ids, self.symbols)
        )
        return pd.DataFrame(
            {"gene_id": gene_id, "symbol": symbol, "rule": rule, "note": note}, index=names
        )

    @cached_property
    def _book(self) -> GeneNames:
        return book_of(tuple(self.gene_ids), tuple(self.symbols), tuple(self.aliases.items()))

    @classmethod
    def default(cls) -> "Vocabulary":
        """Return the packaged vocabulary, without means: human protein-coding genes, mitochondrial ones included.

        Source: Bioconductor's org.Hs.eg.db 3.16 (NCBI Gene, September 2022).
        """
        return cls.load(Path(__file__).with_name("human_genes.parquet"))

    @classmethod
    def from_genes(
        cls, gene_ids: Iterable[str], symbols: Iterable[str] | None = None
    ) -> "Vocabulary":
        """Make a vocabulary of genes of any species, in the order given.

        Parameters
        ----------
        gene_ids
            Unique ids, at most 65,505; Ensembl ids lose their version suffix.
        symbols
            A symbol per id, "" where unknown.
        """
        ids = np.array([unversioned(str(gene)) for gene in gene_ids], object)
        names = [""] * len(ids) if symbols is None else list(map(str, symbols))
        return cls(ids, np.array(names, object))

    def fit(
        self,
        data: Any,
        *,
        table_key: str = "table",
        layer: str | None = None,
        gene_ids_key: str | None = None,
    ) -> "Vocabulary":
        """Compute each gene's mean count over the spots that detect it.

        Parameters
        ----------
        data
            AnnData, SpatialData or path of a SpatialData zarr store, or a sequence of these; read in blocks of rows.
            Columns that name the same gene are summed first.
        table_key
            Table of a SpatialData.
        layer
            Layer with the raw counts; `X` if `None`.
        gene_ids_key
            Column of `var` with the gene names; if `None`, `gene_ids` where it holds Ensembl ids, else `var_names`.

        Returns
        -------
        A new vocabulary: this one with `means`, `n_detected` and `corpus`.

        Raises
        ------
        ValueError
            If there is no data, a table knows none of the genes, or holds anything but raw counts.
        """
        sums, corpus = np.zeros((2, len(self)), np.int64), []
        for label, adata in get_tables(data, table_key):
            index = self.recognize(gene_names(adata, gene_ids_key)).index
            sums += sum_genes(get_counts(adata, layer), index, len(self))
            corpus.append(label)
        if not corpus:
            raise ValueError("no data to compute means on")
        return self._with_sums(sums, corpus)

    @classmethod
    def merge(cls, parts: Iterable["Vocabulary"]) -> "Vocabulary":
        """Combine vocabularies that were fitted on parts of a corpus, on several machines say.

        Parameters
        ----------
        parts
            Vocabularies of the same genes, each fitted on data of its own.

        Returns
        -------
        The vocabulary that :meth:`fit` on all the data would have given, to the last bit.

        Raises
        ------
        ValueError
            If there are no parts, their genes differ, or one has no means.
        """
        if not (parts := list(parts)):
            raise ValueError("no vocabularies to merge")
        sums = []
        for part in parts:
            if part.means is None or part.n_detected is None:
                raise ValueError(
                    "a vocabulary without means cannot be merged; Vocabulary.fit(data) computes them"
                )
            if not np.array_equal(part.gene_ids, parts[0].gene_ids):
                raise ValueError("vocabularies of different genes cannot be merged")
            # A mean is the nearest float64 to sum / n, so the sum, an integer below 2**51, is the nearest to mean * n.
            sums.append((np.rint(np.nan_to_num(part.means) * part.n_detected), part.n_detected))
        return parts[0]._with_sums(
            np.sum(sums, axis=0), [label for part in parts for label in part.corpus]
        )

    def grow(self, other: "Vocabulary") -> "Vocabulary":
        """Return this vocabulary with the genes of another appended that it lacks; see :func:`stp.models.grow`.

        Means of genes that both have stay as they are here. ValueError where one of the two has means, one none.
        """
        if not isinstance(other, Vocabulary):
            raise TypeError("grow takes a Vocabulary; Vocabulary.from_genes(gene_ids) makes one")
        if (self.means is None) != (other.means is None):
            raise ValueError(
                "one vocabulary has means and the other has none; Vocabulary.fit(data) computes them"
            )
        new = ~np.isin(other.gene_ids, self.gene_ids)
        columns: dict[str, Any] = {
            name: (getattr(self, name), getattr(other, name)) for name in _DTYPES
        }
        columns = {
            name: None if a is None or b is None else np.append(a, b[new])
            for name, (a, b) in columns.items()
        }
        aliases = with_aliases(self.aliases, other.aliases, other.gene_ids[new])
        return replace(self, **columns, aliases=aliases, corpus=(*self.corpus, *other.corpus))

    def _with_sums(self, sums: np.ndarray, corpus: list[str]) -> "Vocabulary":
        """Return a copy with the means that follow from UMIs and detecting spots per gene, (2, n_genes)."""
        total, detected = sums
        means = np.divide(total, detected, out=np.full(len(self), np.nan), where=detected > 0)
        return replace(
            self, means=means, n_detected=detected.astype(np.int64), corpus=tuple(corpus)
        )

    def save(self, path: str | Path) -> None:
        """Write one parquet file: a row per gene, the rest in its metadata."""
        columns = {
            name: getattr(self, name).tolist()
            for name in _DTYPES
            if getattr(self, name) is not None
        }
        about = {"round_means": self.round_means, "corpus": self.corpus, "digest": self.digest}
        write_columns(
            path, columns | {"aliases": names_by_gene(self.gene_ids, self.aliases)}, about
        )

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a file that :meth:`save` wrote; ValueError where it is no vocabulary, or not the one that was saved."""
        columns, about = read_columns(path)
        try:
            columns["aliases"] = genes_by_name(columns["gene_ids"], columns["aliases"])
            vocabulary = cls(
                **columns, round_means=about["round_means"], corpus=tuple(about["corpus"])
            )
            if vocabulary.digest != about["digest"]:
                raise ValueError("its genes and means are not those that were saved")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        return vocabulary
