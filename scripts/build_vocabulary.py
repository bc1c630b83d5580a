r"""Build the packaged vocabulary from Bioconductor's org.Hs.eg.db 3.16 (NCBI Gene, September 2022).

It writes human_genes.parquet, and human_other_genes.parquet, which lists the human genes that are
left out, and why. Debian packages the database:

    apt-get download r-bioc-org.hs.eg.db && dpkg-deb -x r-bioc-org.hs.eg.db_*.deb orghs
    python scripts/build_vocabulary.py --output src/stp/genes \
        --database orghs/usr/lib/R/site-library/org.Hs.eg.db/extdata/org.Hs.eg.sqlite

The vocabulary holds the protein-coding genes of NCBI that have an Ensembl id, in ascending order of
that id. The 13 mitochondrial ones are among them.

The database does not show which of a gene's Ensembl ids lies on the primary assembly. The first id
names the gene, and the others are aliases. vocabulary_exceptions.tsv corrects this for genes about
which the gene lists of two 10x references (GRCh38 3.0.0 and 2020-A) disagree. A "chosen" id goes
before the ids of the database, and admits a gene of another type too. An "alternate" id goes after
them.

former_symbols.tsv lists names that those references give to genes of the vocabulary, if NCBI does
not know the name or gives it to several genes. The name then means the gene that had it.
"""

import argparse
import csv
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from stp import Vocabulary

EXCEPTIONS = Path(__file__).with_name("vocabulary_exceptions.tsv")
FORMER = Path(__file__).with_name("former_symbols.tsv")
# NCBI leaves out the prefix of mitochondrial genes. HGNC and Ensembl have other names for four.
MITOCHONDRIAL = {"COX1": "CO1", "COX2": "CO2", "COX3": "CO3", "CYTB": "CYB"}
# Genes of these types have the names of genes that they resemble: they make no alias ambiguous.
NO_RIVALS = ("pseudo", "unknown", "biological-region")
# Types of genes outside the vocabulary, as reports call them; every other type is non-coding.
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
    """A gene of NCBI."""

    entrez: int
    symbol: str
    kind: str
    ensembl: list[str] = field(default_factory=list)  # the preferred id first
    aliases: set[str] = field(default_factory=set)
    has_chosen_id: bool = False  # by vocabulary_exceptions.tsv


def read_genes(database: Path) -> dict[int, Gene]:
    """Return the genes of any type by their Entrez id."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        genes = {key: Gene(*columns) for key, *columns in connection.execute(GENES)}
        for key, ensembl_id in connection.execute(ENSEMBL):
            genes[key].ensembl.append(ensembl_id)
        for key, alias in connection.execute("SELECT _id, alias_symbol FROM alias"):
            genes[key].aliases.add(alias)
        for (key,) in connection.execute("SELECT _id FROM chromosomes WHERE chromosome = 'MT'"):
            symbol = genes[key].symbol
            genes[key].symbol = f"MT-{MITOCHONDRIAL.get(symbol, symbol)}"
    return {gene.entrez: gene for gene in genes.values()}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table with a header."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def correct_ids(genes: dict[int, Gene]) -> None:
    """Apply the exceptions; raise ValueError if the database has another symbol for a gene."""
    for row in read_rows(EXCEPTIONS):
        gene = genes[int(row["entrez_id"])]
        if gene.symbol != row["symbol"]:
            raise ValueError(
                f"{EXCEPTIONS.name} calls Entrez gene {gene.entrez} {row['symbol']}, "
                f"but the database calls it {gene.symbol}"
            )
        is_chosen = {"chosen": True, "alternate": False}[row["use"]]
        gene.has_chosen_id |= is_chosen
        gene.ensembl.insert(0 if is_chosen else len(gene.ensembl), row["ensembl_id"])


def group_by_ensembl(genes: dict[int, Gene]) -> dict[str, list[Gene]]:
    """Map Ensembl ids to their coding genes, of which the first gives the symbol.

    A gene with a chosen id comes first, then that with the lowest Entrez id.
    """
    groups = defaultdict(list)
    for gene in sorted(genes.values(), key=lambda gene: (not gene.has_chosen_id, gene.entrez)):
        if gene.ensembl and (gene.has_chosen_id or gene.kind == "protein-coding"):
            groups[gene.ensembl[0]].append(gene)
    return dict(sorted(groups.items()))


def find_aliases(
    genes: dict[int, Gene], groups: dict[str, list[Gene]]
) -> dict[str, tuple[str, ...]]:
    """Map other names to the ids they may mean.

    Names that may mean a gene outside the vocabulary are left out.
    """
    ids = {gene.entrez: ensembl_id for ensembl_id, members in groups.items() for gene in members}
    ids_by_name = defaultdict(set)  # "" is a gene outside the vocabulary
    for gene in genes.values():
        is_rival = gene.entrez in ids or gene.kind not in NO_RIVALS
        names = [*gene.ensembl, *gene.aliases] if is_rival else gene.ensembl
        for name in names:
            ids_by_name[name].add(ids.get(gene.entrez, ""))
    # A name that is some gene's id or symbol today means that gene, in the vocabulary or not.
    current_names = {*groups, *(members[0].symbol for members in groups.values())}
    current_names.update(gene.symbol for gene in genes.values() if gene.entrez not in ids)
    aliases = {
        name: tuple(sorted(ids_by_name[name]))
        for name in sorted(ids_by_name.keys() - current_names)
        if "" not in ids_by_name[name]
    }
    former = {row["symbol"]: (row["ensembl_id"],) for row in read_rows(FORMER)}
    return dict(sorted((aliases | former).items()))


def find_other_genes(genes: dict[int, Gene], vocabulary: Vocabulary) -> dict[str, tuple[str, str]]:
    """Map names of genes outside the vocabulary to their kind and current symbol."""
    vocabulary_names = {*vocabulary.gene_ids, *vocabulary.symbols, *vocabulary.aliases}
    others = {}

    def add(names_of: Callable[[Gene], Iterable[str]]) -> None:
        for gene in sorted(genes.values(), key=lambda gene: gene.entrez):
            kind = KINDS.get(gene.kind, "non-coding")
            for name in sorted(names_of(gene)):
                if name not in vocabulary_names:
                    others[name] = (kind, gene.symbol)

    # Current names come second, because they win over aliases of other genes.
    add(lambda gene: gene.aliases)
    add(lambda gene: [gene.symbol, *gene.ensembl])
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
    correct_ids(genes)
    groups = group_by_ensembl(genes)
    symbols = [members[0].symbol for members in groups.values()]
    vocabulary = Vocabulary(list(groups), symbols, aliases=find_aliases(genes, groups))
    vocabulary.save(arguments.output / "human_genes.parquet")
    others = find_other_genes(genes, vocabulary)
    kinds, current_symbols = zip(*others.values(), strict=True)
    table = pa.table(
        {
            "name": list(others),
            "kind": pa.array(kinds).dictionary_encode(),
            "symbol": current_symbols,
        }
    )
    path = arguments.output / "human_other_genes.parquet"
    parquet.write_table(table, path, compression="zstd")
    print(f"{len(groups)} genes, {len(others)} names of others")


if __name__ == "__main__":
    main()
