"""Attention and contributions of tiles: exact, over all slides of a patient, and checked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata
import torch
from scipy.stats import rankdata
from tests.cohorts import make_cohort, write_features
from tests.features import tiny_encoder, write_wsi
from tests.scored_tiles import TILE_UM
from tests.scored_tiles import make_model as make_tile_model

from stp import io, models, tl, train
from stp.models.slide_config import SlideFeatures, SlideModelConfig, SlideTarget

SMALL = {"hidden": 16, "attention": 8, "device": "cpu", "learning_rate": 5e-3}
CONFIG = train.SlideConfig(epochs=4, **SMALL)
TARGETS = [
    train.Classes("EGFR", positive="mutated"),
    train.Value("purity"),
    train.Survival("days", "event"),
]


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """The cohort and the folder of a cross-validation."""
    cohort = make_cohort(tmp_path_factory.mktemp("training"))
    path = tmp_path_factory.mktemp("cv")
    options = {"targets": TARGETS[0], "fold_key": "fold", "config": CONFIG}
    train.cross_validate_slides(cohort, path, **options)
    return cohort, path


@pytest.fixture(scope="module")
def three_targets(folds, tmp_path_factory):
    path = tmp_path_factory.mktemp("three")
    return train.fit_slides(folds[0], path, targets=TARGETS, config=CONFIG)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two new patients: Y has three slides, Z one."""
    folder = tmp_path_factory.mktemp("new")
    rng = np.random.default_rng(7)
    rows = []
    for patient, slide, n_tiles in [("Y", "b", 9), ("Z", "z", 11), ("Y", "a", 6), ("Y", "c", 14)]:
        write_features(folder / f"{slide}.h5", rng.normal(0.3, 1, (n_tiles, 8)))
        rows.append({"patient": patient, "slide": slide})
    return io.read_cohort(pd.DataFrame(rows), root=folder)


@pytest.fixture
def paths(cohort):
    """The files of the three slides of patient Y, by name."""
    return {name: Path(cohort.obs.loc[name, "path"]) for name in "abc"}


def logits_of(table):
    outputs = table.uns["stp_attention"]["outputs"]
    return outputs["logit"].to_numpy(), outputs["bias"].to_numpy()


def test_a_map_adds_up_to_the_prediction_of_a_patient_of_three_slides(cohort, three_targets, paths):
    tl.predict_slides(cohort, three_targets)
    expected = cohort.obsm["stp_slides"][cohort.obs_names.get_loc("b")]
    attention = 0
    contributions = 0
    for name, path in paths.items():
        table = io.read_features(path)["table"]
        others = [other for key, other in paths.items() if key != name]
        tl.score_tiles(table, three_targets, other_slides=others[::-1])
        entry = table.uns["stp_attention"]
        predictions = entry["predictions"]
        assert list(predictions.index) == cohort.uns["stp_slides"]["outputs"]
        np.testing.assert_allclose(predictions["value"], expected, rtol=1e-5)
        assert (entry["n_slides"], entry["n_tiles"]) == (3, 29)
        columns = ["stp_attention_EGFR", "stp_attention_purity", "stp_attention_days"]
        attention += table.obs[columns].sum().to_numpy()
        contributions += table.obsm["stp_attention_contribution"].sum(axis=0)
    np.testing.assert_allclose(attention, 1, atol=1e-6)
    logits, bias = logits_of(table)
    np.testing.assert_allclose(contributions + bias, logits, atol=1e-5)
    survival = np.cumprod(1 / (1 + np.exp(logits[3:])))
    np.testing.assert_allclose(-survival.sum(), expected[3], rtol=1e-5)


def test_contributions_are_those_of_a_slow_loop(three_targets, paths):
    table = io.read_features(paths["c"])["table"]
    tl.score_tiles(table, three_targets)
    model = three_targets
    features = torch.from_numpy(table.obsm["X_features"])
    with torch.inference_mode():
        hidden = torch.relu(model.tiles[0](features))
        for column, branch, head in zip(
            ["EGFR", "purity", "days"], model.branches, model.heads, strict=True
        ):
            scores = torch.cat([branch(tile[None]) for tile in hidden]).flatten()
            weights = (scores.exp() / scores.exp().sum()).numpy()
            observed = table.obs[f"stp_attention_{column}"]
            np.testing.assert_allclose(observed, weights, rtol=1e-4)
            ranks = (rankdata(weights) - 1) / (len(weights) - 1)
            np.testing.assert_allclose(table.obs[f"stp_attention_{column}_rank"], ranks, rtol=1e-6)
            if column == "purity":
                effects = weights * (hidden @ head.weight[0]).numpy()
                observed = table.obsm["stp_attention_contribution"][:, 2]
                np.testing.assert_allclose(observed, effects, rtol=1e-3, atol=1e-6)


