"""Names that are no gene of the default vocabulary, and why."""

import re
from functools import cache
from pathlib import Path

from stp.genes.spelling import to_r_name
from stp.tables.features import CONTROL, NOT_A_GENE

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
