"""Build the packaged vocabulary, src/stp/human_genes.parquet, from Bioconductor's org.Hs.eg.db 3.16 (NCBI, 2022-09).

Debian packages the database:

    apt-get download r-bioc-org.hs.eg.db && dpkg-deb -x r-bioc-org.hs.eg.db_*.deb orghs
    python scripts/build_vocabulary.py --output src/stp/human_genes.parquet \
        --database orghs/usr/lib/R/site-library/org.Hs.eg.db/extdata/org.Hs.eg.sqlite

The vocabulary holds the protein-coding genes of NCBI that have an Ensembl id, the 13 mitochondrial ones among them, in
ascending order of the id. The database does not say which of a gene's Ensembl ids lies on the primary assembly: the first
listed is taken, but for the genes in vocabulary_exceptions.tsv, which were found by comparing with the gene lists of two
10x references (GRCh38 3.0.0 and 2020-A).
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
# NCBI names mitochondrial genes without the prefix, and four otherwise than HGNC and Ensembl do.
MITOCHONDRIAL = {"COX1": "CO1", "COX2": "CO2", "COX3": "CO3", "CYTB": "CYB"}
# These lend their alias from the gene they resemble, or cannot be measured: they make no alias ambiguous.
NO_RIVALS = ("pseudo", "unknown", "biological-region")

GENES = "SELECT _id, CAST(gene_id AS INTEGER), symbol, gene_type FROM genes JOIN gene_info USING (_id) JOIN genetype USING (_id)"
ENSEMBL = "SELECT _id, ensembl_id FROM ensembl WHERE ensembl_id LIKE 'ENSG%' ORDER BY rowid"


@dataclass
class Gene:
    """A gene of NCBI: its Entrez id, symbol and type, its Ensembl ids as listed, and its aliases."""

    entrez: int
    symbol: str
    kind: str
    ensembl: list[str] = field(default_factory=list)
    aliases: set[str] = field(default_factory=set)


def read_genes(database: Path) -> list[Gene]:
    """Read all genes of the database, of any type, in ascending order of the Entrez id."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        genes = {key: Gene(*columns) for key, *columns in connection.execute(GENES)}
        for key, ensembl_id in connection.execute(ENSEMBL):
            genes[key].ensembl.append(ensembl_id)
        for key, alias in connection.execute("SELECT _id, alias_symbol FROM alias"):
            genes[key].aliases.add(alias)
        for (key,) in connection.execute("SELECT _id FROM chromosomes WHERE chromosome = 'MT'"):
            genes[key].symbol = f"MT-{MITOCHONDRIAL.get(genes[key].symbol, genes[key].symbol)}"
    return sorted(genes.values(), key=lambda gene: gene.entrez)


def read_exceptions(genes: list[Gene]) -> dict[int, str]:
    """Read Entrez id -> Ensembl id ("" for a gene that gets none); refuse rows that the database contradicts."""
    symbols = {gene.entrez: gene.symbol for gene in genes}
    with EXCEPTIONS.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        if symbols.get(int(row["entrez_id"])) != row["symbol"]:
            raise ValueError(f"{EXCEPTIONS.name}: Entrez gene {row['entrez_id']} is not called {row['symbol']}")
    return {int(row["entrez_id"]): row["ensembl_id"] for row in rows}


def choose_ids(genes: list[Gene], exceptions: dict[int, str]) -> dict[str, Gene]:
    """Give each coding gene one Ensembl id: an exception's first, then, by Entrez id, the first listed if still free."""
    chosen = {exceptions[gene.entrez]: gene for gene in genes if exceptions.get(gene.entrez)}
    for gene in genes:
        if gene.kind == "protein-coding" and gene.ensembl and gene.entrez not in exceptions:
            chosen.setdefault(gene.ensembl[0], gene)
    return dict(sorted(chosen.items()))


def choose_aliases(genes: list[Gene], chosen: dict[str, Gene]) -> dict[str, tuple[str, ...]]:
    """Map each alternate name to the ids it may mean; names that (also) mean a gene outside the vocabulary are dropped."""
    ids = {gene.entrez: ensembl_id for ensembl_id, gene in chosen.items()}
    claims = defaultdict(set)
    for gene in genes:
        for alias in gene.aliases:
            if gene.entrez in ids or gene.kind not in NO_RIVALS:
                claims[alias].add(ids.get(gene.entrez, ""))
    # A name that is some gene's symbol now means that gene, in the vocabulary or not.
    current = {gene.symbol for gene in genes}
    return {
        alias: tuple(sorted(claims[alias]))
        for alias in sorted(claims)
        if alias not in current and "" not in claims[alias]
    }


def main() -> None:
    """Build the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", type=Path, required=True, help="org.Hs.eg.sqlite")
    parser.add_argument("--output", type=Path, required=True, help="parquet file to write")
    arguments = parser.parse_args()
    genes = read_genes(arguments.database)
    chosen = choose_ids(genes, read_exceptions(genes))
    symbols = [gene.symbol for gene in chosen.values()]
    Vocabulary(list(chosen), symbols, aliases=choose_aliases(genes, chosen)).save(arguments.output)
    print(f"{len(chosen)} genes")


if __name__ == "__main__":
    main()
