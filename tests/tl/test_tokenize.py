import re
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import stp
from stp import Vocabulary, tl
from stp.genes.rank_table import rank_table
from stp.genes.tokens import rank_genes
from stp.tl._table_tokens import rank_all_genes


def slow_tokens(adata, vocabulary, row):
    """Order the detected genes of one spot by count / mean, then by index."""
    index = vocabulary.encode(adata.var_names)
    counts = adata.X[row].toarray().ravel()
    keys = {index[j]: counts[j] / vocabulary.means[index[j]] for j in np.flatnonzero(counts)}
    return [gene + 30 for gene in sorted(keys, key=lambda gene: (-keys[gene], gene))]


def without(adata, *rows):
    """Make these spots empty."""
    X = adata.X.toarray()
    X[list(rows)] = 0
    adata.X = scipy.sparse.csr_matrix(X)
    return adata


def with_foreign_counts(adata, share):
    """Add a gene nobody knows that holds this share of all counts."""
    total = float(adata.X.sum())
    column = np.zeros((adata.n_obs, 1), dtype=np.float32)
    column[0] = round(total * share / (1 - share))
    var = pd.DataFrame(index=[*adata.var_names, "UNKNOWN"])
    return anndata.AnnData(
        scipy.sparse.hstack([adata.X, column], format="csr"), obs=adata.obs, var=var
    )


def test_tokens_are_genes_by_count_over_mean(adata, vocabulary):
    assert tl.tokenize(adata, vocabulary, context_length=40) is None
    tokens = adata.obsm["stp_tokens"]
    longest = int((adata.X > 0).sum(axis=1).max())
    assert (tokens.dtype, tokens.shape) == (np.uint16, (100, longest))
    for row in range(adata.n_obs):
        expected = slow_tokens(adata, vocabulary, row)
        assert tokens[row, : len(expected)].tolist() == expected
        assert not tokens[row, len(expected) :].any()
    n_tokens = adata.obs["stp_tokens_n"]
    assert np.issubdtype(n_tokens.dtype, np.integer)
    assert n_tokens.tolist() == (adata.X > 0).sum(axis=1).A1.tolist()


def test_context_cuts_the_lowest_ranks(adata, vocabulary):
    tl.tokenize(adata, vocabulary, context_length=40)
    tl.tokenize(adata, vocabulary, context_length=10, key_added="short")
    np.testing.assert_array_equal(adata.obsm["short"], adata.obsm["stp_tokens"][:, :10])
    assert (adata.obs["short_n"] == 10).all()


def test_parameters_are_recorded(adata, vocabulary):
    tl.tokenize(adata, vocabulary, context_length=40)
    report = adata.uns["stp_tokens"]
    assert report.pop("rules").loc["symbol"].tolist() == [32, 1]
    assert report.pop("unmapped").empty
    assert report == {
        "params": {
            "layer": None,
            "gene_ids_key": "auto",
            "context_length": 40,
            "ties": "ascending vocabulary index",
            "vocabulary": vocabulary.digest,
        },
        "coverage": 1.0,
        "n_genes": 32,
        "version": stp.__version__,
    }


def test_the_default_context_is_the_papers(adata, vocabulary):
    tl.tokenize(adata, vocabulary)
    assert adata.uns["stp_tokens"]["params"]["context_length"] == 1500


@pytest.mark.parametrize("rows_in_memory", [1, 7, 100])
def test_tokens_are_as_wide_as_the_longest_spot_in_any_blocks(adata, vocabulary, rows_in_memory):
    tl.tokenize(adata, vocabulary, context_length=20)
    index = vocabulary.encode(adata.var_names)
    table = rank_table(vocabulary.divisors())
    rank = partial(rank_genes, index=index, table=table, n_special=vocabulary.n_special)
    ranks = rank_all_genes(adata.X, rank, index, 20, rows_in_memory=rows_in_memory)
    np.testing.assert_array_equal(ranks.tokens, adata.obsm["stp_tokens"])
    assert ranks.n_tokens.tolist() == adata.obs["stp_tokens_n"].tolist()
    assert ranks.tokens.shape[1] == min(20, (adata.X > 0).sum(axis=1).max())


@pytest.mark.parametrize(
    "kind", ["vocabulary", "stamp", "gene encoder", "parquet", "folder", "str"]
)
def test_vocabulary_comes_from_itself_a_model_or_a_path(adata, vocabulary, stamp, kind, tmp_path):
    tl.tokenize(adata, vocabulary, context_length=32, key_added="expected")
    stamp.save_pretrained(tmp_path)
    sources = {
        "vocabulary": vocabulary,
        "stamp": stamp,
        "gene encoder": stamp.gene_encoder,
        "parquet": tmp_path / "vocabulary.parquet",
        "folder": tmp_path,
        "str": str(tmp_path),
    }
    tl.tokenize(adata, sources[kind], context_length=32)
    np.testing.assert_array_equal(adata.obsm["stp_tokens"], adata.obsm["expected"])


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "int64", "shuffled"])
def test_storage_and_order_of_counts_do_not_matter(adata, vocabulary, kind):
    tl.tokenize(adata, vocabulary, key_added="expected")
    order = np.random.default_rng(0).permutation(adata.n_vars)
    other = adata[:, order].copy() if kind == "shuffled" else adata
    change = {
        "csc": scipy.sparse.csc_matrix,
        "dense": lambda X: X.toarray(),
        "int64": lambda X: X.astype(np.int64),
    }
    other.X = change.get(kind, lambda X: X)(other.X)
    tl.tokenize(other, vocabulary)
    np.testing.assert_array_equal(other.obsm["stp_tokens"], adata.obsm["expected"])


