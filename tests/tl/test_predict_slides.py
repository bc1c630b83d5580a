"""Predict patients by slide models: only unseen ones, in the units of the training, checked."""

import shutil

import anndata
import numpy as np
import pytest
import torch
from tests.cohorts import make_cohort

from stp import tl, train
from stp.data.feature_files import open_features
from stp.tables.provenance import model_of

SMALL = {"hidden": 16, "attention": 8, "device": "cpu", "learning_rate": 5e-3}
CONFIG = train.SlideConfig(epochs=8, **SMALL)
TARGETS = [
    train.Classes("EGFR", positive="mutated"),
    train.Value("purity"),
    train.Survival("days", "event"),
]


@pytest.fixture(scope="module")
def training_cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def folds(training_cohort, tmp_path_factory):
    """The folder and the models of a cross-validation."""
    path = tmp_path_factory.mktemp("cv")
    models = train.cross_validate_slides(
        training_cohort, path, targets=TARGETS[0], fold_key="fold", config=CONFIG
    )
    return path, models


@pytest.fixture(scope="module")
def three_targets(training_cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("three")
    return train.fit_slides(training_cohort, path, targets=TARGETS, config=CONFIG)


@pytest.fixture(scope="module")
def _external(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("external"), n_patients=7, seed=5, prefix="X")


@pytest.fixture
def external(_external):
    return _external.copy()


def by_hand(cohort, model, patient):
    """Return the predictions of a patient from the files of the slides, in sorted order."""
    rows = cohort.obs[cohort.obs["patient"] == patient].sort_values("slide")
    tiles = np.concatenate([open_features(path).read() for path in rows["path"]])
    tiles = torch.from_numpy(tiles.astype(np.float32))
    with torch.inference_mode():
        return model.to_predictions(model(tiles, torch.tensor([0, len(tiles)])))[0].numpy()


def test_out_of_fold_each_patient_has_the_model_of_its_fold(training_cohort, folds):
    path, models = folds
    cohort = tl.predict_slides(training_cohort, path, copy=True)
    assert "stp_slides" not in training_cohort.obs
    assert (cohort.obs["stp_slides_models"] == 1).all()
    for row, (patient, fold) in enumerate(
        zip(cohort.obs["patient"], cohort.obs["fold"], strict=True)
    ):
        expected = by_hand(cohort, models[fold], patient)
        np.testing.assert_allclose(cohort.obsm["stp_slides"][row], expected, atol=1e-6)
        threshold = models[fold].config.targets[0].threshold
        assert cohort.obs["stp_slides_threshold"].iloc[row] == pytest.approx(threshold)
        is_mutated = cohort.obsm["stp_slides"][row, 0] >= threshold
        assert (cohort.obs["stp_slides"].iloc[row] == "mutated") == is_mutated
    assert "X_stp_slides" not in cohort.obsm
    assert "do not compare" in cohort.uns["stp_slides"]["pooled"]


def test_a_new_patient_has_the_mean_of_all_models(external, folds):
    path, models = folds
    tl.predict_slides(external, path)
    assert (external.obs["stp_slides_models"] == 3).all()
    for row, patient in enumerate(external.obs["patient"]):
        expected = np.mean([by_hand(external, model, patient) for model in models], axis=0)
        np.testing.assert_allclose(external.obsm["stp_slides"][row], expected, atol=1e-6)
    thresholds = [model.config.targets[0].threshold for model in models]
    np.testing.assert_allclose(external.obs["stp_slides_threshold"], np.mean(thresholds))
    assert external.uns["stp_slides"]["models"]["digests"] == [model.digest for model in models]


def test_slides_of_a_patient_have_the_same_values(external, folds):
    tl.predict_slides(external, list(folds[1]))
    is_third = external.obs["patient"] == "X003"
    assert is_third.sum() == 2
    values = external.obsm["stp_slides"][is_third]
    assert (values[0] == values[1]).all()


def test_values_have_the_units_of_the_training_and_several_targets_their_columns(
    external, three_targets, tmp_path
):
    tl.predict_slides(external, three_targets)
    config = three_targets.config
    assert external.uns["stp_slides"]["outputs"] == [
        "EGFR_mutated",
        "EGFR_wild type",
        "purity",
        "days_risk",
    ]
    row = external.obsm["stp_slides"][0]
    np.testing.assert_allclose(
        row, by_hand(external, three_targets, external.obs["patient"].iloc[0]), rtol=1e-5
    )
    assert row[:2].sum() == pytest.approx(1) and -4 <= row[3] <= 0
    assert external.obsm["stp_slides"][:, 2].mean() > 40  # purity is around 110, with spread 50
    assert list(external.obs["stp_slides_EGFR"].cat.categories) == ["mutated", "wild type"]
    assert "stp_slides" not in external.obs
    assert external.obsm["X_stp_slides"].shape == (external.n_obs, 3 * config.hidden)
    assert model_of(external, "X_stp_slides")["digest"] == three_targets.digest
    external.write_h5ad(tmp_path / "cohort.h5ad")
    again = anndata.read_h5ad(tmp_path / "cohort.h5ad")
    assert again.uns["stp_slides"]["targets"]["EGFR"]["positive"] == "mutated"


def test_a_second_call_leaves_nothing_of_the_first(external, three_targets, folds):
    external.obs["stp_slides_note"] = "of the user"
    tl.predict_slides(external, three_targets)
    tl.predict_slides(external, folds[0])
    columns = [name for name in external.obs if name.startswith("stp_slides")]
    assert sorted(columns) == [
        "stp_slides",
        "stp_slides_far",
        "stp_slides_models",
        "stp_slides_note",
        "stp_slides_threshold",
    ]
    assert "X_stp_slides" not in external.obsm and "X_stp_slides" not in external.uns
    assert external.obsm["stp_slides"].shape[1] == 2


def test_a_patient_that_all_models_have_seen_is_refused(training_cohort, three_targets, folds):
    with pytest.raises(ValueError, match="24 patients trained or validated every model.*cross_"):
        tl.predict_slides(training_cohort, three_targets)
    with pytest.raises(ValueError, match="16 patients trained or validated every model"):
        tl.predict_slides(training_cohort, folds[1][0])
    assert "stp_slides" not in training_cohort.obsm


def test_a_patient_renamed_to_one_of_the_training_is_refused(external, three_targets):
    external.obs["patient"] = external.obs["patient"].astype(str).replace("X002", "P002")
    with pytest.raises(ValueError, match="1 patient trained or validated every model: P002"):
        tl.predict_slides(external, three_targets)


def test_without_hashes_prediction_warns(external, three_targets, tmp_path):
    three_targets.save_pretrained(tmp_path / "shared", patients=False)
    with pytest.warns(UserWarning, match="shared has no record of its patients"):
        tl.predict_slides(external, tmp_path / "shared")
    assert not external.uns["stp_slides"]["checks"]["are_patients_checked"]


def test_a_cohort_that_lacks_a_class_has_the_columns_of_the_training(external, folds):
    external.obs["EGFR"] = "mutated"
    tl.predict_slides(external, folds[0])
    assert list(external.obs["stp_slides"].cat.categories) == ["mutated", "wild type"]
    assert external.uns["stp_slides"]["outputs"] == ["EGFR_mutated", "EGFR_wild type"]


def test_labels_that_the_models_do_not_know_are_warned_of(external, folds):
    external.obs["EGFR"] = ["amplified", *external.obs["EGFR"].astype(str)[1:]]
    external.obs["EGFR"] = external.obs.groupby("patient", observed=True)["EGFR"].transform("min")
    with pytest.warns(UserWarning, match="do not know: amplified; they know mutated, wild type"):
        tl.predict_slides(external, folds[0])
    assert external.uns["stp_slides"]["checks"]["unknown_labels"] == {"EGFR": ["amplified"]}


def change_features(cohort, **entries):
    cohort.uns["stp_cohort"]["features"] |= entries


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"model": {"name": "other", "class": "KatherLab h5", "digest": "0" * 64}},
            r"was trained on uni \(.*and the cohort has other \(000000000000",
        ),
        ({"model": None}, "no record of a model"),
        ({"width": 9}, "9 values a tile"),
        (
            {"model": {"name": "uni", "class": "", "digest": "1" * 64}, "tile_um": 128.0},
            r"tiles of 112 µm\), and the cohort has uni .*tiles of 128 µm\); make",
        ),
        ({"tile_um": 128.0}, "have tile_um 128, and those that .* was trained on 112"),
        ({"um_per_px": 0.25}, "have um_per_px 0.25, and those"),
    ],
)
def test_other_features_are_refused_before_work(external, folds, entries, message):
    change_features(external, **entries)
    with pytest.raises(ValueError, match=message):
        tl.predict_slides(external, folds[0])
    assert "stp_slides" not in external.obsm


