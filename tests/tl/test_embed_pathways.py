import anndata
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from stp import tl
from stp.models import Stamp, StampConfig

SETS = {
    "EPITHELIUM": ["EPCAM", "KRT8", "KRT18", "ERBB2"],
    "STROMA": ["COL1A1", "COL1A2", "DCN", "LUM"],
}


@pytest.fixture
def stamp(tiny_config, vocabulary):
    """A Stamp of pathways alone, standardized on nothing."""
    config = StampConfig(
        None, tiny_config.image, 32, {name: len(genes) for name, genes in SETS.items()}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Stamp(config, vocabulary).eval()
    genes = [vocabulary.encode(names) for names in SETS.values()]
    model.pathway_encoder.fit(
        genes, [np.array([[1.0, 1.0], [3.0, 5.0]], np.float32)]
    )  # means 2, 3; deviations 1, 2
    return model


def test_activities_by_hand(adata, stamp):
    tl.embed_pathways(adata, stamp)
    logs = np.log1p(adata.to_df().div(adata.to_df().sum(axis=1), axis=0) * 1e4)
    expected = [
        (logs[SETS["EPITHELIUM"]].mean(axis=1) - 2),
        (logs[SETS["STROMA"]].mean(axis=1) - 3) / 2,
    ]
    np.testing.assert_allclose(
        adata.obsm["X_stp_pathways"], np.column_stack(expected), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        np.linalg.norm(adata.obsm["X_stp_pathways_aligned"], axis=1), 1, rtol=1e-5
    )
    details = adata.uns["X_stp_pathways"]
    assert list(details["sets"]) == list(SETS)
    assert details["measured"].tolist() == [1, 1]
    assert details["model"]["digest"] == stamp.digest


def test_a_model_that_lacks_the_genes_of_the_table_says_so(adata, stamp):
    umis = adata.X.sum(axis=0).A1
    names = adata.var_names.to_numpy().copy()
    largest = np.argsort(-umis)[:24]
    names[largest] = stamp.vocabulary.default().symbols[largest + 500]
    adata.var_names = names
    share = 100 * (1 - umis[largest].sum() / umis.sum())
    message = (
        rf"this model knows 32 genes; they hold {share:.1f} % of the UMIs of this table "
        r"\(its card names no training data\)"
    )
    with pytest.raises(ValueError, match=message):
        tl.embed_pathways(adata, stamp)


def test_spots_keep_their_rows_and_empty_ones_are_flagged(adata, stamp):
    whole = tl.embed_pathways(adata, stamp, copy=True).obsm["X_stp_pathways"]
    counts = adata.X.toarray()
    counts[3] = 0
    adata.X = csr_matrix(counts)
    tl.embed_pathways(adata, stamp)
    part = adata.obsm["X_stp_pathways"]
    assert np.isnan(part[3]).all()
    np.testing.assert_array_equal(np.delete(part, 3, axis=0), np.delete(whole, 3, axis=0))


def test_sets_that_a_table_does_not_measure_count_as_average(adata, stamp, caplog):
    part = adata[:, [name for name in adata.var_names if name not in SETS["STROMA"]]].copy()
    tl.embed_pathways(part, stamp)
    assert (part.obsm["X_stp_pathways"][:, 1] == 0).all()
    assert part.uns["X_stp_pathways"]["measured"].tolist() == [1, 0]
    assert "1 of 2 gene sets have no gene in the table" in caplog.text


def test_expression_is_retrieved_through_pathways(sdata, slide_of, stamp):
    reference = slide_of(1)[0]
    tl.embed_images(sdata, stamp)
    with pytest.raises(KeyError, match=r"run stp.tl.embed_pathways\(reference, model\) first"):
        tl.predict_expression(sdata, reference, reference_rep="X_stp_pathways_aligned")
    tl.embed_pathways(reference, stamp)
    tl.predict_expression(
        sdata,
        reference,
        reference_rep="X_stp_pathways_aligned",
        genes=["EPCAM", "DCN"],
        n_neighbors=5,
    )
    assert np.isfinite(sdata.tables["table"].obsm["stp_expression"]).all()


def test_results_survive_h5ad(adata, stamp, tmp_path):
    tl.embed_pathways(adata, stamp)
    adata.write_h5ad(tmp_path / "out.h5ad")
    again = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert list(again.uns["X_stp_pathways"]["sets"]) == list(SETS)


def test_a_model_without_pathways_is_refused(adata, tiny_config, vocabulary, stamp):
    genes = Stamp(tiny_config, vocabulary)
    with pytest.raises(
        ValueError, match=r"this Stamp knows no pathways; align a Stamp with AlignConfig\(targets="
    ):
        tl.embed_pathways(adata, genes)
    with pytest.raises(ValueError, match="no pathways"):
        genes.encode_pathways(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="reads no tokens; use its pathways"):
        stamp.encode_genes(torch.zeros(1, 8, dtype=int))


def test_features_that_are_not_finite_are_an_error(adata, stamp):
    with torch.no_grad():
        stamp.pathway_projection.bias.fill_(np.nan)
    with pytest.raises(ValueError, match="features that Stamp computed in fp32 are NaN or infinit"):
        tl.embed_pathways(adata, stamp)
    assert not {"X_stp_pathways", "X_stp_pathways_aligned"} & {*adata.obsm, *adata.uns}