def test_the_map_of_a_fold_is_that_of_the_out_of_fold_prediction(folds):
    cohort, path = folds
    tl.predict_slides(cohort, path, key_added="scored")
    row = cohort.obs_names.get_loc("P003_1")
    fold = cohort.obs["fold"].iloc[row]
    other = cohort.obs.loc["P003_0", "path"]
    tiles = io.read_features(cohort.obs["path"].iloc[row])
    tl.score_tiles(tiles, path / f"fold_{fold}", other_slides=other)
    predictions = tiles["table"].uns["stp_attention"]["predictions"]["value"]
    np.testing.assert_allclose(predictions, cohort.obsm["scored"][row], atol=1e-6)
    assert "stp_attention" in tiles["table"].obs


def test_a_cross_validation_has_several_maps(folds, paths):
    tiles = io.read_features(paths["a"])
    with pytest.raises(ValueError, match=r"is a cross-validation of 3 models.*fold_0: .*folds.csv"):
        tl.score_tiles(tiles, folds[1])


def test_several_models_are_refused(three_targets, paths):
    tiles = io.read_features(paths["a"])
    with pytest.raises(TypeError, match="model is a list; give one SlideModel"):
        tl.score_tiles(tiles, [three_targets])


def make_model(width=8, pooling="attention", digest=None, **options):
    target = SlideTarget("classes", "EGFR", ("mutated", "wild type"), temperature=2.0)
    features = SlideFeatures(width, "Stamp", "Stamp", digest, tile_um=112.0, um_per_px=0.5)
    config = SlideModelConfig(
        features, (target,), hidden=16, attention=8, pooling=pooling, **options
    )
    torch.manual_seed(0)
    return models.SlideModel(config).eval()


def test_a_transformer_has_no_contributions(paths):
    tiles = io.read_features(paths["a"])
    with pytest.raises(ValueError, match="pooling='transformer', whose logits are no sum"):
        tl.score_tiles(tiles, make_model(pooling="transformer"))


def test_features_of_another_encoder_are_refused(three_targets, paths, tmp_path):
    tiles = io.read_features(paths["a"])
    tiles["table"].uns["X_features"]["model"]["digest"] = "1" * 64
    with pytest.raises(KeyError, match="no features of uni with 8 values a tile"):
        tl.score_tiles(tiles, three_targets)
    with pytest.raises(ValueError, match=r"trained on uni \(.*and the table has uni \(1111"):
        tl.score_tiles(tiles, three_targets, use_rep="X_features")


def test_another_scale_of_another_slide_is_refused(three_targets, paths):
    tiles = io.read_features(paths["a"])
    other = io.read_features(paths["b"])
    other["table"].uns["X_features"]["params"]["tile_um"] = 224.0
    with pytest.raises(ValueError, match="tiles of other slide 1 have tile_um 224"):
        tl.score_tiles(tiles, three_targets, other_slides=[other])


def test_a_slide_that_is_there_twice_is_refused(three_targets, paths):
    tiles = io.read_features(paths["a"])
    with pytest.raises(ValueError, match=r"the table and .*a\.h5 have the same features"):
        tl.score_tiles(tiles, three_targets, other_slides=[paths["b"], paths["a"]])


def test_tables_and_files_are_the_same_slides(three_targets, paths):
    tables = [io.read_features(paths["a"]) for _ in range(2)]
    other = io.read_features(paths["b"])
    tl.score_tiles(tables[0], three_targets, other_slides=paths["b"])
    tl.score_tiles(tables[1], three_targets, other_slides=[other["table"]])
    first, second = (table["table"] for table in tables)
    pd.testing.assert_frame_equal(first.obs, second.obs)


