r"""Build the packaged vocabulary, src/stp/human_genes.parquet, from Bioconductor's org.Hs.eg.db 3.16 (NCBI, 2022-09).

Debian packages the database:

    apt-get download r-bioc-org.hs.eg.db && dpkg-deb -x r-bioc-org.hs.eg.db_*.deb orghs
    python scripts/build_vocabulary.py --output src/stp/human_genes.parquet \
        --database orghs/usr/lib/R/site-library/org.Hs.eg.db/extdata/org.Hs.eg.sqlite

The vocabulary holds the protein-coding genes of NCBI that have an Ensembl id, the 13 mitochondrial ones among them, in
ascending order of that id. The database does not say which of a gene's Ensembl ids lies on the primary assembly: the
first listed names the gene, the others are aliases. vocabulary_exceptions.tsv corrects this where the gene lists of two
10x references (GRCh38 3.0.0 and 2020-A) disagree: a "chosen" id goes before the listed ones, and would admit a gene of
another type too; an "alternate" id goes after them.
"""

import argparse
import csv
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from stp import Vocabulary

EXCEPTIONS = Path(__file__).with_name("vocabulary_exceptions.tsv")
# NCBI leaves out the prefix of mitochondrial genes, and calls four of them otherwise than HGNC and Ensembl do.
MITOCHONDRIAL = {"COX1": "CO1", "COX2": "CO2", "COX3": "CO3", "CYTB": "CYB"}
# These bear the names of genes that they resemble or once stood for: they make no alias ambiguous.
NO_RIVALS = ("pseudo", "unknown", "biological-region")

GENES = """
    SELECT _id, CAST(gene_id AS INTEGER), symbol, gene_type
    FROM genes JOIN gene_info USING (_id) JOIN genetype USING (_id)
"""
ENSEMBL = "SELECT _id, ensembl_id FROM ensembl WHERE ensembl_id LIKE 'ENSG%' ORDER BY rowid"


@dataclass
class Gene:
    """A gene of NCBI: its Entrez id, symbol and type; Ensembl ids, the preferred one first; aliases."""

    entrez: int
    symbol: str
    kind: str
    ensembl: list[str] = field(default_factory=list)
    aliases: set[str] = field(default_factory=set)
    corrected: bool = False


def read_genes(database: Path) -> dict[int, Gene]:
    """Read Entrez id -> gene, for genes of any type."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        genes = {key: Gene(*columns) for key, *columns in connection.execute(GENES)}
        for key, ensembl_id in connection.execute(ENSEMBL):
            genes[key].ensembl.append(ensembl_id)
        for key, alias in connection.execute("SELECT _id, alias_symbol FROM alias"):
            genes[key].aliases.add(alias)
        for (key,) in connection.execute("SELECT _id FROM chromosomes WHERE chromosome = 'MT'"):
            genes[key].symbol = f"MT-{MITOCHONDRIAL.get(genes[key].symbol, genes[key].symbol)}"
    return {gene.entrez: gene for gene in genes.values()}


def correct(genes: dict[int, Gene]) -> None:
    """Apply the exceptions; refuse one whose gene the database calls otherwise."""
    with EXCEPTIONS.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        gene = genes[int(row["entrez_id"])]
        if gene.symbol != row["symbol"]:
            raise ValueError(f"{EXCEPTIONS.name} calls Entrez gene {gene.entrez} {row['symbol']}, it is {gene.symbol}")
        chosen = {"chosen": True, "alternate": False}[row["use"]]
        gene.corrected |= chosen
        gene.ensembl.insert(0 if chosen else len(gene.ensembl), row["ensembl_id"])


def group(genes: dict[int, Gene]) -> dict[str, list[Gene]]:
    """Map Ensembl id -> its coding genes; the first gives the symbol: a corrected one, else the lowest Entrez id."""
    groups = defaultdict(list)
    for gene in sorted(genes.values(), key=lambda gene: (not gene.corrected, gene.entrez)):
        if gene.ensembl and (gene.corrected or gene.kind == "protein-coding"):
            groups[gene.ensembl[0]].append(gene)
    return dict(sorted(groups.items()))


def find_aliases(genes: dict[int, Gene], groups: dict[str, list[Gene]]) -> dict[str, tuple[str, ...]]:
    """Map alternate name -> the ids it may mean, without names that may mean a gene outside the vocabulary."""
    ids = {gene.entrez: ensembl_id for ensembl_id, members in groups.items() for gene in members}
    claims = defaultdict(set)
    for gene in genes.values():
        rival = gene.entrez in ids or gene.kind not in NO_RIVALS
        for name in [*gene.ensembl, *(gene.aliases if rival else ())]:
            claims[name].add(ids.get(gene.entrez, ""))
    # A name that is some gene's id or symbol today means that gene, in the vocabulary or not.
    today = {*groups, *(members[0].symbol for members in groups.values())}
    today.update(gene.symbol for gene in genes.values() if gene.entrez not in ids)
    return {name: tuple(sorted(claims[name])) for name in sorted(claims.keys() - today) if "" not in claims[name]}


def main() -> None:
    """Build the vocabulary and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", type=Path, required=True, help="org.Hs.eg.sqlite")
    parser.add_argument("--output", type=Path, required=True, help="parquet file to write")
    arguments = parser.parse_args()
    genes = read_genes(arguments.database)
    correct(genes)
    groups = group(genes)
    symbols = [members[0].symbol for members in groups.values()]
    Vocabulary(list(groups), symbols, aliases=find_aliases(genes, groups)).save(arguments.output)
    print(f"{len(groups)} genes")


if __name__ == "__main__":
    main()
