import anndata
import numpy as np
import pytest
import scanpy as sc
import torch

from stp import Vocabulary, get, tl, train
from stp.metrics import gene_pearson
from stp.models import ExpressionHead, ExpressionHeadConfig

GENES = ["EPCAM", "LUM", "CD3E"]
CONFIG = train.RegressionConfig(epochs=60, batch_size=16, learning_rate=1e-3, device="cpu")


@pytest.fixture
def slide(adata, record_model):
    """Features that tell expression, but for noise."""
    normal = sc.pp.log1p(
        sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True
    ).X.toarray()
    rng = np.random.default_rng(0)
    adata.obsm["X_stp_images"] = (normal[:, :12] @ rng.normal(size=(12, 20)) / 10).astype(
        np.float32
    )
    adata.obsm["X_stp_images"][7] = np.nan
    record_model(adata, "X_stp_images")
    return adata


def test_parameters_at_paper_size():
    head = ExpressionHead(ExpressionHeadConfig(1024, tuple(map(str, range(5000))), ""))
    assert sum(p.numel() for p in head.parameters()) == 9_322_376  # 9.32 M


def test_it_learns_and_is_applied(slide, tmp_path):
    training_slide, validation_slide = slide[:70].copy(), slide[70:].copy()
    head = train.fit_expression_head(training_slide, tmp_path, genes=GENES, config=CONFIG)
    assert tl.apply_expression_head(validation_slide, head) is None
    predicted = get.expression(validation_slide)
    assert (
        list(predicted.var_names) == GENES
        and predicted.uns["units"] == "log1p of counts per 10,000"
    )
    measured = sc.pp.log1p(
        sc.pp.normalize_total(validation_slide, target_sum=1e4, copy=True), copy=True
    )[:, GENES].X.toarray()
    assert gene_pearson(measured, predicted.X).mean() > 0.5
    again = ExpressionHead.from_pretrained(tmp_path)
    assert again.digest == head.digest and again.config.genes == tuple(GENES)
    slide.obsm["X_stp_images"][7] = np.nan
    tl.apply_expression_head(slide, again)
    assert np.flatnonzero(np.isnan(slide.obsm["stp_expression"]).all(axis=1)).tolist() == [7]


def test_training_stops_when_the_error_no_longer_falls_and_keeps_the_best(slide, tmp_path):
    config = train.RegressionConfig(epochs=60, batch_size=16, patience=2, learning_rate=0.05)
    training_slide, validation_slide = slide[:70].copy(), slide[70:].copy()
    head = train.fit_expression_head(
        training_slide, tmp_path, genes=GENES, config=config, validation=[validation_slide]
    )
    lines = [
        line
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
        if '"validation"' in line
    ]
    errors = [float(line.split('"mse": ')[1].split(",")[0]) for line in lines]
    assert len(errors) < 60 and np.argmin(errors) == len(errors) - 3
    measured = sc.pp.log1p(
        sc.pp.normalize_total(validation_slide, target_sum=1e4, copy=True), copy=True
    )[:, GENES].X.toarray()
    with torch.no_grad():
        predicted = head(torch.from_numpy(validation_slide.obsm["X_stp_images"])).numpy()
    assert ((predicted - measured) ** 2).mean() == pytest.approx(min(errors), rel=1e-4)


def test_a_run_resumes_after_early_stopping(slide, tmp_path):
    arguments = {"genes": GENES, "config": CONFIG, "validation": [slide[70:].copy()]}
    first = train.fit_expression_head(slide[:70].copy(), tmp_path, **arguments)
    assert (
        train.fit_expression_head(slide[:70].copy(), tmp_path, **arguments).digest == first.digest
    )
    with pytest.raises(ValueError, match=r"other settings \(data\)"):
        train.fit_expression_head(slide[:60].copy(), tmp_path, **arguments)


def test_bad_input(slide, tmp_path, record_model):
    head = ExpressionHead(ExpressionHeadConfig(20, ("LUM",), "", "1" * 64))
    with pytest.raises(
        ValueError, match="not made by the model whose features the head was fitted on"
    ):
        tl.apply_expression_head(slide, head)
    with pytest.raises(KeyError, match="pass genes="):
        train.fit_expression_head(slide, tmp_path)
    other = slide.copy()
    record_model(other, "X_stp_images", digest="1" * 64)
    with pytest.raises(ValueError, match="embeddings of different models"):
        train.fit_expression_head([slide, other], tmp_path, genes=GENES)
    del other.obsm["X_stp_images"]
    with pytest.raises(
        KeyError, match=r"obsm\['X_stp_images'\] of validation: reference 0 is missing; run stp\.tl"
    ):
        train.fit_expression_head(slide, tmp_path, genes=GENES, validation=other)
    empty = anndata.AnnData(
        slide.X, var=slide.var, obsm={"X_stp_images": np.full((100, 20), np.nan, np.float32)}
    )
    record_model(empty, "X_stp_images")
    with pytest.raises(ValueError, match="no spot of reference 0 has all of"):
        train.fit_expression_head(empty, tmp_path, genes=GENES)
    assert not list(tmp_path.iterdir())


def test_slides_with_symbols_and_with_ids_are_fitted_together(slide, tmp_path):
    default = Vocabulary.default()
    training_slide, validation_slide = slide[:70].copy(), slide[70:].copy()
    validation_slide.var_names = default.gene_ids[default.encode(slide.var_names)]
    config = train.RegressionConfig(epochs=1, batch_size=16, device="cpu")
    head = train.fit_expression_head(
        training_slide, tmp_path, genes=["HER2", "LUM"], config=config, validation=validation_slide
    )
    assert head.config.genes == ("ERBB2", "LUM")
    tl.apply_expression_head(validation_slide, head)
    var = get.expression(validation_slide).var
    assert var["gene_id"].tolist() == ["ENSG00000141736", "ENSG00000139329"]
    assert var["is_measured"].all()