def test_a_second_call_leaves_nothing_of_the_first(three_targets, folds, paths):
    tiles = io.read_features(paths["a"])
    tl.score_tiles(tiles, three_targets)
    tl.score_tiles(tiles, folds[1] / "fold_1")
    assert list(tiles["table"].obs.filter(like="stp_attention")) == [
        "stp_attention",
        "stp_attention_rank",
    ]


@pytest.mark.filterwarnings("error")
def test_spots_without_features_have_no_score_and_two_features_are_asked_for(adata, record_model):
    rng = np.random.default_rng(0)
    for key in ("X_stp_genes", "X_stp_genes_aligned"):
        adata.obsm[key] = rng.normal(size=(adata.n_obs, 8)).astype(np.float32)
        adata.obsm[key][3] = np.nan
    record_model(adata, "X_stp_genes")
    adata.uns["X_stp_genes"]["params"] = {"tokens_key": "stp_tokens"}
    model = make_model(digest="0" * 64)
    with pytest.raises(ValueError, match=r"any of \['X_stp_genes', 'X_stp_genes_aligned'\]"):
        tl.score_tiles(adata, model)
    scored = tl.score_tiles(adata, model, use_rep="X_stp_genes_aligned", copy=True)
    assert "stp_attention" not in adata.obs
    is_missing = scored.obs["stp_attention"].isna()
    assert is_missing.sum() == 1 and is_missing.iloc[3]
    assert scored.obs["stp_attention"].sum() == pytest.approx(1)
    assert np.isnan(scored.obsm["stp_attention_contribution"][3]).all()
    assert scored.uns["stp_attention"]["outputs"]["scale"].tolist() == [0.5, 0.5]


def test_averaged_tiles_have_equal_attention(paths):
    tiles = io.read_features(paths["c"])
    features = tiles["table"].uns["X_features"]["model"]["digest"]
    tl.score_tiles(tiles, make_model(pooling="mean", digest=features))
    table = tiles["table"]
    np.testing.assert_allclose(table.obs["stp_attention"], 1 / 14)
    assert (table.obs["stp_attention_rank"] == 0.5).all()


def test_results_are_stored_in_a_file(three_targets, paths, tmp_path):
    import anndata

    tiles = io.read_features(paths["c"])
    tl.score_tiles(tiles, three_targets)
    tiles["table"].write_h5ad(tmp_path / "tiles.h5ad")
    stored = anndata.read_h5ad(tmp_path / "tiles.h5ad")
    outputs = stored.uns["stp_attention"]["outputs"]
    assert list(outputs.index[:3]) == ["EGFR_mutated", "EGFR_wild type", "purity"]
    assert outputs["positive"].tolist()[:3] == [True, False, False]


def test_maps_of_tile_stores_add_up_to_their_prediction(tmp_path):
    """The table of a store, and the path of the other store."""
    paths = []
    for seed, name in enumerate("ab"):
        write_wsi(tmp_path / f"{name}.tif", seed=seed)
        sdata = io.read_wsi(tmp_path / f"{name}.tif", tile_um=TILE_UM)
        tl.embed_images(sdata, tiny_encoder(), progress=False)
        paths.append(tmp_path / f"{name}.zarr")
        io.write_tiles(sdata, paths[-1])
    model = make_tile_model(sdata["table"])
    slides = pd.DataFrame({"patient": "P", "slide": ["a", "b"]})
    cohort = io.read_cohort(slides, root=tmp_path)
    with pytest.warns(UserWarning, match="no record of its patients"):
        tl.predict_slides(cohort, model)
    for path, other in (paths, paths[::-1]):
        tiles = spatialdata.read_zarr(path)
        tl.score_tiles(tiles, model, other_slides=other)
        predictions = tiles["table"].uns["stp_attention"]["predictions"]["value"]
        np.testing.assert_allclose(predictions, cohort.obsm["stp_slides"][0], atol=1e-6)
        io.write_results(tiles)
    shares = [read_table(path).obs["stp_attention"].sum() for path in paths]
    assert sum(shares) == pytest.approx(1, abs=1e-6)


def read_table(path):
    return spatialdata.read_zarr(path)["table"]


def test_a_path_is_refused_because_scores_would_be_lost(three_targets, paths):
    with pytest.raises(TypeError, match=r"adata is the path .*a.h5; open it with spatialdata"):
        tl.score_tiles(paths["a"], three_targets)
