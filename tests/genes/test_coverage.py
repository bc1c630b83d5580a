"""What is reported if a model or a vocabulary does not know the genes of a table."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest

from stp import Vocabulary, tl
from stp.io import write_store
from stp.models import GeneEncoder, GeneEncoderConfig, ModelCard

KNOWN = ["EPCAM", "KRT8", "ERBB2"]
OTHERS = ["CD3E", "LUM", "MALAT1", "FUBAR"]
SOURCE = "pretrain: 9 spots of C1.zarr"


def table(known_umis, other_umis=60):
    """Make one spot: known genes, other human genes, a non-coding gene and an unknown name."""
    counts = [known_umis - 1, 1, 0, other_umis - 1, 1, 6, 1]
    return anndata.AnnData(np.array([counts], np.float32), var=pd.DataFrame(index=KNOWN + OTHERS))


@pytest.fixture(scope="module")
def few():
    """Return a vocabulary of three genes with means."""
    default = Vocabulary.default()
    index = default.encode(KNOWN)
    genes = Vocabulary.from_genes(default.gene_ids[index], default.symbols[index])
    return replace(genes, means=np.ones(3))


@pytest.fixture(scope="module")
def model(few):
    size = GeneEncoderConfig(context_length=8, width=16, depth=1, n_heads=2, ffn_width=16)
    encoder = GeneEncoder(size, few)
    encoder.card = ModelCard(trained_on=(SOURCE,))
    return encoder


MODEL_MESSAGE = (
    r"^this model knows 3 genes; they hold 33\.0 % of the UMIs of this table \(trained on "
    r"pretrain: 9 spots of C1\.zarr\); use a model that was trained on such data, or add the genes "
    r"with stp\.models\.grow and train it on them$"
)
VOCABULARY_MESSAGE = (
    r"this vocabulary knows 3 genes; they hold 33\.0 % of the UMIs of this table; use one with the "
    r"genes of this table, such as Vocabulary\.default\(\) for human ones$"
)


def test_a_model_states_its_genes_their_share_and_its_training(model):
    with pytest.raises(ValueError, match=MODEL_MESSAGE):
        tl.tokenize(table(33), model)


def test_a_model_in_a_folder_states_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=MODEL_MESSAGE):
        tl.tokenize(table(33), tmp_path / "model")


def test_a_model_without_a_training_says_that(few, model):
    bare = GeneEncoder(model.config, few)
    with pytest.raises(ValueError, match=r"table \(its card names no training data\); use a model"):
        tl.tokenize(table(33), bare)


def test_a_vocabulary_states_its_genes_and_their_share(few, tmp_path):
    few.save(tmp_path / "few.parquet")
    for vocabulary in (few, tmp_path / "few.parquet"):
        with pytest.raises(ValueError, match=f"^{VOCABULARY_MESSAGE}"):
            tl.tokenize(table(33), vocabulary)


def test_means_and_stores_of_a_small_vocabulary_state_the_same(few, tmp_path):
    with pytest.raises(ValueError, match=f"^1 spots x 7 genes: {VOCABULARY_MESSAGE}"):
        few.fit(table(33))
    spots = table(33)
    spots.obsm["spatial"] = np.zeros((1, 2))
    with pytest.raises(ValueError, match=VOCABULARY_MESSAGE):
        write_store(spots, tmp_path / "a.zarr", vocabulary=few)


@pytest.mark.filterwarnings("ignore:the table measures")
def test_between_half_and_four_fifths_it_is_a_warning(model):
    spots = table(100)
    with pytest.warns(
        UserWarning, match=r"this model knows 3 genes; they hold 59\.9 % of the UMIs"
    ):
        tl.tokenize(spots, model)
    report = spots.uns["stp_tokens"]
    assert report["coverage"] == pytest.approx(100 / 167)
    assert report["unmapped"]["rule"].to_dict() == {
        "CD3E": "other gene",
        "LUM": "other gene",
        "MALAT1": "non-coding",
        "FUBAR": "unknown",
    }


def test_other_reasons_get_the_advice_on_names(model):
    spots = table(33)
    spots.var_names = [*KNOWN, "probe1", "probe2", "MALAT1", "FUBAR"]
    message = (
        r"^only 33\.0% of UMIs .* \(not in it: unknown 61\.0%, non-coding 6\.0%\); check species"
    )
    with pytest.raises(ValueError, match=message):
        tl.tokenize(spots, model)


@pytest.mark.filterwarnings("ignore:the table measures", "ignore:this vocabulary knows")
@pytest.mark.parametrize("make", [lambda X: X, lambda X: X.toarray(), "dask"])
def test_shares_of_rules_are_exact_sums_of_counts(few, make):
    """Blocks, dense arrays and Dask: sums above 2**24, where float32 loses ones, are exact."""
    import dask.array
    import scipy.sparse

    counts = np.array([[2**24, 1, 0, 3, 0, 0, 0], [2**24, 1, 1, 0, 5, 0, 2]], np.float32)
    spots = anndata.AnnData(var=pd.DataFrame(index=KNOWN + OTHERS), shape=(2, 7))
    if make == "dask":
        spots.X = dask.array.from_array(counts, chunks=(1, 7))
    else:
        spots.X = make(scipy.sparse.csr_matrix(counts))
    tl.tokenize(spots, few)
    rules = spots.uns["stp_tokens"]["rules"]["umis"]
    total = 2**25 + 13
    assert rules.to_dict() == {
        "symbol": (2**25 + 3) / total,
        "other gene": 8 / total,
        "non-coding": 0.0,
        "unknown": 2 / total,
    }
