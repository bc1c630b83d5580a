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

from stp._table import count_blocks, gene_names, get_table

if TYPE_CHECKING:
    from anndata import AnnData

# The only definition of the token ids (method.md section 1): on disk 0 pads; in the model 0 masks and 1 pads.
N_SPECIAL = 30  # special ids before the genes: token = vocabulary index + N_SPECIAL
PAD = 0  # padding on disk
MASK_ID = 0  # a masked gene in the model
PAD_ID = 1  # padding in the model
MAX_GENES = np.iinfo(np.uint16).max - N_SPECIAL  # tokens are uint16 on disk

_VERSIONED = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")
_METADATA = b"stp_vocabulary"
_HUMAN = Path(__file__).with_name("human_genes.parquet")


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary:
    """The ordered genes of a model, with their names and mean counts; arrays are read-only.

    Attributes
    ----------
    gene_ids
        Ensembl ids without version suffix, shape (n_genes,), unique; the position is the vocabulary index.
    symbols
        Current gene symbols, shape (n_genes,); "" where unknown.
    means
        Mean raw count over the spots that detect the gene, float64, shape (n_genes,); NaN where no spot does.
        `None` until :meth:`fit`.
    n_detected
        Number of spots that detect the gene, int64, shape (n_genes,).
    aliases
        Alternate name -> ids of the genes it may mean, in vocabulary order; ambiguous where there are several.
    round_means
        Whether counts are divided by means rounded half up, as the released STAMP weights need.
    corpus
        What the means were computed on: one label per table.

    Raises
    ------
    ValueError
        If gene ids repeat, are more than uint16 tokens can number (65,505), or shapes disagree.
    """

    gene_ids: np.ndarray
    symbols: np.ndarray
    means: np.ndarray | None = None
    n_detected: np.ndarray | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    round_means: bool = False
    corpus: tuple[str, ...] = ()

    def __post_init__(self):
        for name, dtype in {"gene_ids": object, "symbols": object, "means": np.float64, "n_detected": np.int64}.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _read_only(getattr(self, name), dtype))
                if getattr(self, name).shape != (len(self),):
                    raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected ({len(self)},)")
        _check_genes(self.gene_ids)
        if unknown := set().union(*self.aliases.values()).difference(self.gene_ids):
            raise ValueError(f"aliases name genes outside the vocabulary: {_some(unknown)}")

    def __len__(self) -> int:
        return len(self.gene_ids)

    def __repr__(self) -> str:
        means = "no means" if self.means is None else f"means of {', '.join(self.corpus) or 'an unnamed corpus'}"
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
        """Number of token ids: the special ones and the genes."""
        return len(self) + N_SPECIAL

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that decides tokens: gene ids, means and their rounding."""
        digest = hashlib.sha256("\n".join(self.gene_ids).encode())
        if self.means is not None:
            # One bit pattern for every NaN: the sign of an invalid division differs between CPUs.
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
            If the vocabulary has no means.
        """
        if self.means is None:
            raise ValueError("this vocabulary has no means to rank genes by; Vocabulary.fit(data) computes them")
        means = np.nan_to_num(self.means, nan=0.0)
        if self.round_means:
            # floor(x + 0.5) would round the largest number below one half up.
            means = np.floor(means) + (means - np.floor(means) >= 0.5)
        return np.where(means > 0, means, 1.0)

    def encode(self, names: Iterable[str]) -> np.ndarray:
        """Map gene names to vocabulary indices.

        Parameters
        ----------
        names
            Ensembl ids (a version suffix is ignored), symbols or aliases, also mixed. A current symbol beats an alias.

        Returns
        -------
        int64, shape (n_names,): the vocabulary index; -1 for a name that is unknown or ambiguous.
        """
        index = self._index
        return np.array([index.get(name, index.get(_unversioned(name), -1)) for name in map(str, names)], np.int64)

    @cached_property
    def _index(self) -> dict[str, int]:
        """Every known name -> vocabulary index, or -1 where ambiguous; ids beat symbols, symbols beat aliases."""
        ids = {gene: position for position, gene in enumerate(self.gene_ids)}
        index = {name: ids[genes[0]] if len(genes) == 1 else -1 for name, genes in self.aliases.items()}
        symbols: dict[str, int] = {}
        for position, symbol in enumerate(self.symbols):
            symbols[symbol] = -1 if symbol in symbols else position
        symbols.pop("", None)
        return index | symbols | ids

    @classmethod
    def default(cls) -> "Vocabulary":
        """Return the packaged vocabulary, without means: human protein-coding and mitochondrial protein genes."""
        return cls.load(_HUMAN)

    @classmethod
    def from_genes(cls, gene_ids: Iterable[str], symbols: Iterable[str] | None = None) -> "Vocabulary":
        """Make a vocabulary of any species from a list of genes, in the order given.

        Parameters
        ----------
        gene_ids
            Unique gene ids, at most 65,505; the version suffix of Ensembl ids is removed.
        symbols
            One symbol per id, "" where unknown.

        Raises
        ------
        ValueError
            If an id repeats, or there are too many, or `symbols` is of another length.
        """
        ids = [_unversioned(str(gene)) for gene in gene_ids]
        return cls(ids, [""] * len(ids) if symbols is None else [str(symbol) for symbol in symbols])

    def fit(
        self, data: Any, *, table_key: str = "table", layer: str | None = None, gene_ids_key: str | None = None
    ) -> "Vocabulary":
        """Compute the mean count of every gene over the spots that detect it.

        Parameters
        ----------
        data
            AnnData, SpatialData or path of a SpatialData zarr store, or a sequence of these. Read in blocks of rows;
            columns of one gene are summed first.
        table_key
            Table of a SpatialData.
        layer
            Layer with the raw counts; `X` if `None`.
        gene_ids_key
            Column of `var` with the gene names; `var_names` if `None`.

        Returns
        -------
        A new vocabulary with `means`, `n_detected` and `corpus`; the rest is this one's.

        Raises
        ------
        ValueError
            If there is no data, counts are not raw, or no gene of a table is in the vocabulary.
        """
        total, detected = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        corpus = []
        for item in _as_list(data):
            adata = get_table(item, table_key)
            self._add_counts(adata, layer, gene_ids_key, total, detected)
            corpus.append(_label(item, adata))
        if not corpus:
            raise ValueError("no data to fit the means on")
        means = np.full(len(self), np.nan)
        np.divide(total, detected, out=means, where=detected > 0)
        return replace(self, means=means, n_detected=detected, corpus=tuple(corpus))

    def _add_counts(
        self, adata: "AnnData", layer: str | None, gene_ids_key: str | None, total: np.ndarray, detected: np.ndarray
    ) -> None:
        """Add a table's counts and detecting spots per gene; integers, so that the blocks cannot matter."""
        from scipy.sparse import csr_matrix

        index = self.encode(gene_names(adata, gene_ids_key))
        columns = np.flatnonzero(index >= 0)
        if not len(columns):
            raise ValueError(
                f"none of {_some(gene_names(adata, gene_ids_key))} is in the vocabulary; pass gene_ids_key="
            )
        merge = csr_matrix((np.ones(len(columns), np.int64), (columns, index[columns])), (len(index), len(self)))
        for block in count_blocks(adata, layer):
            genes = block.astype(np.int64) @ merge
            total += np.asarray(genes.sum(axis=0)).ravel()
            detected += genes.getnnz(axis=0)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as one parquet file: a row per gene, the rest in the file's metadata."""
        import pyarrow as pa
        from pyarrow import parquet

        names: dict[str, list[str]] = {gene: [] for gene in self.gene_ids}
        for name, genes in self.aliases.items():
            for gene in genes:
                names[gene].append(name)
        columns = {"gene_id": pa.array(self.gene_ids, pa.string()), "symbol": pa.array(self.symbols, pa.string())}
        columns |= {} if self.means is None else {"mean": pa.array(self.means)}
        columns |= {} if self.n_detected is None else {"n_detected": pa.array(self.n_detected)}
        columns["aliases"] = pa.array(names.values(), pa.list_(pa.string()))
        about = {"round_means": self.round_means, "corpus": self.corpus, "digest": self.digest}
        table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(about)})
        parquet.write_table(table, path, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a vocabulary that :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the file is no vocabulary, or its content is not what was saved.
        """
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = parquet.ParquetFile(path).read()
            about = json.loads(table.schema.metadata[_METADATA])
        except (pa.ArrowInvalid, IsADirectoryError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no vocabulary; Vocabulary.save writes one") from error
        ids, symbols, means, n_detected = (
            table[name].to_numpy() if name in table.column_names else None
            for name in ("gene_id", "symbol", "mean", "n_detected")
        )
        aliases = _genes_of(zip(ids, table["aliases"].to_pylist(), strict=True))
        vocabulary = cls(ids, symbols, means, n_detected, aliases, about["round_means"], tuple(about["corpus"]))
        if vocabulary.digest != about["digest"]:
            raise ValueError(f"{path} does not hold the vocabulary that was saved: its digest differs")
        return vocabulary


def _genes_of(names_of: Iterable[tuple[str, Iterable[str]]]) -> dict[str, tuple[str, ...]]:
    """Turn (gene, names) pairs into name -> genes."""
    genes: dict[str, tuple[str, ...]] = {}
    for gene, names in names_of:
        for name in names:
            genes[name] = (*genes.get(name, ()), gene)
    return genes


def _read_only(values: Iterable, dtype: type) -> np.ndarray:
    """Copy into an array that refuses writing: the digest of a vocabulary must stay true."""
    array = np.array(values, dtype)
    array.flags.writeable = False
    return array


def _check_genes(gene_ids: np.ndarray) -> None:
    if len(gene_ids) > MAX_GENES:
        raise ValueError(f"{len(gene_ids)} genes are more than uint16 tokens can number ({MAX_GENES})")
    if repeated := [gene for gene, count in Counter(gene_ids).items() if count > 1]:
        raise ValueError(f"gene ids must be unique, these repeat: {_some(repeated)}")


def _unversioned(name: str) -> str:
    match = _VERSIONED.fullmatch(name)
    return match[1] if match else name


def _some(names: Iterable[str]) -> str:
    """Name the first few of many."""
    names = list(names)
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _as_list(data: Any) -> list:
    single = isinstance(data, str | Path) or hasattr(data, "obs_names") or hasattr(data, "tables")
    return [data] if single else list(data)


def _label(data: Any, adata: "AnnData") -> str:
    """Name a table of the corpus: by its file if it has one, by its shape otherwise."""
    path = data if isinstance(data, str | Path) else getattr(data, "path", None) or adata.filename
    return Path(path).name if path else f"{adata.n_obs} spots x {adata.n_vars} genes"
