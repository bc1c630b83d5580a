"""The genes that a model knows: their ids in order, their names and their mean counts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stp.genes.corpus_sums import CorpusSums, CountsQuery, sum_corpus
from stp.genes.means import append_new, compute_divisors, compute_means, recover_sums
from stp.genes.named_genes import NamedGenes
from stp.genes.special_tokens import N_SPECIAL
from stp.genes.spelling import strip_version
from stp.genes.vocabulary_file import (
    compute_digest,
    genes_by_name,
    merge_aliases,
    names_by_gene,
    read_columns,
    write_columns,
)
from stp.genes.vocabulary_summary import describe_means, vocabulary_html

MAX_GENES = 2**16 - 1 - N_SPECIAL  # tokens are uint16
_METADATA = ("round_means", "corpus", "collection", "digest")
_DTYPES = {"gene_ids": object, "symbols": object, "means": np.float64, "n_detected": np.int64}


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary(NamedGenes):
    """The ordered genes of a model, with their names and mean counts. Arrays are read-only.

    Attributes
    ----------
    gene_ids
        Unique Ensembl ids without version suffix, shape (n_genes,). The position of a gene is its
        vocabulary index.
    symbols
        Current gene symbols, shape (n_genes,); "" if unknown.
    means
        Mean raw count over the spots that detect the gene, float64, shape (n_genes,); NaN if no
        spot does.
    n_detected
        Number of spots that detect the gene, int64, shape (n_genes,).
    aliases
        Other names of genes. Each maps to the ids of the genes it may mean, in vocabulary order; a
        name of several genes is ambiguous.
    round_means
        Whether :meth:`divisors` rounds the means, as the released STAMP weights need.
    corpus
        Label of each table that the means were computed from.
    collection
        Digest, conditions and number of stores of the collection that the means were computed from;
        None without.

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
    collection: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            values = getattr(self, name)
            if values is None:
                continue
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
        self._check_names()

    def __len__(self) -> int:
        return len(self.gene_ids)

    def __repr__(self) -> str:
        means = describe_means(self.means, self.corpus)
        return f"Vocabulary({len(self)} genes, {means}, digest {self.digest[:12]})"

    def _repr_html_(self) -> str:
        means = describe_means(self.means, self.corpus)
        return vocabulary_html(self.gene_ids, self.symbols, means, self.digest)

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
        """Number of token ids: special ones and genes."""
        return len(self) + N_SPECIAL

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of gene ids, means and their rounding, which decide tokens."""
        return compute_digest(self.gene_ids, self.means, self.round_means)

    def divisors(self) -> np.ndarray:
        """Return the numbers that counts are divided by to rank genes.

        Returns
        -------
        float64, shape (n_genes,): the means, rounded half up if `round_means`; 1 for a gene that no
        spot detects.

        Raises
        ------
        ValueError
            If there are no means.
        """
        return compute_divisors(self.means, self.round_means)

    @classmethod
    @cache  # nothing can change it, and reading it takes a tenth of a second
    def default(cls) -> "Vocabulary":
        """Return the packaged vocabulary: human protein-coding genes, mitochondrial ones included.

        It has no means. Source: Bioconductor's org.Hs.eg.db 3.16 (NCBI Gene, September 2022).
        """
        return cls.load(Path(__file__).with_name("human_genes.parquet"))

    @classmethod
    def from_genes(
        cls, gene_ids: Iterable[str], symbols: Iterable[str] | None = None
    ) -> "Vocabulary":
        """Make a vocabulary from genes of any species, in the order given.

        Parameters
        ----------
        gene_ids
            Unique ids, at most 65,505; Ensembl ids lose their version suffix.
        symbols
            Symbol of each gene, "" if unknown.
        """
        ids = np.array([strip_version(str(gene_id)) for gene_id in gene_ids], object)
        names = [""] * len(ids) if symbols is None else [str(symbol) for symbol in symbols]
        return cls(ids, np.array(names, object))

    def fit(
        self,
        data: Any,
        *,
        table_key: str = "table",
        layer: str | None = None,
        gene_ids_key: str | None = "auto",
        client: Any = None,
    ) -> "Vocabulary":
        """Compute each gene's mean count over the spots that detect it.

        Parameters
        ----------
        data
            AnnData, SpatialData, path of a store, a list of these, or a collection of
            :func:`stp.io.read_collection`. Columns of the same gene are summed first.
        table_key
            Name of the table in a SpatialData.
        layer
            Layer with the raw counts; by default `X`.
        gene_ids_key
            Column of `var` with gene names; None for `var_names`; by default `gene_ids` if it
            holds Ensembl ids, else `var_names`.
        client
            Dask client whose workers read the stores; by default this process reads them.

        Returns
        -------
        A copy of this vocabulary with `means`, `n_detected`, `corpus` and `collection`.

        Raises
        ------
        ValueError
            If there is no data, a table is of another species or has values that are no raw counts,
            or less than half of its UMIs are in the genes.
        """
        query = CountsQuery(table_key, layer, gene_ids_key)
        return self._with_means(sum_corpus(self, len(self), data, query, client))

    @classmethod
    def merge(cls, parts: Iterable["Vocabulary"]) -> "Vocabulary":
        """Combine vocabularies that were fitted on parts of a corpus, for example on many machines.

        Parameters
        ----------
        parts
            Vocabularies of the same genes, each fitted on another part of the data.

        Returns
        -------
        The vocabulary that :meth:`fit` on all the data would give, to the last bit.

        Raises
        ------
        ValueError
            If there are no parts, their genes differ, or one of them has no means.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("no vocabularies to merge")
        sums = np.zeros((2, len(parts[0])), np.int64)
        for part in parts:
            if not np.array_equal(part.gene_ids, parts[0].gene_ids):
                raise ValueError("vocabularies of different genes cannot be merged")
            sums += recover_sums(part.means, part.n_detected)
        corpus = tuple(label for part in parts for label in part.corpus)
        return parts[0]._with_means(CorpusSums(sums, corpus))

    def grow(self, other: "Vocabulary") -> "Vocabulary":
        """Append the genes of another vocabulary that this one lacks; see :func:`stp.models.grow`.

        Genes that both have keep the means of this vocabulary. Both or none must have means.
        """
        if not isinstance(other, Vocabulary):
            raise TypeError("grow takes a Vocabulary; Vocabulary.from_genes(gene_ids) makes one")
        if (self.means is None) != (other.means is None):
            raise ValueError(
                "one vocabulary has means and the other has none; "
                "Vocabulary.fit(data) computes them"
            )
        is_new = ~np.isin(other.gene_ids, self.gene_ids)
        return replace(
            self,
            gene_ids=np.append(self.gene_ids, other.gene_ids[is_new]),
            symbols=np.append(self.symbols, other.symbols[is_new]),
            means=append_new(self.means, other.means, is_new),
            n_detected=append_new(self.n_detected, other.n_detected, is_new),
            aliases=merge_aliases(self.aliases, other.aliases, other.gene_ids[is_new]),
            corpus=(*self.corpus, *other.corpus),
            collection=None,
        )

    def _with_means(self, data: CorpusSums) -> "Vocabulary":
        """Return a copy with the means of some data."""
        return replace(
            self,
            means=compute_means(data.sums),
            n_detected=data.sums[1],
            corpus=data.corpus,
            collection=data.collection,
        )

    def save(self, path: str | Path) -> None:
        """Write one parquet file: a row per gene, all else in its metadata."""
        columns = {
            name: getattr(self, name).tolist()
            for name in _DTYPES
            if getattr(self, name) is not None
        }
        columns["aliases"] = names_by_gene(self.gene_ids, self.aliases)
        write_columns(path, columns, {name: getattr(self, name) for name in _METADATA})

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the file is no vocabulary, or its genes and means are not those that were saved.
        """
        columns, metadata = read_columns(path)
        try:
            columns["aliases"] = genes_by_name(columns["gene_ids"], columns["aliases"])
            vocabulary = cls(
                **columns,
                round_means=metadata["round_means"],
                corpus=tuple(metadata["corpus"]),
                collection=metadata.get("collection"),
            )
            if vocabulary.digest != metadata["digest"]:
                raise ValueError("its genes and means are not those that were saved")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        return vocabulary
