"""Recognize gene names: ids, symbols, former names, and spellings that software has changed."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache

import numpy as np

from stp._log import preview
from stp.genes.matches import Match, Names, TableNames
from stp.genes.name_forms import advise_to_strip, unwrap
from stp.genes.other_names import (
    OTHER_GENE,
    is_other_gene,
    read_other_genes,
    reason_of_form,
)
from stp.genes.species import (
    MOUSE_OR_RAT,
    guess_species,
    is_compatible,
    looks_like_mouse,
    species_of_id,
)
from stp.genes.spelling import strip_version, to_r_name
from stp.tables.features import CONTROL, is_control_name

# To make column names unique, scanpy calls a second RPL41 "RPL41-1", and R calls it "RPL41.1".
_NUMBERED_NAME = re.compile(r"(.+)[-.]\d+")

# Mouse-like names that only the case rule recognizes: more of them are those of another species.
MAX_MISSPELLED = 10
MAX_MISSPELLED_SHARE = 0.01
# In a table of two species, more than this share of the names are right as they are written.
MIN_OWN_SHARE = 1 / 3


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
    4. `bytes`, `genome prefix`, `joined name`: it contains one of these names (b'ERBB2',
       GRCh38_ERBB2, ENSG00000141736_ERBB2).
    5. `R name`: it is one of these names as R's `make.names` writes it (HLA.A for HLA-A).
    6. `case`: it is one of these names in other upper and lower case (erbb2). This rule is for
       human vocabularies only: elsewhere, the case shows that a name is of another species. It
       does not apply if the table has the right spelling too, or many symbols of mouse or rat.
    7. `duplicate`: it is another name of the same table with a number (RPL41-1, if the table has
       RPL41 too).

    Rules 4 to 7 apply only if no gene has exactly this name.

    A name that means no gene of the vocabulary gets a reason in place of a rule:

    - `no name`: the name is empty or a missing value.
    - `ambiguous`: several genes have this name. The note lists them.
    - `pseudogene`, `non-coding` and other kinds: the name is that of a human gene that the default
      vocabulary leaves out. If its current symbol is another, the note gives it.
    - `other gene`: it is the name of a gene of the right species that the vocabulary lacks. In
      human vocabularies this is a gene of the default vocabulary; elsewhere the form of an Ensembl
      id shows it, or that of a symbol of mouse or rat.
    - `mouse`, `mouse or rat` and other species: it is an id or symbol of another species.
    - `other case`: the table has the right spelling, given in the note, too.
    - `not a gene`: it is the name of an antibody or a sample tag.
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
        self.species = guess_species(gene_ids) or guess_species(symbols)
        self._is_human = self.species == "human"

    def recognize(self, names: Iterable[str]) -> Names:
        """Find the gene that each name of a table means, by the rules of this class."""
        names = [str(name) for name in names]
        exact = [_MISSING.get(name) or self._unambiguous.get(name) for name in names]
        table = self._describe_table(names, exact)
        if table.has_mouse:
            exact = [
                self._reject_mouse_alias(name, match)
                for name, match in zip(names, exact, strict=True)
            ]
        matches = [
            match or self._match(name, table) for name, match in zip(names, exact, strict=True)
        ]
        return Names(
            index=np.array([match.gene for match in matches], np.int64),
            rule=np.array([match.rule for match in matches], object),
            note=np.array([match.note for match in matches], object),
        )

    def require(self, names: Iterable[str]) -> Names:
        """Recognize names; raise ValueError if no gene is recognized or the species differs."""
        names = [str(name) for name in names]
        recognized = self.recognize(names)
        species = guess_species(names)
        if not is_compatible(species, self.species) and not self._has_own_genes(recognized):
            raise ValueError(
                f"the genes are those of {species} ({preview(names)}), the vocabulary is of "
                f"{self.species}; make a vocabulary of the right species, "
                "Vocabulary.from_genes(gene_ids, symbols), or upper-case the names if they are "
                f"{self.species} symbols"
            )
        if not (recognized.index >= 0).any():
            if (recognized.rule == OTHER_GENE).mean() > 0.5:
                raise ValueError(
                    f"the vocabulary knows {len(self._ids)} genes ({preview(self._ids)}), and none "
                    f"of them is in the table, which has others ({preview(names)}); use a model or "
                    "a vocabulary that was made from such data"
                )
            raise ValueError(
                f"no gene of the table is in the vocabulary: the table has {preview(names)}, "
                f"the vocabulary {preview(self._ids)}; {advise_to_strip(names)}"
                "pass gene_ids_key= if a column of var has "
                "the ids, or make a vocabulary of the species, "
                "Vocabulary.from_genes(gene_ids, symbols)"
            )
        return recognized

    @staticmethod
    def _has_own_genes(recognized: Names) -> bool:
        """Return whether many names are right without a change of case, as in two species."""
        is_right = (recognized.index >= 0) & ~np.isin(recognized.rule, ["case", "duplicate"])
        return bool(is_right.mean() > MIN_OWN_SHARE)

    def _describe_table(self, names: list[str], exact: list[Match | None]) -> TableNames:
        genes = {match.gene for match in exact if match}
        has_mouse = False
        if self._is_human:
            mouse_like = [
                name
                for name, match in zip(names, exact, strict=True)
                if match is None and looks_like_mouse(name)
            ]
            max_misspelled = max(MAX_MISSPELLED, MAX_MISSPELLED_SHARE * len(names))
            if len(mouse_like) > max_misspelled:
                n_mouse = sum(name.casefold() in self._genes_by_case for name in mouse_like)
                has_mouse = n_mouse > max_misspelled
        return TableNames(set(names), genes, has_mouse)

    def _reject_mouse_alias(self, name: str, match: Match | None) -> Match | None:
        """Return no gene for an alias such as Trp53, which is a symbol of mouse in this table."""
        if match is None or match.rule != "alias" or not looks_like_mouse(name):
            return match
        return Match(-1, MOUSE_OR_RAT, self._labels[match.gene])

    def _match(self, name: str, table: TableNames) -> Match:
        match = self._match_exact(name) or self._match_other_gene(name)
        if not match and is_control_name(name):
            return Match(-1, CONTROL)
        match = match or self._match_inside(name)
        match = match or self._match_r_name(name) or self._match_case(name, table)
        if match:
            return match
        numbered = _NUMBERED_NAME.fullmatch(name)
        if numbered and numbered[1] in table.names:
            original = self._match(numbered[1], table)
            return original._replace(rule="duplicate") if original.gene >= 0 else original
        species = species_of_id(name)
        if species and not is_compatible(species, self.species):
            return Match(-1, species)
        if is_other_gene(name, self.species, self._ids, self._symbols):
            return Match(-1, OTHER_GENE)
        return Match(-1, reason_of_form(name))

    def _match_inside(self, name: str) -> Match | None:
        """Look for the name of a gene inside a longer name (rule 4)."""
        form = unwrap(name)
        if form is None:
            return None
        if not is_compatible(form.species, self.species):
            return Match(-1, str(form.species))
        match = self._match_exact(form.name) or self._match_other_gene(form.name)
        match = match or self._match_inside(form.name) or self._match_r_name(form.name)
        if match is None:
            return self._match(form.name, TableNames(set(), set(), has_mouse=True))
        if match.gene < 0:
            return match
        # The symbol in a joined name must not be that of another gene.
        genes = {match.gene}.union(*(self._symbols.get(part, ()) for part in form.others))
        return self._match_if_unique(sorted(genes), form.rule)

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
        entry = read_other_genes().get(strip_version(name))
        if entry is None:
            return None
        kind, symbol = entry
        return Match(-1, kind, symbol if symbol != name else "")

    def _match_r_name(self, name: str) -> Match | None:
        """Look for a name that R has altered (rule 5)."""
        genes = self._genes_by_r_name.get(name)
        return self._match_if_unique(sorted(genes), "R name") if genes else None

    def _match_case(self, name: str, table: TableNames) -> Match | None:
        """Look for a name in other upper and lower case (rule 6)."""
        genes = self._genes_by_case.get(name.casefold()) if self._is_human else None
        if not genes:
            return None
        match = self._match_if_unique(sorted(genes), "case")
        is_mouse = looks_like_mouse(name)
        if match.gene in table.genes or (is_mouse and table.has_mouse):
            note = " or ".join(self._labels[gene] for gene in sorted(genes))
            return Match(-1, MOUSE_OR_RAT if is_mouse else "other case", note)
        return match

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