def test_more_spots_than_are_read_at_once(adata, vocabulary):
    tl.tokenize(adata, vocabulary, context_length=32)
    many = anndata.AnnData(scipy.sparse.vstack([adata.X] * 50, format="csr"), var=adata.var)
    tl.tokenize(many, vocabulary, context_length=32)
    np.testing.assert_array_equal(
        many.obsm["stp_tokens"], np.tile(adata.obsm["stp_tokens"], (50, 1))
    )


def test_layer_and_gene_ids_key_are_read(adata, vocabulary):
    tl.tokenize(adata, vocabulary, key_added="expected")
    index = vocabulary.encode(adata.var_names)
    adata.var["ensembl"] = [f"{vocabulary.gene_ids[i]}.7" for i in index]
    adata.layers["counts"], adata.X = adata.X.copy(), None
    adata.var_names = [f"probe{i}" for i in range(adata.n_vars)]
    tl.tokenize(adata, vocabulary, layer="counts", gene_ids_key="ensembl")
    np.testing.assert_array_equal(adata.obsm["stp_tokens"], adata.obsm["expected"])
    params = adata.uns["stp_tokens"]["params"]
    assert (params["layer"], params["gene_ids_key"]) == ("counts", "ensembl")


def test_columns_of_one_gene_are_summed(adata, vocabulary):
    tl.tokenize(adata, vocabulary, key_added="expected")
    split = anndata.concat([adata, adata[:, [3, 5]]], axis="var")
    split.var_names = [
        *adata.var_names,
        *vocabulary.gene_ids[vocabulary.encode(adata.var_names[[3, 5]])],
    ]
    X = split.X.toarray()
    X[:, [3, 5]] = np.floor(X[:, [3, 5]] / 2)
    X[:, 32:] -= X[:, [3, 5]]
    split.X = X
    tl.tokenize(split, vocabulary)
    np.testing.assert_array_equal(split.obsm["stp_tokens"], adata.obsm["expected"])


def test_copy_returns_the_annotated_table_and_leaves_the_original(adata, vocabulary):
    result = tl.tokenize(adata, vocabulary, copy=True)
    assert isinstance(result, anndata.AnnData)
    assert "stp_tokens" in result.obsm and "stp_tokens" in result.uns
    assert (
        "stp_tokens" not in adata.obsm
        and "stp_tokens" not in adata.uns
        and "stp_tokens_n" not in adata.obs
    )


def test_spatialdata_is_annotated_in_its_table(sdata, adata, vocabulary):
    tl.tokenize(adata, vocabulary)
    sdata.tables["cells"] = sdata.tables["table"].copy()
    copied = tl.tokenize(sdata, vocabulary, table_key="cells", copy=True)
    assert isinstance(copied, anndata.AnnData) and "stp_tokens" not in sdata.tables["cells"].obsm
    assert tl.tokenize(sdata, vocabulary, table_key="cells") is None
    assert "stp_tokens" not in sdata.tables["table"].obsm
    for table in (copied, sdata.tables["cells"]):
        np.testing.assert_array_equal(table.obsm["stp_tokens"], adata.obsm["stp_tokens"])


def test_backed_counts_are_read_block_by_block_and_never_copied(adata, vocabulary, tmp_path):
    adata.write_h5ad(tmp_path / "counts.h5ad")
    tl.tokenize(adata, vocabulary)
    backed = anndata.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"call \.to_memory\(\) first"):
        tl.tokenize(backed, vocabulary, copy=True)
    tl.tokenize(backed, vocabulary)
    np.testing.assert_array_equal(backed.obsm["stp_tokens"], adata.obsm["stp_tokens"])
    backed.file.close()


def test_empty_spots_keep_their_row_with_a_flag_and_a_warning(adata, vocabulary):
    with pytest.warns(
        UserWarning, match=r"2 of 100 spots have no counts .*sc\.pp\.filter_cells"
    ) as caught:
        tl.tokenize(without(adata, 3, 50), vocabulary)
    assert caught[0].filename == __file__
    assert np.flatnonzero(adata.obs["stp_tokens_n"] == 0).tolist() == [3, 50]
    assert not adata.obsm["stp_tokens"][[3, 50]].any()


# ---- bad input: one clear error each, and nothing written


