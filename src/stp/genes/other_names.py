"""Names that are no gene of a vocabulary, and why."""

import re
from collections.abc import Collection, Container
from functools import cache
from pathlib import Path

from stp.genes.species import MOUSE_OR_RAT, looks_like_mouse, species_of_id
from stp.genes.spelling import strip_version, to_r_name
from stp.genes.vocabulary_file import read_columns
from stp.tables.features import CONTROL, NOT_A_GENE

OTHER_GENE = "other gene"  # the reason for names of genes that the vocabulary lacks

# Why a name is no gene of the vocabulary, if no list of genes says so. The first pattern decides.
_REASONS = {
    # Negative controls of Xenium, CosMx and MERSCOPE, and spike-ins of sequencing.
    CONTROL: r"(Neg|negative_|BLANK|Blank|antisense_|Unassigned|Deprecated|Intergenic|ERCC-).*",
    # Antibodies and sample tags, if no column of types names them.
    NOT_A_GENE: r"(ADT|HTO|AB|Ab|CITE|PROT|Prot|prot)[-_.].*|[Hh]ashtag.*|.*TotalSeq.*",
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


def reason_of_form(name: str) -> str:
    """Return why a name is no gene, as far as its form shows it, or "unknown"."""
    for reason, pattern in _REASONS.items():
        if re.fullmatch(pattern, name):
            return reason
    return "unknown"


def is_other_gene(
    name: str, species: str | None, ids: Container[str], symbols: Collection[str]
) -> bool:
    """Return whether a name that a vocabulary does not know is the name of a gene that it lacks.

    For human this is a gene of the default vocabulary. Elsewhere an Ensembl id of the species is
    one, and a symbol in the form of those of mouse and rat.

    Parameters
    ----------
    name
        Name that is no id, symbol or alias of the vocabulary.
    species
        Species of the vocabulary.
    ids, symbols
        Those of the vocabulary. Without symbols, it may have genes of which it knows no symbol.
    """
    if species == "human":
        genes = read_default_genes()
        labels = genes.get(name) or genes.get(strip_version(name)) or ()
        return bool(labels) and not any(label in ids or label in symbols for label in labels)
    if species in ("mouse", "rat", MOUSE_OR_RAT) and looks_like_mouse(name):
        return len(symbols) > 0
    return species is not None and species_of_id(name) == species


@cache
def read_other_genes() -> dict[str, tuple[str, str]]:
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


@cache
def read_default_genes() -> dict[str, tuple[str, ...]]:
    """Map each name of a gene of the default vocabulary to the ids and symbols it may mean.

    The genes are human. Ids have no version, and names come once more as R writes them.
    """
    columns, _ = read_columns(Path(__file__).with_name("human_genes.parquet"))
    labels: dict[str, tuple[str, ...]] = {}
    for gene_id, symbol, aliases in zip(
        columns["gene_ids"], columns["symbols"], columns["aliases"], strict=True
    ):
        for name in (gene_id, symbol, *aliases):
            labels[name] = (*labels.get(name, ()), gene_id, symbol)
    r_labels = {to_r_name(name): genes for name, genes in labels.items()}
    return r_labels | labels
