"""Models of slides are trained, predicted, scored, compared and drawn."""

from dataclasses import replace

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tests.cohorts import make_cohort

from stp import get, metrics, models, pl, tl, train

CONFIG = train.SlideConfig(epochs=2, hidden=16, attention=8, device="cpu", learning_rate=5e-3)
TARGETS = [
    train.Classes("EGFR", positive="mutated"),
    train.Value("purity"),
    train.Survival("days", "event"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def cohort(folders):
    cohort = make_cohort(folders / "features", n_patients=24)
    train.cross_validate_slides(
        cohort, folders / "cv", targets=TARGETS, fold_key="fold", config=CONFIG
    )
    tl.predict_slides(cohort, folders / "cv")
    tl.score_slides(cohort, fold_key="fold", n_resamples=50)
    return cohort


def test_scores_are_those_of_the_table_of_patients(cohort):
    patients = get.patients(cohort)
    scores = cohort.uns["stp_slide_scores"]["scores"].set_index(["target", "score", "decision"])
    folds = {"auroc": [], "mae": [], "harrell_c": []}
    for _, fold in patients.groupby("fold"):
        is_mutated = fold["EGFR"] == "mutated"
        binary = metrics.binary_scores(is_mutated, fold["stp_slides_EGFR_mutated"])
        folds["auroc"].append(binary["auroc"])
        values = metrics.value_scores(fold["purity"], fold["stp_slides_purity"])
        folds["mae"].append(values["mae"])
        survival = metrics.concordance(fold["days"], fold["event"], fold["stp_slides_days_risk"])
        folds["harrell_c"].append(survival)
    for target, name in (("EGFR", "auroc"), ("purity", "mae"), ("days", "harrell_c")):
        assert scores.loc[(target, name, "")]["value"] == pytest.approx(np.mean(folds[name]))
    is_right = patients["stp_slides_EGFR"].astype(str) == patients["EGFR"].astype(str)
    accuracy = scores.loc[("EGFR", "accuracy", "threshold")]
    assert accuracy["value"] == pytest.approx(is_right.groupby(patients["fold"]).mean().mean())


def test_a_cohort_read_from_a_file_has_the_same_scores(cohort, tmp_path):
    # Files sort the targets by name, and the outputs keep the order of the model.
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    read = anndata.read_h5ad(tmp_path / "cohort.h5ad")
    tl.score_slides(read, fold_key="fold", n_resamples=50, key_added="again")
    columns = ["target", "score", "class", "decision", "value", "low", "high"]
    pd.testing.assert_frame_equal(
        read.uns["again"]["scores"][columns], cohort.uns["stp_slide_scores"]["scores"][columns]
    )


def test_risk_is_high_above_the_median_of_the_training_patients_of_the_fold(cohort, folders):
    patients = get.patients(cohort)
    for number in range(3):
        model = models.SlideModel.from_pretrained(folders / "cv" / f"fold_{number}")
        (target,) = [t for t in model.config.targets if t.kind == "survival"]
        fold = patients[patients["fold"] == number]
        np.testing.assert_allclose(fold["stp_slides_days_threshold"], target.median_risk)
    ratio = cohort.uns["stp_slide_scores"]["scores"].set_index("score").loc["hazard_ratio"]
    risks = patients["stp_slides_days_risk"]
    expected = metrics.compare_risk_groups(
        patients["days"],
        patients["event"],
        risks > patients["stp_slides_days_threshold"],
        strata=patients["fold"],
    )
    assert ratio["value"] == pytest.approx(expected["hazard_ratio"])


def test_the_median_risk_is_that_of_the_training_patients(cohort, folders):
    folder = folders / "all"
    target = train.Survival("days", "event")
    model = train.fit_slides(cohort, folder, targets=target, config=CONFIG, validation_share=0)
    (described,) = model.config.targets
    model.config = replace(model.config, patient_hashes=())  # it may predict its own patients
    with pytest.warns(UserWarning, match="no record of its patients"):
        again = tl.predict_slides(cohort, model, key_added="training", copy=True)
    risks = get.patients(again, key="training")["training_days_risk"]
    assert described.median_risk == pytest.approx(np.median(risks), abs=1e-4)


def test_new_patients_are_one_group_and_are_drawn(cohort, folders, tmp_path):
    external = make_cohort(tmp_path, n_patients=24, seed=5, prefix="X")
    tl.predict_slides(external, folders / "cv")
    tl.score_slides(external, n_resamples=20)
    result = external.uns["stp_slide_scores"]
    assert set(result["folds"]["fold"]) == {"all"}
    assert result["patients"]["EGFR"]["n_scored"] == 24
    for table in (cohort, external):
        for draw in (pl.roc, pl.precision_recall, pl.calibration, pl.kaplan_meier):
            assert draw(table) is not None
        assert pl.confusion(table, key="stp_slide_scores") is not None
    plt.close("all")


def test_calibration_is_scored_before_and_after_the_temperature(cohort, folders):
    patients = get.patients(cohort)
    before = []
    for number in range(3):
        model = models.SlideModel.from_pretrained(folders / "cv" / f"fold_{number}")
        fold = patients[patients["fold"] == number]
        names = ["stp_slides_EGFR_mutated", "stp_slides_EGFR_wild type"]
        powers = fold[names].to_numpy() ** model.config.targets[0].temperature
        before.append((fold["EGFR"] == "mutated", (powers / powers.sum(1, keepdims=True))[:, 0]))
    scores = cohort.uns["stp_slide_scores"]["scores"]
    scores = scores[scores["target"] == "EGFR"].set_index("score")
    brier = np.mean([((values - is_positive) ** 2).mean() for is_positive, values in before])
    assert scores.loc["brier_before_temperature"]["value"] == pytest.approx(brier, rel=1e-4)
    assert scores.loc["brier"]["value"] != pytest.approx(brier, rel=1e-3)
    line = metrics.calibration(*[np.concatenate(part) for part in zip(*before, strict=True)])
    for name in ("slope", "intercept"):
        value = scores.loc[f"calibration_{name}_before_temperature"]["value"]
        assert value == pytest.approx(line[name], rel=1e-3)
