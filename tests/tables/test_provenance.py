"""Each embedding has a record of its model, and embeddings without one are refused."""

import anndata
import numpy as np
import pytest
import torch

import stp
from stp import tl
from stp.models import Stamp
from stp.tables.provenance import model_of, require_one_model

GENE = ["EPCAM"]


@pytest.fixture
def other(stamp):
    """A copy of the model in which one weight differs."""
    twin = Stamp(stamp.config, stamp.vocabulary).eval()
    twin.load_state_dict(stamp.state_dict())
    with torch.no_grad():
        twin.gene_encoder.embeddings.weight[31, 0] += 1e-3
    return twin


@pytest.fixture
def parts(stamp, slide_of):
    """The tables of two slides with embedded genes."""
    tables = [slide_of(seed)[0] for seed in (1, 2)]
    for table in tables:
        tl.tokenize(table, stamp, context_length=32)
        tl.embed_genes(table, stamp)
    return tables


def joined(tables, uns_merge=None):
    return anndata.concat(tables, index_unique="-", uns_merge=uns_merge)


def test_every_embedding_has_a_record_of_its_model(embedded, stamp):
    tl.fuse(embedded)
    tl.predict_expression(embedded, embedded, genes=GENE)
    table = embedded.tables["table"]
    expected = {
        "name": "Stamp",
        "class": "Stamp",
        "digest": stamp.digest,
        "vocabulary": stamp.vocabulary.digest,
    }
    for key in ("X_stp_genes", "X_stp_images", "X_stp_fused", "stp_expression"):
        assert table.uns[key]["model"] == expected
        assert table.uns[key]["version"] == stp.__version__
    assert table.uns["stp_tokens"]["params"]["vocabulary"] == stamp.vocabulary.digest
    assert table.uns["stp_tokens"]["version"] == stp.__version__
    assert table.uns["X_stp_images"]["params"]["um_per_px"] == 4.0


def test_a_model_is_named_by_its_folder(stamp, adata, tmp_path):
    stamp.save_pretrained(tmp_path / "mine")
    loaded = Stamp.from_pretrained(tmp_path / "mine")
    tl.tokenize(adata, loaded, context_length=32)
    tl.embed_genes(adata, loaded)
    assert adata.uns["X_stp_genes"]["model"]["name"] == "mine"
    assert adata.uns["X_stp_genes"]["model"]["digest"] == stamp.digest


def test_fuse_refuses_embeddings_of_different_models(embedded, other):
    tl.embed_genes(embedded, other)
    message = (
        r"different models do not mix: obsm\['X_stp_genes'\] by Stamp \(\w{12}\); "
        r"obsm\['X_stp_images'\] by Stamp"
    )
    with pytest.raises(ValueError, match=message):
        tl.fuse(embedded)
    assert "X_stp_fused" not in embedded.tables["table"].obsm


def test_retrieval_refuses_a_reference_of_another_model(embedded, parts, other):
    tl.predict_expression(embedded, parts[0], genes=GENE)
    tl.embed_genes(parts[0], other)
    message = (
        "do not mix: X_stp_images_aligned by .*; "
        "X_stp_genes_aligned of reference 0 by .*; embed all spots"
    )
    with pytest.raises(ValueError, match=message):
        tl.predict_expression(embedded, parts[0], genes=GENE)


def test_retrieval_refuses_a_reference_of_unknown_origin(embedded, parts):
    parts[0].obsm["mine"] = parts[0].obsm["X_stp_genes_aligned"]
    with pytest.raises(ValueError, match="mine of reference 0 by an unknown model"):
        tl.predict_expression(embedded, parts[0], reference_rep="mine", genes=GENE)


def test_what_concat_loses_is_an_error_that_names_the_remedy(embedded, parts, stamp):
    with pytest.raises(
        ValueError, match=r"model that made obsm\['X_stp_genes_aligned'\].*stp\.get\.concat"
    ):
        tl.predict_expression(embedded, joined(parts), genes=GENE)
    with pytest.raises(
        ValueError, match=r"with which vocabulary obsm\['stp_tokens'\] was made.*stp\.get\.concat"
    ):
        tl.embed_genes(joined(parts), stamp)


def test_what_concat_keeps_is_enough(embedded, parts, stamp):
    whole = joined(parts, uns_merge="same")
    tl.predict_expression(embedded, whole, genes=GENE)
    tl.embed_genes(whole, stamp, key_added="again")
    assert embedded.tables["table"].uns["stp_expression"]["model"]["digest"] == stamp.digest


def test_tables_of_two_models_lose_the_digest_when_they_are_joined(embedded, parts, other):
    tl.embed_genes(parts[1], other)
    with pytest.raises(ValueError, match="if the tables were embedded with different models"):
        tl.predict_expression(embedded, joined(parts, uns_merge="same"), genes=GENE)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_the_record_survives_on_disk(embedded, form, tmp_path):
    table = embedded.tables["table"]
    tl.fuse(table, use_reps=["spatial"], key_added="foreign")
    getattr(table, f"write_{form}")(tmp_path / "x")
    back = getattr(anndata, f"read_{form}")(tmp_path / "x")
    assert model_of(back, "X_stp_genes_aligned") == model_of(table, "X_stp_genes")
    assert model_of(back, "foreign") is None
    tl.fuse(back)


def test_embeddings_of_others_may_be_fused_with_ours(embedded, stamp):
    table = embedded.tables["table"]
    table.obsm["X_pca"] = np.ones((100, 3), np.float32)
    table.uns["X_pca"] = {"variance": 1.0}
    tl.fuse(table, use_reps=["X_pca", "X_stp_images"])
    assert table.uns["X_stp_fused"]["model"]["digest"] == stamp.digest
    tl.fuse(table, use_reps=["X_pca"])
    assert model_of(table, "X_stp_fused") is None


def test_one_model(record_model, adata):
    record_model(adata, "a", "b")
    record_model(adata, "c", digest="1" * 64)
    models = {key: model_of(adata, key) for key in "abc"}
    assert require_one_model({key: models[key] for key in "ab"}) == models["a"]
    assert require_one_model({}) is None
    with pytest.raises(ValueError, match=r"a by model \(0{12}\); c by model \(1{12}\)"):
        require_one_model({key: models[key] for key in "ac"})
