"""Which rows of a table are genes, and which genes these are."""

import anndata
import numpy as np
import pandas as pd
import pytest

from stp import Vocabulary, tl
from stp.genes.table_genes import gene_names, recognize_table


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


def test_none_means_var_names():
    assert gene_names(named(gene_ids=IDS), None).tolist() == ["EPCAM", "KRT8", "ERBB2"]


MOUSE_IDS = [f"ENSMUSG0000000000{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("ids", "var_names", "message"),
    [
        (MOUSE_IDS, ["EPCAM", "KRT8", "ERBB2"], "genes of mouse .* those of human"),
        (MOUSE_IDS, IDS, "genes of mouse .* those of human"),
        (IDS, ["Epcam", "Krt8", "Erbb2"], "genes of human .* those of mouse or rat"),
        (IDS, MOUSE_IDS, "genes of human .* those of mouse"),
    ],
)
def test_ids_and_names_of_different_species_are_refused(ids, var_names, message):
    adata = named(gene_ids=ids)
    adata.var_names = var_names
    with pytest.raises(ValueError, match=f"{message}.*gene_ids_key='gene_ids'.*gene_ids_key=None"):
        gene_names(adata)
    assert gene_names(adata, "gene_ids").tolist() == ids
    assert gene_names(adata, None).tolist() == var_names


def test_ids_and_symbols_of_mouse_are_one_species():
    adata = named(gene_ids=MOUSE_IDS)
    adata.var_names = ["Epcam", "Krt8", "Erbb2"]
    assert gene_names(adata).tolist() == MOUSE_IDS


def test_ids_with_a_genome_are_ids():
    ids = [f"GRCh38_{name}" for name in IDS]
    assert gene_names(named(gene_ids=ids)).tolist() == ids


def typed(types, column="feature_types"):
    return named(**{column: types})


def rules(adata):
    genes = recognize_table(Vocabulary.default(), adata)
    return genes.matches.rule.tolist(), genes.is_gene.tolist()


@pytest.mark.parametrize("column", ["feature_types", "feature_type"])
@pytest.mark.parametrize(
    "other", ["Antibody Capture", "CRISPR Guide Capture", "Custom", "Peaks", "Multiplexing Capture"]
)
def test_other_features_are_no_genes(column, other):
    adata = typed(["Gene Expression", other, "Gene Expression"], column)
    assert rules(adata) == (["symbol", "not a gene", "symbol"], [True, False, True])


def test_short_names_of_types_and_categories_are_read():
    adata = typed(pd.Categorical(["GEX", "ADT", "GEX"]))
    assert rules(adata) == (["symbol", "not a gene", "symbol"], [True, False, True])


def test_controls_of_xenium_are_controls():
    adata = typed(["Gene Expression", "Negative Control Probe", "Unassigned Codeword"])
    assert rules(adata) == (["symbol", "control", "control"], [True, False, False])


def test_deprecated_probes_are_controls():
    adata = named(gene_ids=IDS)
    adata.var_names = ["EPCAM", "DEPRECATED_KRT8", "ERBB2"]
    assert rules(adata) == (["id", "control", "id"], [True, False, True])


@pytest.mark.parametrize("types", [["protein_coding"] * 3, ["", None, np.nan]], ids=str)
def test_biotypes_and_missing_types_leave_genes(types):
    assert rules(typed(types, "feature_type")) == (["symbol"] * 3, [True] * 3)


def test_a_table_of_antibodies_alone_is_refused():
    with pytest.raises(ValueError, match="no row of var is a gene: .*Antibody Capture"):
        rules(typed(["Antibody Capture"] * 3))


@pytest.fixture(scope="module")
def fitted():
    counts = np.ones((4, 3), np.float32)
    adata = anndata.AnnData(counts, var=pd.DataFrame(index=["EPCAM", "KRT8", "ERBB2"]))
    return Vocabulary.from_genes([name.split(".")[0] for name in IDS], adata.var_names).fit(adata)


def test_tokens_and_means_are_those_of_rna_alone(fitted):
    rna = anndata.AnnData(np.array([[3, 1, 2], [0, 5, 1]], np.float32))
    rna.var_names = ["EPCAM", "KRT8", "ERBB2"]
    protein = anndata.AnnData(np.full((2, 2), 800, np.float32))
    protein.var_names = ["EPCAM-1", "KRT8-1"]
    rna.var["feature_types"] = "Gene Expression"
    protein.var["feature_types"] = "Antibody Capture"
    both = anndata.concat([rna, protein], axis=1)
    for table in (rna, both):
        tl.tokenize(table, fitted, context_length=3)
    np.testing.assert_array_equal(both.obsm["stp_tokens"], rna.obsm["stp_tokens"])
    assert both.uns["stp_tokens"]["coverage"] == 1
    assert both.uns["stp_tokens"]["rules"].loc["not a gene"].tolist() == [2, 0]
    assert fitted.fit(both).digest == fitted.fit(rna).digest


def test_genes_of_another_species_do_not_count_as_human(fitted):
    names = ["EPCAM", "KRT8", "ERBB2", "Epcam", "mm10___Krt8", "ENSMUSG00000029580"]
    both = anndata.AnnData(np.array([[30, 20, 40, 1, 1, 1]], np.float32))
    both.var_names = names
    human = both[:, :3].copy()
    tl.tokenize(human, fitted, context_length=3)
    with pytest.warns(UserWarning, match="genes of another species are left out"):
        tl.tokenize(both, fitted, context_length=3)
    np.testing.assert_array_equal(both.obsm["stp_tokens"], human.obsm["stp_tokens"])
    unmapped = both.uns["stp_tokens"]["unmapped"]["rule"].to_dict()
    assert unmapped == {"Epcam": "mouse or rat", "mm10___Krt8": "mouse", names[5]: "mouse"}


def test_means_need_most_umis_in_the_vocabulary(fitted):
    table = anndata.AnnData(np.array([[4, 6]], np.float32))
    table.var_names = ["EPCAM", "my gene"]
    with pytest.raises(ValueError, match=r"only 40\.0% of UMIs .*unknown 60\.0%"):
        fitted.fit(table)
