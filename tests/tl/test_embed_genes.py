import warnings

import anndata
import numpy as np
import pytest
import torch

import stp
from stp import tl

KEYS = ("X_stp_genes", "X_stp_genes_aligned")


@pytest.fixture
def table(adata, stamp):
    """Spots with very different numbers of tokens; spots 0 and 50 have none."""
    X = adata.X.toarray()
    for row in range(0, 100, 5):
        X[row, row % 50 :] = 0
    adata.X = X
    with pytest.warns(UserWarning, match="2 of 100 spots have no counts"):
        tl.tokenize(adata, stamp, context_length=32)
    return adata


def empty(table):
    return table.obs["stp_tokens_n"].to_numpy() == 0


def test_results_are_those_of_the_model_row_by_row(table, stamp):
    assert tl.embed_genes(table, stamp) is None
    tokens = torch.from_numpy(table.obsm["stp_tokens"].astype(np.int64))
    for row in np.flatnonzero(~empty(table)):
        with torch.no_grad():
            expected = stamp.encode_genes(tokens[row : row + 1])
        for key, output in zip(KEYS, expected, strict=True):
            np.testing.assert_allclose(
                table.obsm[key][row], output[0].numpy(), rtol=1e-4, atol=1e-5
            )
    for key in KEYS:
        assert (table.obsm[key].dtype, table.obsm[key].shape) == (np.float32, (100, 32))


def test_aligned_vectors_have_length_one(table, stamp):
    tl.embed_genes(table, stamp)
    norms = np.linalg.norm(table.obsm["X_stp_genes_aligned"], axis=1)
    np.testing.assert_allclose(norms[~empty(table)], 1, rtol=1e-5)


def test_empty_spots_are_nan(table, stamp):
    tl.embed_genes(table, stamp)
    assert np.flatnonzero(empty(table)).tolist() == [0, 50]
    for key in KEYS:
        np.testing.assert_array_equal(np.isnan(table.obsm[key]).any(axis=1), empty(table))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batch_size_does_not_change_results(table, stamp, batch_size):
    tl.embed_genes(table, stamp)
    tl.embed_genes(table, stamp, batch_size=batch_size, key_added="other")
    np.testing.assert_allclose(table.obsm["other"], table.obsm["X_stp_genes"], rtol=1e-4, atol=1e-5)


def test_results_follow_the_order_of_the_table(table, stamp):
    order = np.random.default_rng(0).permutation(100)
    shuffled = table[order].copy()
    tl.embed_genes(table, stamp)
    tl.embed_genes(shuffled, stamp)
    np.testing.assert_allclose(
        shuffled.obsm["X_stp_genes"], table.obsm["X_stp_genes"][order], rtol=1e-4, atol=1e-5
    )


def test_a_gene_encoder_gives_features_only(table, stamp):
    tl.embed_genes(table, stamp)
    tl.embed_genes(table, stamp.gene_encoder, key_added="encoder")
    np.testing.assert_array_equal(table.obsm["encoder"], table.obsm["X_stp_genes"])
    assert "encoder_aligned" not in table.obsm
    assert table.uns["encoder"]["model"]["class"] == "GeneEncoder"


def test_aligned_vectors_of_an_earlier_model_are_deleted(table, stamp):
    tl.embed_genes(table, stamp)
    tl.embed_genes(table, stamp.gene_encoder)
    assert "X_stp_genes" in table.obsm and "X_stp_genes_aligned" not in table.obsm


def test_parameters_are_recorded(table, stamp):
    tl.embed_genes(table, stamp)
    vocabulary = stamp.vocabulary.digest
    assert table.uns["X_stp_genes"] == {
        "params": {"tokens_key": "stp_tokens", "precision": "fp32"},
        "version": stp.__version__,
        "model": {
            "name": "Stamp",
            "class": "Stamp",
            "digest": stamp.digest,
            "vocabulary": vocabulary,
        },
    }


def test_keys_are_those_given(table, stamp):
    table.obsm["my_tokens"] = table.obsm.pop("stp_tokens")
    table.uns["my_tokens"] = table.uns.pop("stp_tokens")
    tl.embed_genes(table, stamp, tokens_key="my_tokens", key_added="mine")
    assert {"mine", "mine_aligned"} <= set(table.obsm) and not {*KEYS} & set(table.obsm)
    assert table.uns["mine"]["params"]["tokens_key"] == "my_tokens"


def test_copy_leaves_the_original(table, stamp):
    result = tl.embed_genes(table, stamp, copy=True)
    assert (
        {*KEYS} <= set(result.obsm)
        and not {*KEYS} & set(table.obsm)
        and "X_stp_genes" not in table.uns
    )


def test_spatialdata_is_annotated_in_its_table(sdata, stamp):
    tl.tokenize(sdata, stamp, context_length=32)
    copied = tl.embed_genes(sdata, stamp, copy=True)
    assert "X_stp_genes" not in sdata.tables["table"].obsm
    tl.embed_genes(sdata, stamp)
    np.testing.assert_array_equal(
        sdata.tables["table"].obsm["X_stp_genes"], copied.obsm["X_stp_genes"]
    )


def test_model_is_left_as_it_was(table, stamp):
    stamp.train()
    before = {name: tensor.clone() for name, tensor in stamp.state_dict().items()}
    tl.embed_genes(table, stamp)
    assert stamp.training and stamp.gene_encoder.training
    assert all(p.requires_grad and p.grad is None for p in stamp.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in stamp.state_dict().items())


