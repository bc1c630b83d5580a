"""Fit and cross-validate slide models: sides of patients, resuming, processes."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from tests.cohorts import make_cohort, write_slides

from stp import pl, train
from stp.io import read_cohort

EGFR = train.Classes("EGFR", positive="mutated")
SMALL = {"hidden": 16, "attention": 8, "device": "cpu", "learning_rate": 5e-3}
CONFIG = train.SlideConfig(epochs=8, **SMALL)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return make_cohort(folder)


@pytest.fixture(scope="module")
def cross_validation(cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("cv")
    return path, train.cross_validate_slides(
        cohort, path, targets=EGFR, fold_key="fold", config=CONFIG
    )


def lines(path):
    text = (path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in text]


def test_it_learns_classes_values_and_survival_together(cohort, tmp_path):
    targets = [EGFR, train.Value("purity"), train.Survival("days", "event", n_intervals=3)]
    config = train.SlideConfig(epochs=30, balanced=True, patience=30, **SMALL)
    model = train.fit_slides(cohort, tmp_path, targets=targets, config=config, validation_share=0.3)
    assert model.card.metrics["auroc_EGFR"] > 0.9
    assert model.card.metrics["mse_purity"] < 0.6
    assert "c_index_days" in model.card.metrics
    classes, value, survival = model.config.targets
    assert classes.classes == ("mutated", "wild type") and classes.temperature != 1.0
    purity = cohort.obs.drop_duplicates("patient")["purity"]
    assert value.value_mean == pytest.approx(purity.mean()) and value.value_sd == pytest.approx(
        purity.std(ddof=0)
    )
    times = cohort.obs.drop_duplicates("patient").query("event == 1")["days"]
    assert survival.edges == pytest.approx(np.quantile(times, [1 / 3, 2 / 3]))
    assert model.config.features.tile_um == 112.0 and model.config.features.um_per_px == 0.5
    assert model.config.bag_sizes == (12, 28)
    pl.training(tmp_path, return_fig=True)


def test_statistics_are_those_of_the_tiles_that_the_model_has_seen(cohort, tmp_path):
    from stp.data.feature_files import open_features

    config = train.SlideConfig(epochs=1, standardize=True, **SMALL)
    cohort = cohort[cohort.obs["fold"] != 2].copy()
    model = train.fit_slides(cohort, tmp_path, targets=EGFR, config=config)
    slides = [open_features(path).read().astype(float) for path in cohort.obs["path"]]
    tiles = np.concatenate(slides)
    means = np.array([slide.mean(0) for slide in slides])
    np.testing.assert_allclose(model.feature_mean, tiles.mean(0), atol=1e-5)
    np.testing.assert_allclose(model.feature_sd, tiles.std(0), rtol=1e-4)
    np.testing.assert_allclose(model.slide_mean, means.mean(0), atol=1e-5)
    distances = []
    for number, mean in enumerate(means):
        others = np.delete(means, number, axis=0)
        distances.append(np.sqrt(np.square((mean - others.mean(0)) / others.std(0)).mean()))
    low, high = np.quantile(distances, (0.25, 0.75))
    fence = max(max(distances), high + 3 * (high - low))
    assert model.config.far_distance == pytest.approx(fence, rel=1e-4)


def test_features_that_are_constant_up_to_rounding_give_no_huge_distance(tmp_path):
    table = write_slides(tmp_path)
    for number, name in enumerate(table["slide"]):
        with h5py.File(tmp_path / f"{name}.h5", "r+") as file:
            features = file["feats"][:]
            features[:, 0] = 0.1
            features[:, 1] = 5.0 if number == 0 else 0.3
            file["feats"][:] = features
    config = train.SlideConfig(epochs=1, **SMALL)
    cohort = read_cohort(table, root=tmp_path)
    model = train.fit_slides(
        cohort, tmp_path / "run", targets=EGFR, config=config, validation_share=0
    )
    assert model.feature_sd[0] == 1
    n_slides = len(table)
    # The slide that differs is sqrt(n) spreads of all slides from the others, in one of 8 features.
    assert model.config.far_distance == pytest.approx(10 * np.sqrt(n_slides / 8), rel=0.1)


def test_each_fold_is_a_run_and_folds_are_listed(cohort, cross_validation):
    path, models = cross_validation
    assert json.loads((path / "models.json").read_text())["models"] == [
        "fold_0",
        "fold_1",
        "fold_2",
    ]
    assert [model.name for model in models] == ["fold_0", "fold_1", "fold_2"]
    table = pd.read_csv(path / "folds.csv")
    assert len(table) == 3 * 24
    fold_of = cohort.obs.drop_duplicates("patient").set_index("patient")["fold"]
    for fold, rows in table.groupby("fold"):
        side = rows.set_index("patient")["side"]
        assert set(side[side == "test"].index) == set(fold_of[fold_of == fold].index)
        validation = side[side == "validation"].index
        assert len(validation) == 4  # a fifth of 8 in each class
        assert len({name for name in validation if int(name[1:]) % 2}) == 2
    assert not (path / ".stp_scratch").exists()
    pl.training(path / "fold_0", return_fig=True)
    pl.training(path, return_fig=True)


def test_a_model_has_the_hashes_of_its_patients_and_no_others(cohort, cross_validation):
    path, models = cross_validation
    table = pd.read_csv(path / "folds.csv")
    for fold, model in enumerate(models):
        rows = table[table["fold"] == fold]
        hashes = model.hash_patients(rows["patient"])
        has_seen = [value in model.config.patient_hashes for value in hashes]
        assert has_seen == (rows["side"] != "test").tolist()
        assert len(model.config.patient_hashes) == 16


def test_the_test_fold_decides_nothing(cohort, cross_validation, tmp_path):
    """Other labels of fold 0 change all models but that of fold 0."""
    changed = cohort.copy()
    is_first = changed.obs["fold"] == 0
    labels = changed.obs.loc[is_first, "EGFR"]
    changed.obs["EGFR"] = changed.obs["EGFR"].astype(str)
    changed.obs.loc[is_first, "EGFR"] = np.where(labels == "mutated", "wild type", "mutated")
    models = train.cross_validate_slides(
        changed, tmp_path, targets=EGFR, fold_key="fold", config=CONFIG
    )
    same = [one.digest == two.digest for one, two in zip(models, cross_validation[1], strict=True)]
    assert same == [True, False, False]


def test_finished_folds_are_not_trained_again(cohort, cross_validation):
    path, models = cross_validation
    before = [(path / f"fold_{fold}" / "model.safetensors").stat().st_mtime_ns for fold in range(3)]
    again = train.cross_validate_slides(cohort, path, targets=EGFR, fold_key="fold", config=CONFIG)
    assert [model.digest for model in again] == [model.digest for model in models]
    after = [(path / f"fold_{fold}" / "model.safetensors").stat().st_mtime_ns for fold in range(3)]
    assert before == after
    other = train.SlideConfig(epochs=9, **SMALL)
    with pytest.raises(ValueError, match=r"other settings \(config\)"):
        train.cross_validate_slides(cohort, path, targets=EGFR, fold_key="fold", config=other)


def test_without_validation_all_epochs_run_and_nothing_is_calibrated(cohort, tmp_path):
    config = train.SlideConfig(epochs=3, **SMALL)
    model = train.fit_slides(cohort, tmp_path, targets=EGFR, config=config, validation_share=0)
    (target,) = model.config.targets
    assert (target.temperature, target.threshold) == (1.0, 0.5)
    assert max(line["epoch"] for line in lines(tmp_path)) == 2
    assert not model.card.metrics and len(model.config.patient_hashes) == 24


def test_the_best_epoch_is_saved_and_training_stops(cohort, tmp_path):
    config = train.SlideConfig(epochs=60, patience=2, **{**SMALL, "learning_rate": 0.05})
    model = train.fit_slides(cohort, tmp_path, targets=train.Value("purity"), config=config)
    scores = [line["score"] for line in lines(tmp_path) if line["split"] == "validation"]
    assert len(scores) == np.argmax(scores) + 3 < 60
    assert model.card.metrics["score"] == max(scores)


def test_validation_patients_may_be_given(cohort, tmp_path):
    cohort = cohort.copy()
    cohort.obs["validates"] = cohort.obs["patient"].isin(["P000", "P001", "P002", "P003"])
    model = train.fit_slides(
        cohort, tmp_path, targets=EGFR, config=CONFIG, validation_key="validates"
    )
    assert "20 patients with 4 validation patients" in model.card.trained_on[0]
    cohort.obs["validates"] = "yes"
    with pytest.raises(ValueError, match="has yes; write True for patients that validate"):
        train.fit_slides(cohort, tmp_path, targets=EGFR, validation_key="validates")


def test_a_patient_without_any_label_is_left_out(cohort, tmp_path):
    cohort = cohort.copy()
    cohort.obs["EGFR"] = cohort.obs["EGFR"].astype(object).where(cohort.obs["patient"] != "P004")
    config = train.SlideConfig(epochs=1, **SMALL)
    model = train.fit_slides(cohort, tmp_path, targets=EGFR, config=config)
    assert len(model.config.patient_hashes) == 23
    (value,) = model.hash_patients(["P004"])
    assert value not in model.config.patient_hashes


def test_patients_of_no_fold_are_left_out(cohort, tmp_path):
    cohort = cohort.copy()
    cohort.obs["fold"] = np.where(cohort.obs["patient"] == "P005", -1, cohort.obs["fold"])
    config = train.SlideConfig(epochs=1, **SMALL)
    models = train.cross_validate_slides(
        cohort, tmp_path, targets=EGFR, fold_key="fold", config=config
    )
    assert "P005" not in set(pd.read_csv(tmp_path / "folds.csv")["patient"])
    for model in models:
        assert not set(model.hash_patients(["P005"])) & set(model.config.patient_hashes)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("fold", None, "is missing; run stp.tl.assign_folds"),
        ("fold", 0, "has one fold only"),
        ("fold", "a", "has a; a fold is a whole number"),
    ],
)
def test_wrong_folds_are_refused(cohort, tmp_path, column, values, message):
    cohort = cohort.copy()
    if values is None:
        del cohort.obs[column]
    else:
        cohort.obs[column] = values
    with pytest.raises((KeyError, ValueError), match=message):
        train.cross_validate_slides(cohort, tmp_path, targets=EGFR, fold_key=column)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ("EGFR", TypeError, "give stp.train.Classes, Value or Survival"),
        ([], TypeError, "targets are empty"),
        ([EGFR, train.Classes("EGFR")], ValueError, "name a column twice"),
        (train.Classes("EFGR"), KeyError, "did you mean 'EGFR'"),
    ],
)
def test_wrong_targets_are_refused(cohort, tmp_path, targets, error, message):
    with pytest.raises(error, match=message):
        train.fit_slides(cohort, tmp_path, targets=targets)


def test_a_share_that_leaves_nobody_is_refused(cohort, tmp_path):
    with pytest.raises(ValueError, match="validation_share must be at least 0 and below 1"):
        train.fit_slides(cohort, tmp_path, targets=EGFR, validation_share=1.0)


def test_validation_that_cannot_score_is_refused_before_work(cohort, tmp_path):
    cohort = cohort.copy()
    cohort.obs["validates"] = cohort.obs["patient"].isin(["P000", "P002"])
    with pytest.raises(ValueError, match="2 validation patients cannot score EGFR"):
        train.fit_slides(cohort, tmp_path, targets=EGFR, validation_key="validates")
    assert not list(tmp_path.iterdir())
