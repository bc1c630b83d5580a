"""Recognize gene names: ids, symbols and aliases, and what R and other hands have made of them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

_VERSIONED = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")
MANY = 2000  # names tell their species
_NUMBERED = re.compile(
    r"(.+)[-.]\d+"
)  # how scanpy (RPL41-1) and R (RPL41.1) make a second RPL41 unique

# Why a name means no gene of the human vocabulary, where no list says so.
_REASONS = {
    "control": r"(Neg|negative_|BLANK|Blank|antisense_|Unassigned|Deprecated|Intergenic|ERCC-).*",
    "spreadsheet date": r"\d{1,2}-(Mar|Sep|Dec)",
    "non-coding": r"(MT[-.]T.\d?|Y_RNA|Metazoa_SRP|\w*_rRNA|(LINC|MIR|MIRLET|SNOR[AD]|RNU)\d.*|.+[-.](AS|IT|DT|OT)\d*)",
    "unnamed locus": r"(LOC\d+|[A-Z]{1,2}\d{5,6}\.\d+|[A-Z]+\d*[A-Za-z]*\d*[-.][A-Z]*\d+[A-Z]+\d+[.\d]*)",
}

_SPECIES = {
    "human": r"ENSG\d{11}.*",
    "mouse": r"ENSMUSG\d{11}.*",
    "rat": r"ENSRNOG\d{11}.*",
    "zebrafish": r"ENSDARG\d{11}.*|(si|zgc):.*",
    "pig": r"ENSSSCG\d{11}.*",
    "macaque": r"ENSM(MU|FA)G\d{11}.*",
    "chicken": r"ENSGALG\d{11}.*",
    "fruit fly": r"FBgn\d{7}",
    "mouse or rat": r"mt-\w+|[A-Z]\d{0,2}[a-z].*",  # Actb; of human symbols only C1orf112 and its like
}


_NO_NAME = dict.fromkeys(
    ("", "nan", "NaN", "NA", "<NA>", "None"), (-1, "no name", "")
)  # NA is an alias of XK too


class Names(NamedTuple):
    """What some names mean, arrays of shape (n_names,)."""

    # int64: vocabulary index, -1 where the name means no gene of the vocabulary; hides index of tuples
    index: np.ndarray  # type: ignore[assignment]
    rule: np.ndarray  # str: by which rule it was recognized, or why it was not
    note: np.ndarray  # str: what a name that was not recognized may stand for


@lru_cache(maxsize=8)
def book_of(
    gene_ids: tuple[str, ...],
    symbols: tuple[str, ...],
    aliases: tuple[tuple[str, tuple[str, ...]], ...],
) -> "GeneNames":
    """Return the book of a vocabulary; vocabularies that differ in their means share one."""
    return GeneNames(gene_ids, symbols, dict(aliases))


class GeneNames:
    """All names of the genes of a vocabulary.

    Parameters
    ----------
    gene_ids, symbols
        Of each gene; symbols may be "".
    aliases
        Other names -> ids of the genes they may mean.
    """

    def __init__(
        self,
        gene_ids: Sequence[str],
        symbols: Sequence[str],
        aliases: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._ids = {gene: index for index, gene in enumerate(gene_ids)}
        self._labels = [symbol or gene for gene, symbol in zip(gene_ids, symbols, strict=True)]
        self._symbols: dict[str, tuple[int, ...]] = defaultdict(tuple)
        self._aliases = aliases
        for index, symbol in enumerate(symbols):
            if symbol:
                self._symbols[symbol] += (index,)
        self._is_human = species_of(gene_ids) == "human"

    def recognize(self, names: Iterable[str]) -> Names:
        """Find the gene that each name means.

        The first rule that applies: Ensembl id, with or without version; current symbol; alias of one gene. Then, for
        names that no known gene has as they stand: R's make.names (HLA.A), other case, and the number of a duplicate
        (RPL41-1) where the name without it is given too.
        """
        names = [str(name) for name in names]
        given = set(names)
        found = [
            _NO_NAME.get(name) or self._known.get(name) or self._find(name, given) for name in names
        ]
        columns = np.array(found, dtype=object).reshape(-1, 3)
        return Names(columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2])

    def require(self, names: Iterable[str]) -> Names:
        """Recognize names, or raise a ValueError where they are of another species or none of them is known."""
        names = [str(name) for name in names]
        theirs, ours = species_of(names), species_of(self._ids) or species_of(self._symbols)
        by_symbols = (
            theirs == "mouse or rat" and ours != "human"
        )  # others, too, have symbols such as Adh
        if theirs and ours and theirs != ours and not by_symbols:
            raise ValueError(
                f"the genes are those of {theirs} ({some(names)}), the vocabulary is of {ours}; make one of the "
                f"species, Vocabulary.from_genes(gene_ids, symbols), or upper-case the names if they are {ours} symbols"
            )
        found = self.recognize(names)
        if not (found.index >= 0).any():
            raise ValueError(
                f"no gene of the table is in the vocabulary: the table has {some(names)}, the vocabulary "
                f"{some(self._ids)}; pass gene_ids_key= if a column of var holds the ids, or make a vocabulary of "
                "the species, Vocabulary.from_genes(gene_ids, symbols)"
            )
        return found

    def _find(self, name: str, given: set[str]) -> tuple[int, str, str]:
        numbered = _NUMBERED.fullmatch(name)
        found = self._exact(name) or self._known_non_coding(name) or self._normalized_spelling(name)
        if not found and numbered and numbered[1] in given:
            index, rule, note = self._find(numbered[1], given)
            found = (index, "duplicate" if index >= 0 else rule, note)
        return found or (
            -1,
            next((why for why in _REASONS if re.fullmatch(_REASONS[why], name)), "unknown"),
            "",
        )

    def _exact(self, name: str) -> tuple[int, str, str] | None:
        if (gene := self._ids.get(name, self._ids.get(unversioned(name)))) is not None:
            return gene, "id", ""
        if name in self._symbols:
            return self._if_unique(self._symbols[name], "symbol")
        genes = self._aliases.get(name) or self._aliases.get(unversioned(name))
        return self._if_unique([self._ids[gene] for gene in genes], "alias") if genes else None

    def _if_unique(self, genes: Sequence[int], rule: str) -> tuple[int, str, str]:
        if len(genes) == 1:
            return genes[0], rule, ""
        return -1, "ambiguous", " or ".join(self._labels[gene] for gene in genes)

    def _known_non_coding(self, name: str) -> tuple[int, str, str] | None:
        """Look among human genes that the vocabulary leaves out."""
        entry = _other_genes().get(unversioned(name)) if self._is_human else None
        return (-1, entry[0], entry[1] if entry[1] != name else "") if entry else None

    def _normalized_spelling(self, name: str) -> tuple[int, str, str] | None:
        # A mouse gene is no misspelt human one, so case must be right in other vocabularies.
        for rule, key in (("R name", name), ("case", name.casefold()))[
            : 2 if self._is_human else 1
        ]:
            if genes := self._spellings[rule].get(key):
                return self._if_unique(sorted(genes), rule)
        return None

    @cached_property
    def _known(self) -> dict[str, tuple[int, str, str]]:
        """Names that one rule settles, all that most tables hold."""
        aliases = {
            name: self._ids[genes[0]] for name, genes in self._aliases.items() if len(genes) == 1
        }
        symbols = {name: genes[0] for name, genes in self._symbols.items() if len(genes) == 1}
        books = {"alias": aliases, "symbol": symbols, "id": self._ids}
        return {
            name: (index, rule, "") for rule, book in books.items() for name, index in book.items()
        }

    @cached_property
    def _spellings(self) -> dict[str, dict[str, set[int]]]:
        """Rule -> spelling -> genes; spellings of symbols beat those of aliases."""
        spellings: dict[str, dict[str, set[int]]] = {"R name": {}, "case": {}}
        aliases = {
            name: [self._ids[gene] for gene in genes] for name, genes in self._aliases.items()
        }
        for book in (aliases, self._symbols):
            layer: dict[str, dict[str, set[int]]] = {rule: defaultdict(set) for rule in spellings}
            for name, genes in book.items():
                layer["R name"][r_name(name)].update(genes)
                layer["case"][name.casefold()].update(genes)
            for rule, table in layer.items():
                spellings[rule] |= table
        return spellings


def some(names: Iterable[str]) -> str:
    """List the first few of many names."""
    names = list(names)
    return ", ".join(map(str, names[:5])) + (
        f" and {len(names) - 5} more" if len(names) > 5 else ""
    )


def unversioned(name: str) -> str:
    """Return an Ensembl id without its version suffix, any other name as it is."""
    match = _VERSIONED.fullmatch(name)
    return match[1] if match else name


def r_name(name: str) -> str:
    """Return what R's make.names makes of a name: HLA-A becomes HLA.A, 5S_rRNA becomes X5S_rRNA."""
    if name.isalnum() and name.isascii() and name[0].isalpha():
        return name  # most names, and ten times as fast
    name = re.sub(r"[^A-Za-z0-9._]", ".", name)
    return name if re.match(r"[A-Za-z]|\.(?!\d)", name) else f"X{name}"


def species_of(names: Iterable[str]) -> str | None:
    """Name the species that most of some ids or symbols belong to, where they tell."""
    names = [str(name) for name in islice(names, MANY)]
    for species, pattern in _SPECIES.items():
        # Names of zebrafish differ in few of their symbols from those of others: there, these few tell.
        enough = 0.02 if species == "zebrafish" else 0.5
        if names and sum(bool(re.fullmatch(pattern, name)) for name in names) > enough * len(names):
            return species
    return None


@cache
def _other_genes() -> dict[str, tuple[str, str]]:
    """Name of a human gene that the default vocabulary leaves out -> its kind and current symbol."""
    from pyarrow import parquet

    table = (
        parquet.ParquetFile(Path(__file__).with_name("human_other_genes.parquet"))
        .read()
        .to_pydict()
    )
    entries = list(
        zip(table["name"], zip(table["kind"], table["symbol"], strict=True), strict=True)
    )
    return {r_name(name): entry for name, entry in entries} | dict(entries)