def test_scales_may_differ_by_five_percent_and_unknown_ones_are_warned_of(external, folds):
    change_features(external, tile_um=112 * 1.04, um_per_px=0.5 / 1.04)
    tl.predict_slides(external, folds[0])
    change_features(external, tile_um=None)
    with pytest.warns(UserWarning, match="the tile_um of the tiles .* is not recorded"):
        tl.predict_slides(external, folds[0])


def test_slides_with_one_file_or_the_same_features_are_refused(external, folds, tmp_path):
    paths = external.obs["path"].astype(str)
    external.obs["path"] = [paths.iloc[1], *paths[1:]]
    external.obs["n_tiles"] = [external.obs["n_tiles"].iloc[1], *external.obs["n_tiles"][1:]]
    with pytest.raises(ValueError, match="have one feature file"):
        tl.predict_slides(external, folds[0])
    copy = tmp_path / "copy.h5"
    shutil.copy(paths.iloc[1], copy)
    external.obs["path"] = [str(copy), *paths[1:]]
    with pytest.raises(ValueError, match="have the same features, so nothing was written"):
        tl.predict_slides(external, folds[0])
    assert "stp_slides" not in external.obsm


def test_an_empty_bag_is_refused(external, folds):
    external.obs["n_tiles"] = np.where(external.obs["patient"] == "X001", 0, 12)
    with pytest.raises(ValueError, match="1 patient have no tile: X001; leave them out"):
        tl.predict_slides(external, folds[0])


