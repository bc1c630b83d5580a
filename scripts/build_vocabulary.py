r"""Build the packaged vocabulary, src/stp/human_genes.parquet, from Bioconductor's org.Hs.eg.db 3.16 (NCBI, 2022-09).

Beside it, human_other_genes.parquet lists the names of human genes that are left out, and why.

Debian packages the database:

    apt-get download r-bioc-org.hs.eg.db && dpkg-deb -x r-bioc-org.hs.eg.db_*.deb orghs
    python scripts/build_vocabulary.py --output src/stp \
        --database orghs/usr/lib/R/site-library/org.Hs.eg.db/extdata/org.Hs.eg.sqlite

The vocabulary holds the protein-coding genes of NCBI that have an Ensembl id, the 13 mitochondrial ones among them, in
ascending order of that id. The database does not say which of a gene's Ensembl ids lies on the primary assembly: the
first listed names the gene, the others are aliases. vocabulary_exceptions.tsv corrects this where the gene lists of two
10x references (GRCh38 3.0.0 and 2020-A) disagree: a "chosen" id goes before the listed ones, and would admit a gene of
another type too; an "alternate" id goes after them. former_symbols.tsv lists what those references call genes of the
vocabulary, where NCBI does not know the name or gives it to several genes: it stands for the gene that bore it.
"""

import argparse
import csv
import re
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from stp import Vocabulary

EXCEPTIONS = Path(__file__).with_name("vocabulary_exceptions.tsv")
FORMER = Path(__file__).with_name("former_symbols.tsv")
# NCBI leaves out the prefix of mitochondrial genes, and calls four of them otherwise than HGNC and Ensembl do.
MITOCHONDRIAL = {"COX1": "CO1", "COX2": "CO2", "COX3": "CO3", "CYTB": "CYB"}
# These bear the names of genes that they resemble or once stood for: they make no alias ambiguous.
NO_RIVALS = ("pseudo", "unknown", "biological-region")
# Kinds of genes outside the vocabulary, as reports name them; every other kind is non-coding.
KINDS = {
    "pseudo": "pseudogene",
    "other": "segment or locus",
    "unknown": "uncharacterized",
    "protein-coding": "no Ensembl id",
}
UNNAMED = re.compile(r"LOC\d+")

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


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a table with a header."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def correct(genes: dict[int, Gene]) -> None:
    """Apply the exceptions; refuse one whose gene the database calls otherwise."""
    for row in read_rows(EXCEPTIONS):
        gene = genes[int(row["entrez_id"])]
        if gene.symbol != row["symbol"]:
            raise ValueError(
                f"{EXCEPTIONS.name} calls Entrez gene {gene.entrez} {row['symbol']}, it is {gene.symbol}"
            )
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


def find_aliases(
    genes: dict[int, Gene], groups: dict[str, list[Gene]]
) -> dict[str, tuple[str, ...]]:
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
    aliases = {
        name: tuple(sorted(claims[name]))
        for name in sorted(claims.keys() - today)
        if "" not in claims[name]
    }
    former = {row["symbol"]: (row["ensembl_id"],) for row in read_rows(FORMER)}
    return dict(sorted((aliases | former).items()))


def find_others(genes: dict[int, Gene], vocabulary: Vocabulary) -> dict[str, tuple[str, str]]:
    """Map name -> kind and current symbol of a gene outside the vocabulary; current names beat other ones."""
    known = {*vocabulary.gene_ids, *vocabulary.symbols, *vocabulary.aliases}
    others = {}
    for names in (lambda gene: gene.aliases, lambda gene: [gene.symbol, *gene.ensembl]):
        for gene in sorted(genes.values(), key=lambda gene: gene.entrez):
            kind = KINDS.get(gene.kind, "non-coding")
            others |= {
                name: (kind, gene.symbol) for name in sorted(names(gene)) if name not in known
            }
    return {name: others[name] for name in sorted(others) if not UNNAMED.fullmatch(name)}


def main() -> None:
    """Build the vocabulary and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", type=Path, required=True, help="org.Hs.eg.sqlite")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    genes = read_genes(arguments.database)
    correct(genes)
    groups = group(genes)
    symbols = [members[0].symbol for members in groups.values()]
    vocabulary = Vocabulary(list(groups), symbols, aliases=find_aliases(genes, groups))
    vocabulary.save(arguments.output / "human_genes.parquet")
    others = find_others(genes, vocabulary)
    kinds, symbols = zip(*others.values(), strict=True)
    table = {"name": list(others), "kind": pa.array(kinds).dictionary_encode(), "symbol": symbols}
    parquet.write_table(
        pa.table(table), arguments.output / "human_other_genes.parquet", compression="zstd"
    )
    print(f"{len(groups)} genes, {len(others)} names of others")


if __name__ == "__main__":
    main()