def test_bf16_is_near_fp32(table, stamp):
    tl.embed_genes(table, stamp, precision="fp32")
    tl.embed_genes(table, stamp, precision="bf16", key_added="half")
    has_tokens = ~empty(table)
    full = table.obsm["X_stp_genes"][has_tokens]
    half = table.obsm["half"][has_tokens]
    assert half.dtype == np.float32
    assert 1e-5 < np.linalg.norm(half - full) / np.linalg.norm(full) < 0.03


def test_progress_is_silent_off_a_terminal(table, stamp, capfd):
    tl.embed_genes(table, stamp)
    assert capfd.readouterr().err == ""


def test_missing_tokens_name_the_call(adata, stamp):
    with pytest.raises(
        KeyError,
        match=r"obsm\['stp_tokens'\] is missing; run stp\.tl\.tokenize\(adata, model\) first",
    ):
        tl.embed_genes(adata, stamp)


def test_tokens_whose_vocabulary_was_lost_are_refused(table, stamp):
    del table.uns["stp_tokens"]
    with pytest.raises(
        ValueError, match=r"with which vocabulary obsm\['stp_tokens'\] .*stp\.get\.concat"
    ):
        tl.embed_genes(table, stamp)
    assert not {*KEYS} & set(table.obsm)


def test_tokens_of_another_vocabulary_are_refused(table, stamp, vocabulary):
    with pytest.warns(UserWarning, match="no counts"):
        tl.tokenize(table, vocabulary.fit(table), context_length=32)
    with pytest.raises(
        ValueError,
        match=r"another vocabulary than the model's; run stp\.tl\.tokenize\(adata, model\)",
    ):
        tl.embed_genes(table, stamp)
    assert not {*KEYS} & set(table.obsm)


def test_a_table_without_any_token_is_refused(table, stamp):
    table.obsm["stp_tokens"][:] = 0
    with pytest.raises(ValueError, match="there is no spot to embed"):
        tl.embed_genes(table, stamp)


def test_unknown_precision_is_refused(table, stamp):
    with pytest.raises(ValueError, match="precision must be 'auto', 'bf16' or 'fp32', not 'fp16'"):
        tl.embed_genes(table, stamp, precision="fp16")


def test_tokens_that_were_cut_shorter_than_the_model_reads_are_warned_of(adata, stamp):
    tl.tokenize(adata, stamp, context_length=8)
    with pytest.warns(
        UserWarning,
        match="only the first 8 genes were kept, and the model reads 32; run stp.tl.token",
    ) as caught:
        tl.embed_genes(adata, stamp)
    assert caught[0].filename == __file__


def spoil(model, parameter, value):
    with torch.no_grad():
        model.get_parameter(parameter).fill_(value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("precision", "remedy"),
    [("fp32", "check the weights of the model"), ("bf16", 'pass precision="fp32", or check')],
    ids=["fp32", "bf16"],
)
def test_features_that_are_not_finite_are_an_error(table, stamp, value, precision, remedy):
    stamp.name = "mine"
    tokens = table.obsm["stp_tokens"]
    has_token = (tokens == tokens[1, 0]).any(axis=1)
    rows = np.flatnonzero(has_token)
    assert 4 < len(rows) < 98
    with torch.no_grad():
        stamp.gene_encoder.embeddings.weight[tokens[1, 0]] = value
    with pytest.raises(
        ValueError,
        match=f"features that mine computed in {precision} are NaN or infinite in row "
        f"{rows[0]}, {rows[1]}, {rows[2]} and {len(rows) - 3} more, so nothing was written; "
        f"{remedy}",
    ):
        tl.embed_genes(table, stamp, precision=precision, batch_size=100)
    assert not set(KEYS) & {*table.obsm, *table.uns}


def test_aligned_vectors_that_are_not_finite_are_an_error(table, stamp):
    spoil(stamp, "gene_projection.bias", np.nan)
    with pytest.raises(ValueError, match=r"Stamp computed in fp32 .* in row \d+, \d+, \d+ and"):
        tl.embed_genes(table, stamp)
    assert not set(KEYS) & {*table.obsm, *table.uns}
    tl.embed_genes(table, stamp.gene_encoder)  # whose features are finite
    assert "X_stp_genes" in table.obsm


def test_what_embeds_no_genes_is_refused_with_the_call_that_does(table, stamp):
    with pytest.raises(TypeError, match=r"got ImageEncoder; stp\.tl\.embed_images embeds"):
        tl.embed_genes(table, stamp.image_encoder)


def test_padding_of_the_tokens_does_not_change_a_bit_of_the_features(adata, stamp):
    adata.X = adata.X.multiply(np.arange(32) < 24).tocsr()
    tl.tokenize(adata, stamp)
    tl.embed_genes(adata, stamp)
    narrow = adata.obsm["stp_tokens"]
    padded = adata.copy()
    padded.obsm["stp_tokens"] = np.pad(narrow, ((0, 0), (0, 32 - narrow.shape[1])))
    assert narrow.shape[1] < 32
    tl.embed_genes(padded, stamp)
    for key in ("X_stp_genes", "X_stp_genes_aligned"):
        np.testing.assert_array_equal(adata.obsm[key], padded.obsm[key])


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_tokens_that_anndata_cut_or_filled_are_refused(adata, stamp, join):
    first, second = adata[:50].copy(), adata[50:].copy()
    for table, context_length in ((first, 6), (second, 9)):
        tl.tokenize(table, stamp, context_length=context_length)
    joined = anndata.concat([first, second], join=join, uns_merge="first")
    with pytest.raises(ValueError, match="anndata.concat cuts or fills.*combine.*stp.get.concat"):
        tl.embed_genes(joined, stamp)


def test_tokens_that_are_shorter_than_the_context_were_not_cut(adata, stamp):
    tl.tokenize(adata, stamp)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.embed_genes(adata, stamp)