def test_far_slides_and_odd_bags_are_warned_of(folds, tmp_path):
    cohort = make_cohort(tmp_path, n_patients=3, n_tiles=90, shift=60.0, seed=9, prefix="Y")
    with pytest.warns(UserWarning) as warnings:
        tl.predict_slides(cohort, folds[0])
    messages = [str(warning.message) for warning in warnings]
    assert any("have 90 to 92 tiles, and those of the training had 12 to 28" in m for m in messages)
    assert any("2 of 3 slides are far from the training slides" in text for text in messages)
    is_mutated = (cohort.obs["EGFR"] == "mutated").to_numpy()
    assert (cohort.obs["stp_slides_far"].to_numpy() == is_mutated).all()
    assert cohort.uns["stp_slides"]["checks"]["n_bags_out_of_range"] == 3


def test_models_that_do_not_fit_together_are_refused(external, folds, three_targets, tmp_path):
    path, models = folds
    with pytest.raises(ValueError, match="models predict different targets"):
        tl.predict_slides(external, [models[0], three_targets])
    with pytest.raises(ValueError, match="the same model twice"):
        tl.predict_slides(external, [path, models[0]])
    with pytest.raises(ValueError, match="models is empty"):
        tl.predict_slides(external, [])
    with pytest.raises(TypeError, match="models has a int"):
        tl.predict_slides(external, [3])
    with pytest.raises(FileNotFoundError, match="neither a slide model nor a finished"):
        tl.predict_slides(external, tmp_path)


def test_a_planted_signal_is_found_out_of_fold(training_cohort, folds):
    cohort = tl.predict_slides(training_cohort, folds[0], copy=True)
    patients = cohort.obs.drop_duplicates("patient").index
    chosen = cohort[patients]
    is_mutated = (chosen.obs["EGFR"] == "mutated").to_numpy()
    scores = chosen.obsm["stp_slides"][:, 0]
    better = scores[is_mutated][:, None] > scores[~is_mutated]
    assert better.mean() > 0.85


def test_memory_does_not_grow_with_the_number_of_slides(folds, tmp_path):
    """Peak of allocations of NumPy and Python over 4 and over 40 slides of the same size."""
    import tracemalloc

    def peak(n_patients):
        folder = tmp_path / str(n_patients)
        cohort = make_cohort(folder, n_patients=n_patients, n_tiles=2000, prefix="Z")
        cohort = cohort[~cohort.obs["patient"].duplicated(keep=False)].copy()
        tracemalloc.start()
        tl.predict_slides(cohort, folds[1][0], progress=False)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    few, many = peak(6), peak(40)
    assert many < 1.25 * few
