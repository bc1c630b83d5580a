"""The genes that a model knows: their ids in order, their names, and their mean counts."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._keys import N_SPECIAL
from stp._table import count_blocks, gene_names, get_table

if TYPE_CHECKING:
    from anndata import AnnData

MAX_GENES = 2**16 - 1 - N_SPECIAL  # tokens are uint16

_DTYPES = {"gene_ids": object, "symbols": object, "means": np.float64, "n_detected": np.int64}
_VERSIONED = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")
_METADATA = b"stp_vocabulary"


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
            raise ValueError(f"{len(self)} genes are more than uint16 tokens can number ({MAX_GENES})")
        if repeated := [gene for gene, count in Counter(self.gene_ids).items() if count > 1]:
            raise ValueError(f"gene ids must be unique, these repeat: {_some(repeated)}")
        if strangers := set().union(*self.aliases.values()).difference(self.gene_ids):
            raise ValueError(f"aliases of genes outside the vocabulary: {_some(strangers)}")

    def __len__(self) -> int:
        return len(self.gene_ids)

    def __repr__(self) -> str:
        means = "no means" if self.means is None else f"means of {_some(self.corpus) or 'unknown origin'}"
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
        """SHA-256 (hexadecimal) of all that decides tokens: gene ids, means and their rounding."""
        digest = hashlib.sha256("\n".join(self.gene_ids).encode())
        if self.means is not None:
            # One bit pattern for every NaN: 0/0 has another sign on another CPU.
            digest.update(b"\0means" + np.where(np.isnan(self.means), np.nan, self.means).astype("<f8").tobytes())
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
            raise ValueError("this vocabulary has no means to rank genes by; Vocabulary.fit(data) computes them")
        means = np.nan_to_num(self.means)
        if self.round_means:
            means = np.floor(means + 0.5)
        return np.where(means > 0, means, 1.0)

    def encode(self, names: Iterable[str]) -> np.ndarray:
        """Map gene names to vocabulary indices.

        Parameters
        ----------
        names
            Ensembl ids (a version suffix is ignored), current symbols or aliases, also mixed; case matters.
            A current symbol beats an alias.

        Returns
        -------
        int64, shape (n_names,): the vocabulary index; -1 for a name that is unknown or ambiguous.
        """
        known = self._known
        return np.array([known.get(name, known.get(_unversioned(name), -1)) for name in map(str, names)], np.int64)

    @cached_property
    def _known(self) -> dict[str, int]:
        """Name -> vocabulary index, -1 where ambiguous; ids beat symbols, symbols beat aliases."""
        ids = {gene: index for index, gene in enumerate(self.gene_ids)}
        counts = Counter(self.symbols)
        symbols = {symbol: i if counts[symbol] == 1 else -1 for i, symbol in enumerate(self.symbols) if symbol}
        aliases = {name: ids[genes[0]] if len(genes) == 1 else -1 for name, genes in self.aliases.items()}
        return aliases | symbols | ids

    @classmethod
    def default(cls) -> "Vocabulary":
        """Return the packaged vocabulary, without means: human protein-coding genes, mitochondrial ones included.

        Source: Bioconductor's org.Hs.eg.db 3.16 (NCBI Gene, September 2022).
        """
        return cls.load(Path(__file__).with_name("human_genes.parquet"))

    @classmethod
    def from_genes(cls, gene_ids: Iterable[str], symbols: Iterable[str] | None = None) -> "Vocabulary":
        """Make a vocabulary of genes of any species, in the order given.

        Parameters
        ----------
        gene_ids
            Unique ids, at most 65,505; Ensembl ids lose their version suffix.
        symbols
            A symbol per id, "" where unknown.
        """
        ids = [_unversioned(str(gene)) for gene in gene_ids]
        return cls(ids, [""] * len(ids) if symbols is None else [str(symbol) for symbol in symbols])

    def fit(
        self, data: Any, *, table_key: str = "table", layer: str | None = None, gene_ids_key: str | None = None
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
            Column of `var` with the gene names; `var_names` if `None`.

        Returns
        -------
        A new vocabulary: this one with `means`, `n_detected` and `corpus`.

        Raises
        ------
        ValueError
            If there is no data, a table knows none of the genes, or holds anything but raw counts.
        """
        total, detected, corpus = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64), []
        for item in _as_list(data):
            adata = get_table(item, table_key)
            for genes in self._gene_blocks(adata, layer, gene_ids_key):
                # Integers: the partition into blocks cannot change the sums.
                total += np.asarray(genes.sum(axis=0)).ravel()
                detected += genes.getnnz(axis=0)
            corpus.append(_label(item, adata))
        if not corpus:
            raise ValueError("no data to compute means on")
        means = np.divide(total, detected, out=np.full(len(self), np.nan), where=detected > 0)
        return replace(self, means=means, n_detected=detected, corpus=tuple(corpus))

    def _gene_blocks(self, adata: "AnnData", layer: str | None, gene_ids_key: str | None):
        """Yield row blocks of counts as int64 CSR, shape (n_rows, n_genes), columns in vocabulary order."""
        from scipy.sparse import csr_matrix

        names = gene_names(adata, gene_ids_key)
        index = self.encode(names)
        columns = np.flatnonzero(index >= 0)
        if not len(columns):
            raise ValueError(f"no gene of the table is in the vocabulary: {_some(names)}; pass gene_ids_key=")
        merge = csr_matrix((np.ones(len(columns), np.int64), (columns, index[columns])), (len(index), len(self)))
        for block in count_blocks(adata, layer):
            yield block.astype(np.int64) @ merge

    def save(self, path: str | Path) -> None:
        """Write one parquet file: a row per gene, the rest in its metadata."""
        import pyarrow as pa
        from pyarrow import parquet

        names: dict[str, list[str]] = {gene: [] for gene in self.gene_ids}
        for name, genes in self.aliases.items():
            for gene in genes:
                names[gene].append(name)
        columns = {name: getattr(self, name).tolist() for name in _DTYPES if getattr(self, name) is not None}
        about = {"round_means": self.round_means, "corpus": self.corpus, "digest": self.digest}
        table = pa.table(columns | {"aliases": pa.array(map(sorted, names.values()), pa.list_(pa.string()))})
        table = table.replace_schema_metadata({_METADATA: json.dumps(about)})
        parquet.write_table(table, path, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the file is no vocabulary, or not the one that was saved.
        """
        from pyarrow import parquet

        try:
            table = parquet.ParquetFile(path).read()
            about = json.loads(table.schema.metadata[_METADATA])
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no vocabulary; Vocabulary.save writes one") from error
        columns = table.to_pydict()
        aliases: dict[str, tuple[str, ...]] = {}
        for gene, names in zip(columns["gene_ids"], columns.pop("aliases"), strict=True):
            for name in names:
                aliases[name] = (*aliases.get(name, ()), gene)
        digest = about.pop("digest")
        vocabulary = cls(**columns, aliases=aliases, round_means=about["round_means"], corpus=tuple(about["corpus"]))
        if vocabulary.digest != digest:
            raise ValueError(f"{path} is damaged: its genes and means are not those that were saved")
        return vocabulary


def _unversioned(name: str) -> str:
    match = _VERSIONED.fullmatch(name)
    return match[1] if match else name


def _some(names: Iterable[str]) -> str:
    """List the first few of many names."""
    names = list(names)
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _as_list(data: Any) -> list:
    single = isinstance(data, str | Path) or hasattr(data, "obs_names") or hasattr(data, "tables")
    return [data] if single else list(data)


def _label(data: Any, adata: "AnnData") -> str:
    """Name a table by its file if it has one, by its shape otherwise."""
    path = data if isinstance(data, str | Path) else getattr(data, "path", None) or adata.filename
    return Path(path).name if path else f"{adata.n_obs} spots x {adata.n_vars} genes"