@pytest.fixture
def untouched(adata):
    """Fail if a table was annotated although its input was refused."""
    yield adata
    assert (
        not {*adata.obsm} - {"spatial"}
        and not adata.uns
        and not {*adata.obs} - {"array_row", "array_col"}
    )


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf], ids=str)
def test_a_value_that_is_no_raw_count_is_refused(untouched, vocabulary, value):
    untouched.X.data[-1] = value
    with pytest.raises(
        ValueError,
        match=f"X contains {value:.4g}, which is not a raw count .*; start from the raw counts",
    ):
        tl.tokenize(untouched, vocabulary)


def test_log_counts_are_refused_with_the_layer_to_use(untouched, vocabulary):
    untouched.layers["scaled"] = untouched.X * 0.1
    untouched.layers["raw"] = untouched.X.copy()
    untouched.X = untouched.X.log1p()
    with pytest.raises(ValueError, match="log-transformed or scaled.*; pass layer='raw'"):
        tl.tokenize(untouched, vocabulary)
    with pytest.raises(ValueError, match="layer 'scaled' contains"):
        tl.tokenize(untouched, vocabulary, layer="scaled")


def test_no_gene_in_the_vocabulary_is_refused(untouched, vocabulary):
    untouched.var_names = [f"GENE{i}" for i in range(untouched.n_vars)]
    message = (
        "no gene of the table is in the vocabulary: the table has GENE0, GENE1, GENE2.*, "
        "the vocabulary ENSG.*; "
        r"pass gene_ids_key= .*, or make a vocabulary of the species, Vocabulary\.from_genes"
    )
    with pytest.raises(ValueError, match=message):
        tl.tokenize(untouched, vocabulary)


def test_genes_of_another_species_are_refused(untouched, vocabulary):
    untouched.var_names = [name.capitalize() for name in untouched.var_names]
    message = (
        r"the genes are those of mouse or rat \(Epcam, Krt8, .*\), "
        "the vocabulary is of human; .*upper-case"
    )
    with pytest.raises(ValueError, match=message):
        tl.tokenize(untouched, vocabulary)


def test_a_vocabulary_without_means_is_refused(untouched):
    with pytest.raises(
        ValueError, match=r"no means to rank genes by; Vocabulary\.fit\(data\) computes them"
    ):
        tl.tokenize(untouched, Vocabulary.default())


@pytest.mark.parametrize("share", [0.51, 0.9])
def test_coverage_below_half_is_refused(adata, vocabulary, share):
    foreign = with_foreign_counts(adata, share)
    with pytest.raises(
        ValueError, match=f"only {1 - share:.1%} of UMIs are in genes of the vocabulary"
    ):
        tl.tokenize(foreign, vocabulary)
    assert not foreign.obsm


def test_coverage_below_four_fifths_is_warned_of(adata, vocabulary):
    foreign = with_foreign_counts(adata, 0.3)
    with pytest.warns(
        UserWarning, match="only 70.0% of UMIs are in genes of the vocabulary"
    ) as caught:
        tl.tokenize(foreign, vocabulary)
    assert caught[0].filename == __file__
    assert foreign.uns["stp_tokens"]["coverage"] == pytest.approx(0.7, abs=1e-3)


@pytest.mark.filterwarnings("error::UserWarning")
def test_coverage_above_is_only_recorded(adata, vocabulary):
    foreign = with_foreign_counts(adata, 0.19)
    tl.tokenize(foreign, vocabulary)
    assert foreign.uns["stp_tokens"]["coverage"] == pytest.approx(0.81, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": "raw"}, KeyError, "no layer 'raw'; pass layer="),
        ({"gene_ids_key": "ids"}, KeyError, "ids"),
        ({"context_length": 0}, ValueError, "context_length must be positive, not 0"),
    ],
    ids=["layer", "gene_ids_key", "context_length"],
)
def test_arguments_that_do_not_fit_are_refused(untouched, vocabulary, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        tl.tokenize(untouched, vocabulary, **arguments)


def test_missing_tables_and_other_types_are_refused(sdata, vocabulary):
    with pytest.raises(KeyError, match=r"no table 'cells' .* one of \['table'\]"):
        tl.tokenize(sdata, vocabulary, table_key="cells")
    with pytest.raises(
        TypeError, match="expected an AnnData, a SpatialData or the path of a store, got DataFrame"
    ):
        tl.tokenize(pd.DataFrame(), vocabulary)
    with pytest.raises(TypeError, match="expected a Vocabulary, a model or a path, got list"):
        tl.tokenize(sdata, ["ENSG00000000003"])


def test_as_many_genes_are_kept_as_the_model_reads(adata, stamp, vocabulary, tmp_path):
    stamp.save_pretrained(tmp_path / "stamp")
    stamp.gene_encoder.save_pretrained(tmp_path / "genes")
    for source in (stamp, stamp.gene_encoder, tmp_path / "stamp", str(tmp_path / "genes")):
        params = tl.tokenize(adata, source, copy=True).uns["stp_tokens"]["params"]
        assert params["context_length"] == 32
