"""Gene sets from files of both kinds."""

import pandas as pd
import pytest

from stp.io import read_gene_sets

SETS = {"Luminal, A": ["ERBB2", "KRT8"], "T cells": ["CD3E", "NAN"]}


def write(path):
    rows = [(name, gene) for name, genes in SETS.items() for gene in genes]
    table = pd.DataFrame(rows, columns=["set", "gene"]).assign(source="mine")
    match path.suffix:
        case ".gmt":
            path.write_text("".join(f"{n}\tabout\t" + "\t".join(g) + "\n" for n, g in SETS.items()))
        case ".parquet":
            table.to_parquet(path)
        case ".csv":
            table.to_csv(path, index=False)
        case ".tsv":
            table.sample(frac=1, random_state=2).sort_values("set", kind="stable").to_csv(
                path, index=False, sep="\t", encoding="utf-8-sig"
            )


@pytest.mark.parametrize("suffix", [".gmt", ".csv", ".tsv", ".parquet"])
def test_files_of_all_kinds_have_the_same_sets(suffix, tmp_path):
    path = tmp_path / f"sets{suffix}"
    write(path)
    gene_sets = read_gene_sets(path)
    assert {name: sorted(genes) for name, genes in gene_sets.items()} == SETS


def test_a_gene_that_is_there_twice_counts_once(tmp_path):
    (tmp_path / "sets.csv").write_text("gene,set\nA,s\nB,s\nA,s\n")
    assert read_gene_sets(tmp_path / "sets.csv") == {"s": ["A", "B"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set,symbol\na,b\n", "has no column 'gene', but set, symbol"),
        ("set,gene\na,b\n,c\n", "has no set in row 2"),
        ("set,gene\na, \n", "has no gene in row 1"),
        ("set,gene\n", "has no row"),
    ],
)
def test_a_table_of_another_kind_is_refused(text, message, tmp_path):
    (tmp_path / "sets.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"sets.csv {message}"):
        read_gene_sets(tmp_path / "sets.csv")


def test_a_missing_file_says_what_is_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no gene sets at .*absent.csv; give a GMT file"):
        read_gene_sets(tmp_path / "absent.csv")
