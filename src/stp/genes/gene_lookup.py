"""Look up the genes of a table by any of their names: `var_names`, Ensembl ids or symbols."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from stp._log import count
from stp.genes.species import guess_species, is_compatible
from stp.genes.spelling import strip_version
from stp.genes.table_genes import gene_names
from stp.genes.vocabulary import Vocabulary
from stp.tables.table import has_value

if TYPE_CHECKING:
    from anndata import AnnData

SYMBOL_COLUMNS = (
    "symbol",
    "symbols",
    "gene_symbol",
    "gene_symbols",
    "gene_name",
    "gene_names",
    "feature_name",
)
# Rules of `Vocabulary.explain` by which a human gene is recognized. The others are right for whole
# tables only. If several columns are one gene, a column with a rule of the first kind is taken.
BEST_RULES = ("id", "symbol")
OTHER_RULES = ("alias", "bytes", "genome prefix", "joined name", "R name")
MISSING = -1
AMBIGUOUS = -2
_ID = re.compile(r"ENS[A-Z]*G\d{11}|FBgn\d{7}")
_NUMBER = re.compile(r"\d+")  # Entrez ids and probe sets
N_SUGGESTED = 3  # unknown names for which similar names are looked for


class GeneLookup:
    """The genes of one table and all their names.

    A name is looked for among `var_names`, then among the Ensembl ids, then among the symbols. A
    human gene is also found by other and former symbols, and if the table has symbols only, by its
    Ensembl id.

    Parameters
    ----------
    adata
        Table whose `var` has the genes.
    label
        Name of the table in errors.
    """

    def __init__(self, adata: "AnnData", label: str = "adata") -> None:
        self.label = label
        self.names = np.array([str(name) for name in adata.var_names], dtype=object)
        self._adata = adata
        self._by_name = _group_columns(self.names)

    def find(self, names: Iterable[str], *, skip_ambiguous: bool = False) -> np.ndarray:
        """Return the column of each gene (n_names,), or -1 if the table does not have it.

        Parameters
        ----------
        names
            Names of any kind.
        skip_ambiguous
            Return -1 for a name of several genes.

        Raises
        ------
        ValueError
            A name is that of several genes.
        """
        texts = [str(name) for name in names]
        return self.find_genes([""] * len(texts), texts, skip_ambiguous=skip_ambiguous)

    def find_genes(
        self, ids: Iterable[str], names: Iterable[str], *, skip_ambiguous: bool = False
    ) -> np.ndarray:
        """Return the column of each gene (n_genes,), or -1 if the table does not have it.

        Parameters
        ----------
        ids
            Ensembl id of each gene, or "".
        names
            Another name of each gene. A gene of this name with another Ensembl id is not it.
        skip_ambiguous
            Return -1 for a name of several genes.

        Raises
        ------
        ValueError
            A name is that of several genes.
        """
        genes = list(zip(ids, names, strict=True))
        columns = np.array([self._find_exact(*gene) for gene in genes], dtype=np.int64)
        missing = np.flatnonzero(columns == MISSING)
        if len(missing):
            columns[missing] = self._find_human([genes[number] for number in missing])
        ambiguous = np.flatnonzero(columns == AMBIGUOUS)
        if len(ambiguous) and not skip_ambiguous:
            raise ValueError(
                f"{genes[ambiguous[0]][1]!r} is the name of several genes of {self.label}; "
                "name the gene as its var_names do"
            )
        columns[ambiguous] = MISSING
        return columns

    def require(self, names: Sequence[str]) -> np.ndarray:
        """Return the column of each gene (n_names,).

        Raises
        ------
        KeyError
            The table lacks a gene. The message suggests similar names.
        ValueError
            A name is that of several genes, or two names are those of one gene.
        """
        columns = self.find(names)
        missing = [name for name, column in zip(names, columns, strict=True) if column < 0]
        if missing:
            raise KeyError(missing_genes_message(missing, self.label, [self]))
        check_repeated_genes(names, columns)
        return columns

    def has_name(self, name: str) -> bool:
        """Return whether a name in the table itself is this one: of a column, an id or a symbol."""
        return self._find_exact("", name) != MISSING

    def label_of(self, column: int) -> str:
        """Return the name to show of a gene: its symbol if it is known."""
        symbol = self.symbols[column]
        if not symbol and self._is_human:
            symbol = human_symbols([self.names[column]])[0]
        return str(symbol or self.names[column])

    def suggest(self, name: str) -> str | None:
        """Return the name in the table that is most similar to an unknown one, or None."""
        return most_similar(name, [*self._by_name, *self._by_symbol])

    def _find_exact(self, gene_id: str, name: str) -> int:
        """Return the column of a gene by its id, else by its name."""
        column = MISSING
        if gene_id:
            column = _only(self._by_id.get(gene_id, ()))
        if column == MISSING:
            column = _only(self._by_name.get(name, ()))
        if column == MISSING:
            column = _only(self._by_id.get(strip_version(name), ()))
        if column == MISSING:
            column = _only(self._by_symbol.get(name, ()))
        is_other = column >= 0 and gene_id and self.ids[column] not in ("", gene_id)
        return MISSING if is_other else column

    def _find_human(self, genes: Sequence[tuple[str, str]]) -> np.ndarray:
        """Return the columns of human genes (n_genes,) by their ids, or else by other symbols."""
        columns = np.full(len(genes), MISSING, np.int64)
        if not len(self.names) or not self._is_human:
            return columns
        ids_by_name = human_ids([name for _, name in genes])
        for number, (gene_id, _) in enumerate(genes):
            own_id = gene_id or ids_by_name[number]
            if own_id:
                own = self._by_id.get(own_id, ()) or self._by_human_id.get(own_id, ())
                columns[number] = _only(own)
        return columns

    @cached_property
    def ids(self) -> np.ndarray:
        """Ensembl ids (n_vars,) in the table, "" without."""
        names = [strip_version(str(name)) for name in gene_names(self._adata)]
        own = [name if _ID.fullmatch(name) else "" for name in names]
        return np.array(own, dtype=object)

    @cached_property
    def symbols(self) -> np.ndarray:
        """Symbols (n_vars,): `var_names` if they are no ids, else a column of symbols, else ""."""
        symbols = self.names.copy()
        is_id = np.array([is_gene_id(name) for name in symbols], dtype=bool)
        symbols[is_id] = ""
        for key in SYMBOL_COLUMNS:
            if key in self._adata.var:
                column = self._adata.var[key]
                is_filled = (symbols == "") & has_value(column)
                values = column.astype(str).to_numpy(dtype=object)[is_filled]
                symbols[is_filled] = [("" if is_gene_id(value) else value) for value in values]
        return symbols

    @cached_property
    def _by_id(self) -> dict[str, tuple[int, ...]]:
        return _group_columns(self.ids)

    @cached_property
    def _by_symbol(self) -> dict[str, tuple[int, ...]]:
        return _group_columns(self.symbols)

    @cached_property
    def _is_human(self) -> bool:
        """Whether the genes can be human: their names are not those of another species."""
        species = guess_species(gene_names(self._adata))
        return is_compatible(species, "human")

    @cached_property
    def _by_human_id(self) -> dict[str, tuple[int, ...]]:
        """Columns of each human gene, of which only names are known; ids and symbols come first."""
        columns = np.flatnonzero(self.ids == "")
        genes = _human_vocabulary().explain(self.names[columns])
        groups: dict[str, tuple[int, ...]] = {}
        for rules in (BEST_RULES, OTHER_RULES):
            ids = np.where(genes["rule"].isin(rules), genes["gene_id"], "")
            for gene_id, positions in _group_columns(ids).items():
                groups.setdefault(gene_id, tuple(int(columns[place]) for place in positions))
        return groups


@lru_cache(maxsize=1)
def _human_vocabulary() -> Vocabulary:
    return Vocabulary.default()


def human_ids(names: Sequence[str]) -> np.ndarray:
    """Return the Ensembl id of each name of a human gene (n_names,), "" if it is not known."""
    genes = _human_vocabulary().explain(names)
    is_sure = genes["rule"].isin(BEST_RULES + OTHER_RULES)
    return np.where(is_sure, genes["gene_id"], "").astype(object)


def human_symbols(ids: Sequence[str]) -> np.ndarray:
    """Return the symbol of each Ensembl id (n_ids,), "" if it is not that of a human gene."""
    genes = _human_vocabulary().explain(ids)
    return np.where(genes["rule"] == "id", genes["symbol"], "").astype(object)


def most_similar(name: str, others: Sequence[str]) -> str | None:
    """Return the most similar of other names, whatever their case, or None."""
    by_case = {other.casefold(): other for other in reversed(others)}
    similar = difflib.get_close_matches(name.casefold(), by_case, n=1)
    return by_case[similar[0]] if similar else None


def suggest_names(names: Sequence[str], similar: Callable[[str], str | None]) -> str:
    """Return the begin of a remedy: a similar name for each of the first unknown names, or ""."""
    pairs = [(name, similar(name)) for name in names[:N_SUGGESTED]]
    texts = [f"{other!r} for {name!r}" for name, other in pairs if other]
    return f"did you mean {' and '.join(texts)}? Else " if texts else ""


def missing_genes_message(names: list[str], label: str, lookups: Iterable[GeneLookup]) -> str:
    """Return the message about genes that tables lack, with similar names that they have."""
    tables = list(lookups)

    def similar(name: str) -> str | None:
        return next((text for table in tables if (text := table.suggest(name))), None)

    question = suggest_names(names, similar)
    return (
        f"{count(len(names), 'gene')} {'is' if len(names) == 1 else 'are'} not in {label}, "
        f"e.g. {names[:3]}; "
        f"{question}choose from its var_names"
    )


def check_repeated_genes(names: Sequence[str], columns: np.ndarray) -> None:
    """Raise ValueError if several names are those of one column."""
    first: dict[int, str] = {}
    for name, column in zip(names, columns, strict=True):
        if int(column) in first:
            raise ValueError(
                f"{first[int(column)]!r} and {name!r} are one gene; name each gene once"
            )
        first[int(column)] = name


def is_gene_id(name: str) -> bool:
    """Return whether a name is an id of Ensembl or FlyBase, or a number."""
    return bool(_ID.fullmatch(strip_version(name)) or _NUMBER.fullmatch(name))


def _group_columns(values: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Return the positions of each value that is not ""."""
    groups: dict[str, tuple[int, ...]] = {}
    for position, value in enumerate(values):
        if value != "":
            groups[value] = (*groups.get(value, ()), position)
    return groups


def _only(columns: Sequence[int]) -> int:
    if len(columns) > 1:
        return AMBIGUOUS
    return columns[0] if columns else MISSING
