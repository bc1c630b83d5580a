"""Read the genes of a vocabulary from a file of a user."""

import csv
import gzip
from pathlib import Path

from stp.genes.vocabulary import Vocabulary

EXPRESSION = "Gene Expression"  # type of genes in features.tsv.gz, which also lists antibodies
HEADERS = ("gene_id", "gene_ids", "ensembl_id", "ensembl", "id", "gene", "gene id")


def read_genes(path: Path) -> Vocabulary:
    """Read a vocabulary, or make one of a table of gene ids and symbols.

    Parameters
    ----------
    path
        Parquet file of a vocabulary; or a table, also compressed by gzip, whose columns are
        separated by tabs or commas: ids, then symbols if there are any. A header is recognized,
        lines that begin with # are skipped, and of features.tsv.gz only the genes are read.

    Raises
    ------
    ValueError
        The file is neither, has no genes, or an id repeats.
    """
    if path.suffix.lower() == ".parquet":
        return Vocabulary.load(path)
    try:
        rows = _read_rows(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of genes: {error}") from error
    if rows and rows[0][0].lower() in HEADERS:
        rows = rows[1:]
    if any(EXPRESSION in row[2:3] for row in rows):
        rows = [row for row in rows if row[2:3] == [EXPRESSION]]
    if not rows:
        raise ValueError(f"{path} has no genes; give a table with a gene id in each row")
    symbols = [row[1] if len(row) > 1 else "" for row in rows]
    return Vocabulary.from_genes([row[0] for row in rows], symbols)


def _read_rows(path: Path) -> list[list[str]]:
    """Return the cells of all rows that are no comments."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    is_tabbed = any("\t" in line for line in lines)
    rows = csv.reader(lines, delimiter="\t" if is_tabbed else ",")
    return [[cell.strip() for cell in row] for row in rows]
