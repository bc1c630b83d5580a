"""Recognize gene names: ids, symbols, former names, and spellings that software has changed."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stp._log import preview
from stp.genes.species import guess_species

_VERSIONED_ID = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")
# To make column names unique, scanpy calls a second RPL41 "RPL41-1", and R calls it "RPL41.1".
_NUMBERED_NAME = re.compile(r"(.+)[-.]\d+")

# Why a name is no gene of the vocabulary, if no list of genes says so. The first pattern decides.
_REASONS = {
    # Negative controls of Xenium, CosMx and MERSCOPE, and spike-ins of sequencing.
    "control": r"(Neg|negative_|BLANK|Blank|antisense_|Unassigned|Deprecated|Intergenic|ERCC-).*",
    # Spreadsheets turn MARCH1 into 1-Mar, SEPT2 into 2-Sep and DEC1 into 1-Dec.
    "spreadsheet date": r"\d{1,2}-(Mar|Sep|Dec)",
    # Transfer, ribosomal, micro and small nucleolar RNAs, and antisense transcripts (ERBB2-AS1).
    "non-coding": (
        r"(MT[-.]T.\d?|Y_RNA|Metazoa_SRP|\w*_rRNA|(LINC|MIR|MIRLET|SNOR[AD]|RNU)\d.*"
        r"|.+[-.](AS|IT|DT|OT)\d*)"
    ),
    # Loci that bear the name of a sequenced clone, such as RP11-34P13.7 and AL627309.1.
    "unnamed locus": (
        r"(LOC\d+|[A-Z]{1,2}\d{5,6}\.\d+|[A-Z]+\d*[A-Za-z]*\d*[-.][A-Z]*\d+[A-Z]+\d+[.\d]*)"
    ),
}


class Names(NamedTuple):
    """The genes that some names mean: arrays of shape (n_names,)."""

    # int64: vocabulary index of the gene, or -1 if the name means no gene of the vocabulary.
    index: np.ndarray  # type: ignore[assignment]  # tuples have a method of this name
    # str: the rule by which the name was recognized, or the reason why it was not.
    rule: np.ndarray
    # str: the genes that an unrecognized name may stand for, or "".
    note: np.ndarray


class Match(NamedTuple):
    """The gene that one name means; the fields are those of `Names`."""

    gene: int
    rule: str
    note: str = ""


# A missing value is no name, though "NA" is an alias of the gene XK too.
_MISSING = dict.fromkeys(("", "nan", "NaN", "NA", "<NA>", "None"), Match(-1, "no name"))


@lru_cache(maxsize=8)
def build_gene_names(
    gene_ids: tuple[str, ...],
    symbols: tuple[str, ...],
    aliases: tuple[tuple[str, tuple[str, ...]], ...],
) -> "GeneNames":
    """Return the names of a vocabulary; vocabularies with other means share the object."""
    return GeneNames(gene_ids, symbols, dict(aliases))


class GeneNames:
    """All names of the genes of a vocabulary.

    The first rule that applies decides which gene a name means:

    1. `id`: the name is an Ensembl id, with or without its version (ENSG00000141736.14).
    2. `symbol`: it is the current symbol of one gene (ERBB2).
    3. `alias`: it is another or a former name of one gene (HER2).
    4. `R name`: it is one of these names as R's `make.names` writes it (HLA.A for HLA-A).
    5. `case`: it is one of these names in other upper and lower case (erbb2). This rule is for
       human vocabularies only: elsewhere, the case shows that a name is of another species.
    6. `duplicate`: it is another name of the same table with a number (RPL41-1, if the table has
       RPL41 too).

    Rules 4 to 6 apply only if no gene has exactly this name.

    A name that means no gene of the vocabulary gets a reason in place of a rule:

    - `no name`: the name is empty or a missing value.
    - `ambiguous`: several genes have this name. The note lists them.
    - `pseudogene`, `non-coding` and other kinds: the name is that of a human gene that the default
      vocabulary leaves out. If its current symbol is another, the note gives it.
    - `control`, `spreadsheet date`, `non-coding`, `unnamed locus`: the form of the name shows it.
    - `unknown`: none of these.

    Parameters
    ----------
    gene_ids
        Id of each gene.
    symbols
        Current symbol of each gene, "" if it has none.
    aliases
        Other names of genes; each maps to the ids of the genes it may mean.
    """

    def __init__(
        self,
        gene_ids: Sequence[str],
        symbols: Sequence[str],
        aliases: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._ids = {gene_id: gene for gene, gene_id in enumerate(gene_ids)}
        self._labels = [
            symbol or gene_id for gene_id, symbol in zip(gene_ids, symbols, strict=True)
        ]
        self._symbols: dict[str, tuple[int, ...]] = defaultdict(tuple)
        for gene, symbol in enumerate(symbols):
            if symbol:
                self._symbols[symbol] += (gene,)
        self._aliases = {
            name: tuple(self._ids[gene_id] for gene_id in ids) for name, ids in aliases.items()
        }
        self._is_human = guess_species(gene_ids) == "human"

    def recognize(self, names: Iterable[str]) -> Names:
        """Find the gene that each name of a table means, by the rules of this class."""
        names = [str(name) for name in names]
        table_names = set(names)
        matches = [
            _MISSING.get(name) or self._unambiguous.get(name) or self._match(name, table_names)
            for name in names
        ]
        return Names(
            index=np.array([match.gene for match in matches], np.int64),
            rule=np.array([match.rule for match in matches], object),
            note=np.array([match.note for match in matches], object),
        )

    def require(self, names: Iterable[str]) -> Names:
        """Recognize names; raise ValueError if no gene is recognized or the species differs."""
        names = [str(name) for name in names]
        species = guess_species(names)
        own_species = guess_species(self._ids) or guess_species(self._symbols)
        # Other species have symbols of this form too, such as Adh of the fruit fly.
        may_be_own = species == "mouse or rat" and own_species != "human"
        if species and own_species and species != own_species and not may_be_own:
            raise ValueError(
                f"the genes are those of {species} ({preview(names)}), the vocabulary is of "
                f"{own_species}; make a vocabulary of the right species, "
                "Vocabulary.from_genes(gene_ids, symbols), or upper-case the names if they are "
                f"{own_species} symbols"
            )
        recognized = self.recognize(names)
        if not (recognized.index >= 0).any():
            raise ValueError(
                f"no gene of the table is in the vocabulary: the table has {preview(names)}, "
                f"the vocabulary {preview(self._ids)}; pass gene_ids_key= if a column of var has "
                "the ids, or make a vocabulary of the species, "
                "Vocabulary.from_genes(gene_ids, symbols)"
            )
        return recognized

    def _match(self, name: str, table_names: set[str]) -> Match:
        match = self._match_exact(name)
        match = match or self._match_other_gene(name)
        match = match or self._match_spelling(name)
        if match:
            return match
        numbered = _NUMBERED_NAME.fullmatch(name)
        if numbered and numbered[1] in table_names:
            original = self._match(numbered[1], table_names)
            return original._replace(rule="duplicate") if original.gene >= 0 else original
        for reason, pattern in _REASONS.items():
            if re.fullmatch(pattern, name):
                return Match(-1, reason)
        return Match(-1, "unknown")

    def _match_exact(self, name: str) -> Match | None:
        """Look for an id, a symbol or an alias (rules 1 to 3)."""
        base = strip_version(name)
        gene = self._ids.get(name, self._ids.get(base))
        if gene is not None:
            return Match(gene, "id")
        if name in self._symbols:
            return self._match_if_unique(self._symbols[name], "symbol")
        genes = self._aliases.get(name) or self._aliases.get(base)
        return self._match_if_unique(genes, "alias") if genes else None

    def _match_other_gene(self, name: str) -> Match | None:
        """Look among the human genes that the default vocabulary leaves out."""
        if not self._is_human:
            return None
        entry = _read_other_genes().get(strip_version(name))
        if entry is None:
            return None
        kind, symbol = entry
        return Match(-1, kind, symbol if symbol != name else "")

    def _match_spelling(self, name: str) -> Match | None:
        """Look for a name that R or a change of case has altered (rules 4 and 5)."""
        genes = self._genes_by_r_name.get(name)
        if genes:
            return self._match_if_unique(sorted(genes), "R name")
        if not self._is_human:
            return None
        genes = self._genes_by_case.get(name.casefold())
        return self._match_if_unique(sorted(genes), "case") if genes else None

    def _match_if_unique(self, genes: Sequence[int], rule: str) -> Match:
        if len(genes) == 1:
            return Match(genes[0], rule)
        return Match(-1, "ambiguous", " or ".join(self._labels[gene] for gene in genes))

    @cached_property
    def _unambiguous(self) -> dict[str, Match]:
        """Exact names of one gene: nearly all names of most tables, so they are looked up first."""
        matches = {}
        for name, genes in self._aliases.items():
            if len(genes) == 1:
                matches[name] = Match(genes[0], "alias")
        for name, genes in self._symbols.items():
            if len(genes) == 1:
                matches[name] = Match(genes[0], "symbol")
        for name, gene in self._ids.items():
            matches[name] = Match(gene, "id")
        return matches

    @cached_property
    def _genes_by_r_name(self) -> dict[str, set[int]]:
        return self._genes_by_spelling(to_r_name)

    @cached_property
    def _genes_by_case(self) -> dict[str, set[int]]:
        return self._genes_by_spelling(str.casefold)

    def _genes_by_spelling(self, spell: Callable[[str], str]) -> dict[str, set[int]]:
        """Group the genes by a spelling of their names; symbols win over aliases."""
        by_alias: dict[str, set[int]] = defaultdict(set)
        for name, genes in self._aliases.items():
            by_alias[spell(name)].update(genes)
        by_symbol: dict[str, set[int]] = defaultdict(set)
        for name, genes in self._symbols.items():
            by_symbol[spell(name)].update(genes)
        return by_alias | by_symbol


def strip_version(name: str) -> str:
    """Return an Ensembl id without its version suffix, and any other name unchanged."""
    match = _VERSIONED_ID.fullmatch(name)
    return match[1] if match else name


def to_r_name(name: str) -> str:
    """Return a name as R's `make.names` writes it: HLA-A becomes HLA.A, 7SK becomes X7SK."""
    # Most names stay as they are, which this shows in a tenth of the time.
    if name.isalnum() and name.isascii() and name[0].isalpha():
        return name
    name = re.sub(r"[^A-Za-z0-9._]", ".", name)
    return name if re.match(r"[A-Za-z]|\.(?!\d)", name) else f"X{name}"


@cache
def _read_other_genes() -> dict[str, tuple[str, str]]:
    """Map names of human genes outside the default vocabulary to their kind and current symbol."""
    from pyarrow import parquet

    path = Path(__file__).with_name("human_other_genes.parquet")
    columns = parquet.ParquetFile(path).read().to_pydict()
    entries = {}
    r_entries = {}
    for name, kind, symbol in zip(columns["name"], columns["kind"], columns["symbol"], strict=True):
        entries[name] = (kind, symbol)
        r_entries[to_r_name(name)] = (kind, symbol)
    return r_entries | entries
