"""Which rows of a table are genes, and which genes these are."""

import anndata
import numpy as np
import pandas as pd
import pytest

from stp.genes.table_genes import gene_names


def named(**columns):
    names = ["EPCAM", "KRT8", "ERBB2"]
    return anndata.AnnData(np.ones((1, 3)), var=pd.DataFrame(columns, index=names))


IDS = ["ENSG00000119888", "ENSG00000170421.4", "ENSG00000141736"]


def test_gene_names_come_from_gene_ids_where_these_are_ensembl_ids():
    assert gene_names(named(gene_ids=IDS)).tolist() == IDS
    assert gene_names(named(gene_ids=pd.Categorical(IDS))).tolist() == IDS
    assert gene_names(named(gene_ids=[*IDS[:2], "Custom"])).tolist() == [*IDS[:2], "Custom"]


@pytest.mark.parametrize(
    "column",
    [["1", "2", "3"], [1, 2, 3], [IDS[0], "", ""], ["", "", ""], [None, np.nan, None]],
    ids=str,
)
def test_gene_names_are_var_names_where_gene_ids_hold_anything_else(column):
    assert gene_names(named(gene_ids=column)).tolist() == ["EPCAM", "KRT8", "ERBB2"]


def test_gene_names_are_var_names_by_default():
    assert (
        gene_names(named()).tolist()
        == gene_names(named(other=IDS)).tolist()
        == ["EPCAM", "KRT8", "ERBB2"]
    )


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, ""])
@pytest.mark.parametrize("key", ["auto", "gene_ids"])
def test_a_gene_without_an_id_keeps_its_name(missing, key):
    ids = pd.Series([IDS[0], missing, IDS[2]], dtype=object)
    assert gene_names(named(gene_ids=ids.to_numpy()), key).tolist() == [IDS[0], "KRT8", IDS[2]]
    assert gene_names(named(gene_ids=pd.Categorical(ids)), key).tolist() == [IDS[0], "KRT8", IDS[2]]


def test_gene_names_come_from_any_column_that_is_named():
    adata = named(gene_ids=IDS, symbol=["a", "b", "c"])
    assert list(gene_names(adata, "symbol")) == ["a", "b", "c"]
    with pytest.raises(KeyError, match=r"adata\.var\['ids'\] is missing.*gene_ids.*symbol"):
        gene_names(adata, "ids")
