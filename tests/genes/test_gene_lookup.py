import anndata
import numpy as np
import pandas as pd
import pytest

from stp.genes.gene_choice import choose_genes
from stp.genes.gene_lookup import GeneLookup

ERBB2, ACTB, LUM = "ENSG00000141736", "ENSG00000075624", "ENSG00000139329"


def table(names, **columns):
    counts = np.ones((2, len(names)), np.float32)
    return anndata.AnnData(counts, var=pd.DataFrame(columns, index=pd.Index(names, dtype=object)))


TABLES = {
    "symbols": table(["x", "ERBB2", "ACTB"]),
    "ids": table(["x", ERBB2, ACTB]),
    "ids with versions": table(["x", f"{ERBB2}.14", f"{ACTB}.2"]),
    "symbols with ids": table(["x", "ERBB2", "ACTB"], gene_ids=["", ERBB2, ACTB]),
    "ids with symbols": table(["x", ERBB2, ACTB], feature_name=["x", "ERBB2", "ACTB"]),
    "former symbols": table(["x", "HER2", "ACTB"]),
    "genomes": table(["x", "GRCh38_ERBB2", "GRCh38_ACTB"]),
}


@pytest.mark.parametrize("adata", TABLES.values(), ids=TABLES)
def test_a_gene_is_found_by_each_of_its_names(adata):
    lookup = GeneLookup(adata)
    names = ["ERBB2", ERBB2, f"{ERBB2}.3", "HER2", "CD340", adata.var_names[1], "ACTB", "unknown"]
    assert lookup.find(names).tolist() == [1, 1, 1, 1, 1, 1, 2, -1]


def test_a_gene_of_another_species_is_found_by_the_names_of_its_table_only():
    ids = ["ENSMUSG00000062312", "ENSMUSG00000029580"]
    lookup = GeneLookup(table(ids, symbol=["Erbb2", "Actb"]))
    assert lookup.find(["Erbb2", ids[1], "ERBB2", ERBB2]).tolist() == [0, 1, -1, -1]
    assert GeneLookup(table(["Erbb2", "Actb"])).find(["ERBB2", "Actb"]).tolist() == [-1, 1]


def test_a_name_of_several_genes_is_refused():
    ids = ["ENSG00000284770", "ENSG00000285053"]
    lookup = GeneLookup(table(ids, symbol=["TBCE", "TBCE"]), "my table")
    with pytest.raises(ValueError, match="'TBCE' is the name of several genes of my table"):
        lookup.find(["TBCE"])
    assert lookup.find(["TBCE", ids[1]], skip_ambiguous=True).tolist() == [-1, 1]


def test_a_gene_with_another_id_is_not_the_same():
    lookup = GeneLookup(table(["TBCE", "ACTB"], gene_ids=["ENSG00000284770", ACTB]))
    ids = ["ENSG00000285053", "ENSG00000284770", ""]
    assert lookup.find_genes(ids, ["TBCE"] * 3).tolist() == [-1, 0, 0]


def test_the_symbol_wins_over_a_former_symbol_in_one_table():
    assert GeneLookup(table(["HER2", "ERBB2"])).find([ERBB2]).tolist() == [1]


@pytest.mark.parametrize(
    ("name", "suggestion"), [("ERRB2", "ERBB2"), ("erbb22", "ERBB2"), ("Actb1", "ACTB")]
)
def test_the_nearest_name_is_suggested(name, suggestion):
    adata = table([ERBB2, ACTB], symbol=["ERBB2", "ACTB"])
    with pytest.raises(KeyError, match=rf"did you mean '{suggestion}' for '{name}'\? Else choose"):
        GeneLookup(adata).require([name])


def test_genes_of_tables_with_other_names_are_chosen_together():
    tables = {"a": TABLES["ids"], "b": TABLES["symbols"][:, ["ACTB", "x", "ERBB2"]]}
    for names in (["ERBB2", "ACTB"], [ERBB2, ACTB], ["HER2", ACTB]):
        choice = choose_genes(tables, names)
        assert choice.names.tolist() == ["ERBB2", "ACTB"]
        assert choice.ids.tolist() == [ERBB2, ACTB]
        assert {label: list(columns) for label, columns in choice.columns.items()} == {
            "a": [1, 2],
            "b": [2, 0],
        }


def test_highly_variable_genes_of_tables_with_other_names_are_shared():
    first = TABLES["ids"].copy()
    second = TABLES["symbols"][:, ["ACTB", "ERBB2"]].copy()
    second.var["highly_variable"] = [True, False]
    first.var["highly_variable"] = [True, True, False]
    choice = choose_genes({"a": first, "b": second}, None)
    assert choice.names.tolist() == ["ERBB2", "ACTB"]
    assert choice.columns["b"].tolist() == [1, 0]


def test_genes_of_one_symbol_are_named_by_their_ids():
    ids = ["ENSG00000284770", "ENSG00000285053", LUM]
    choice = choose_genes({"a": table(ids, symbol=["TBCE", "TBCE", "LUM"])}, ids)
    assert choice.names.tolist() == [*ids[:2], "LUM"]


def test_one_gene_is_not_named_twice_and_two_are_not_one():
    with pytest.raises(ValueError, match=f"'ERBB2' and '{ERBB2}' are one gene"):
        choose_genes({"a": TABLES["ids with symbols"]}, ["ERBB2", ERBB2])
    tables = {
        "a": table(["TBCE"], gene_ids=["ENSG00000284770"]),
        "b": table(["TBCE"], gene_ids=["ENSG00000285053"]),
    }
    with pytest.raises(ValueError, match="'TBCE' is ENSG00000284770 in a and ENSG00000285053 in b"):
        choose_genes(tables, ["TBCE"])
