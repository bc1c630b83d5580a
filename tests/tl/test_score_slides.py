"""Scores of patients: means over folds, intervals over patients, and what is left out."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.predictions import (
    add_classes,
    binary_cohort,
    make_cohort,
    per_slide,
    survival_cohort,
    write,
)

import stp


def score(cohort, n_resamples=100, **options):
    """Return the result, and its scores by name, class and decision."""
    stp.tl.score_slides(cohort, n_resamples=n_resamples, **options)
    result = cohort.uns[options.get("key_added", "stp_slide_scores")]
    return result, result["scores"].set_index(["score", "class", "decision"]).sort_index()


def fold_mean(function, n_folds, *arrays):
    """Return the mean over folds of a score of patients; patient i is in fold i % n_folds."""
    return np.mean([function(*[a[fold::n_folds] for a in arrays]) for fold in range(n_folds)])


def test_a_patient_counts_once_and_the_score_is_the_mean_over_folds():
    cohort, is_positive, probabilities = binary_cohort()
    result, rows = score(cohort)
    row = rows.loc[("auroc", "mutated", "")]
    assert row["value"] == pytest.approx(fold_mean(roc_auc_score, 3, is_positive, probabilities))
    assert row["pooled"] == pytest.approx(roc_auc_score(is_positive, probabilities))
    assert row["low"] < row["value"] < row["high"]
    assert (row["n_patients"], row["n_positives"], row["n_events"]) == (60, is_positive.sum(), -1)
    folds = result["folds"].query("score == 'auroc'")
    assert folds["value"].mean() == pytest.approx(row["value"])
    assert folds["n_patients"].tolist() == [20, 20, 20]
    auprc = fold_mean(average_precision_score, 3, is_positive, probabilities)
    assert rows.loc[("auprc", "mutated", "")]["value"] == pytest.approx(auprc)


def test_intervals_are_those_of_a_loop_over_scikit_learn():
    cohort, is_positive, probabilities = binary_cohort()
    _, rows = score(cohort, n_resamples=50, seed=4)
    # Patients in the order of the rows of the cohort, as they are resampled.
    order = cohort.obs["patient"].drop_duplicates().str[1:].astype(int).to_numpy()
    fold = order % 3
    strata = fold * 2 + ~is_positive[order]
    draws = stp.metrics.resample(strata, n_resamples=50, seed=4)
    slow = [
        np.mean(
            [
                roc_auc_score(
                    is_positive[order][fold == number],
                    probabilities[order][fold == number],
                    sample_weight=counts[fold == number],
                )
                for number in range(3)
            ]
        )
        for counts in draws
    ]
    row = rows.loc[("auroc", "mutated", "")]
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(slow, [0.025, 0.975]))


def test_calibration_is_that_of_all_patients():
    cohort, is_positive, probabilities = binary_cohort()
    _, rows = score(cohort)
    expected = stp.metrics.calibration(is_positive, probabilities)
    for name, score_name in (("slope", "calibration_slope"), ("ece", "ece")):
        row = rows.loc[(score_name, "mutated", "")]
        assert row["value"] == row["pooled"] == pytest.approx(expected[name])
    intercept = rows.loc[("calibration_intercept", "mutated", "")]
    assert intercept["low"] < intercept["value"] < intercept["high"]
    assert "resampling inflates it" in rows.loc[("ece", "mutated", "")]["note"]


def test_decisions_by_the_stored_threshold_and_by_a_half():
    cohort, is_positive, probabilities = binary_cohort(n_folds=1, n_all=1)
    result, rows = score(cohort)
    for decision, threshold in (("threshold", 0.4), ("0.5", 0.5)):
        expected = stp.metrics.binary_scores(is_positive, probabilities, threshold=threshold)
        for name in ("accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity"):
            value = rows.loc[(name, "mutated", decision)]["value"]
            assert value == pytest.approx(expected[name]), (name, decision)
    confusion = result["confusion"]["EGFR"]
    is_predicted = probabilities >= 0.4
    assert confusion["counts"].tolist() == [
        [(is_positive & is_predicted).sum(), (is_positive & ~is_predicted).sum()],
        [(~is_positive & is_predicted).sum(), (~is_positive & ~is_predicted).sum()],
    ]
    assert confusion["threshold"] == pytest.approx(0.4)


def test_patients_of_one_model_or_of_all_models_are_one_group():
    for n_models in (1, 5):
        cohort, is_positive, probabilities = binary_cohort(n_models=n_models, n_all=n_models)
        result, rows = score(cohort)
        value = rows.loc[("auroc", "mutated", "")]["value"]
        assert value == pytest.approx(roc_auc_score(is_positive, probabilities))
        assert set(result["folds"]["fold"]) == {"all"}


def test_a_fold_with_one_class_is_left_out_and_noted():
    cohort, is_positive, probabilities = binary_cohort(n_patients=90)
    is_dropped = is_positive & (np.arange(90) % 3 == 1)
    cohort.obs["EGFR"] = cohort.obs["EGFR"].astype(object)
    cohort.obs.loc[per_slide(cohort, is_dropped), "EGFR"] = None
    result, rows = score(cohort)
    row = rows.loc[("auroc", "mutated", "")]
    expected = [roc_auc_score(is_positive[n::3], probabilities[n::3]) for n in (0, 2)]
    assert row["value"] == pytest.approx(np.mean(expected))
    assert row["note"] == "not defined in fold 1, and left out of the mean"
    assert row["low"] < row["value"] < row["high"]
    assert rows.loc[("accuracy", "mutated", "0.5")]["note"] == ""
    assert rows.loc[("calibration_slope", "mutated", "")]["note"] == "of all folds together"
    assert result["patients"]["EGFR"]["n_without_label"] == is_dropped.sum()


def test_few_cases_have_no_interval_but_a_note():
    cohort = make_cohort(30, 1)
    rng = np.random.default_rng(0)
    codes = (np.arange(30) < 9).astype(int)
    probabilities = softmax(rng.normal(size=(30, 2)), axis=1)
    add_classes(cohort, codes, probabilities, classes=("a", "b"), positive="b", n_all=1)
    _, rows = score(cohort)
    assert np.isnan(rows[["low", "high"]].to_numpy()).all()
    assert rows["note"].str.startswith("no interval: 9 positives").all()
    assert np.isnan(cohort.uns["stp_slide_scores"]["curves"]["EGFR"]["roc"]["low"]).all()


def test_several_classes_are_scored_each_against_the_others():
    rng = np.random.default_rng(3)
    codes = np.arange(90) % 3
    probabilities = softmax(rng.normal(size=(90, 3)) + 2 * np.eye(3)[codes], axis=1)
    probabilities = probabilities.astype(np.float32).astype(float)
    cohort = make_cohort(90, 1)
    add_classes(cohort, codes, probabilities, classes=("x", "y", "z"), n_all=1)
    result, rows = score(cohort)
    expected = stp.metrics.multiclass_scores(codes, probabilities)
    for name in ("auroc", "auprc", "brier"):
        assert rows.loc[(name, "", "")]["value"] == pytest.approx(expected[name])
    for name in ("accuracy", "balanced_accuracy", "f1"):
        row = rows.loc[(name, "", "most probable")]
        assert row["value"] == pytest.approx(expected[name])
        assert row["low"] < row["value"] < row["high"]
    own = rows.loc[("auroc", "y", "")]
    assert own["value"] == pytest.approx(roc_auc_score(codes == 1, probabilities[:, 1]))
    assert own["n_positives"] == 30
    assert set(result["curves"]["EGFR"]["roc"]["class"]) == {"x", "y", "z"}


def test_an_external_cohort_that_lacks_a_class_is_scored_on_the_others():
    rng = np.random.default_rng(3)
    codes = np.arange(60) % 2
    probabilities = softmax(rng.normal(size=(60, 3)) + 2 * np.eye(3)[codes], axis=1)
    cohort = make_cohort(60, 1)
    add_classes(cohort, codes, probabilities, classes=("x", "y", "z"), n_all=1)
    _, rows = score(cohort)
    assert {name for _, name, _ in rows.index} == {"", "x", "y"}
    macro = rows.loc[("auroc", "", "")]
    own = [rows.loc[("auroc", name, "")]["value"] for name in ("x", "y")]
    assert macro["value"] == pytest.approx(np.mean(own))
    assert macro["note"] == "no patient of z"


def test_values_are_scored():
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    predicted = (values + rng.normal(size=40)).astype(np.float32).astype(float)
    cohort = make_cohort(40, 2)
    cohort.obs["purity"] = per_slide(cohort, values)
    write(cohort, "stp_slides", {"purity": {"kind": "value"}}, predicted[:, None], ["purity"])
    result, rows = score(cohort)
    for name in ("r2", "pearson", "mae", "rmse"):
        folds = [stp.metrics.value_scores(values[n::2], predicted[n::2])[name] for n in (0, 1)]
        row = rows.loc[(name, "", "")]
        assert row["value"] == pytest.approx(np.mean(folds))
        assert row["low"] < row["value"] < row["high"]
        assert (row["n_positives"], row["n_events"]) == (-1, -1)
    assert result["curves"]["purity"] == {}


def test_survival_is_scored_and_high_risk_means_early_events():
    cohort, times, events, risks = survival_cohort()
    result, rows = score(cohort)
    harrell = fold_mean(stp.metrics.concordance, 3, times, events, risks)
    uno = fold_mean(stp.metrics.uno_concordance, 3, times, events, risks)
    assert rows.loc[("harrell_c", "", "")]["value"] == pytest.approx(harrell)
    assert rows.loc[("uno_c", "", "")]["value"] == pytest.approx(uno)
    assert rows.loc[("uno_c", "", "")]["low"] > 0.5
    groups = stp.metrics.compare_risk_groups(times, events, risks > 0, strata=np.arange(90) % 3)
    ratio = rows.loc[("hazard_ratio", "", "")]
    assert ratio["value"] == pytest.approx(groups["hazard_ratio"])
    assert [ratio["low"], ratio["high"]] == pytest.approx([groups["low"], groups["high"]])
    assert 1 < ratio["low"]
    assert ratio["n_events"] == events.sum()
    assert rows.loc[("logrank_p", "", "")]["value"] == pytest.approx(groups["logrank_p"])
    curves = result["curves"]["os_days"]["kaplan_meier"]
    at_risk = curves.groupby("risk")["n_at_risk"].max()
    assert at_risk.to_dict() == {"high": (risks > 0).sum(), "low": (risks <= 0).sum()}


def test_without_a_median_of_the_training_there_are_no_groups_of_risk():
    cohort, *_ = survival_cohort()
    del cohort.obs["stp_slides_threshold"]
    result, rows = score(cohort)
    assert np.isnan(rows.loc[("hazard_ratio", "", "")]["value"])
    assert "no median risk" in rows.loc[("hazard_ratio", "", "")]["note"]
    assert result["curves"]["os_days"] == {}
    assert rows.loc[("harrell_c", "", "")]["value"] > 0.5


@pytest.mark.parametrize("n_folds", [1, 4])
def test_intervals_of_shuffled_labels_cover_chance(n_folds):
    n_covering = 0
    for seed in range(20):
        cohort, *_ = binary_cohort(100, n_folds, seed=seed, signal=0.0, n_all=n_folds)
        _, rows = score(cohort, n_resamples=200)
        row = rows.loc[("auroc", "mutated", "")]
        n_covering += row["low"] <= 0.5 <= row["high"]
    assert 17 <= n_covering <= 20


def test_results_are_the_same_with_one_seed_and_can_be_stored(tmp_path):
    cohort, *_ = binary_cohort()
    first, _ = score(cohort)
    second, _ = score(cohort, key_added="again")
    pd.testing.assert_frame_equal(first["scores"], second["scores"])
    assert stp.tl.score_slides(cohort, n_resamples=10, key_added="copy", copy=True) is not cohort
    assert "copy" not in cohort.uns
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    cohort.write_zarr(tmp_path / "cohort.zarr")
    for again in (
        anndata.read_h5ad(tmp_path / "cohort.h5ad"),
        anndata.read_zarr(tmp_path / "cohort.zarr"),
    ):
        result = again.uns["stp_slide_scores"]
        pd.testing.assert_frame_equal(
            result["scores"].astype(object), first["scores"].astype(object), check_index_type=False
        )
        stp.tl.score_slides(again, n_resamples=100)
        value = again.uns["stp_slide_scores"]["scores"]["value"]
        np.testing.assert_array_equal(value, first["scores"]["value"])


def test_targets_without_labels_are_left_out_with_a_warning():
    cohort, is_positive, probabilities = binary_cohort()
    outputs = np.stack([probabilities, 1 - probabilities, probabilities], axis=1)
    targets = {**cohort.uns["stp_slides"]["targets"], "purity": {"kind": "value"}}
    write(cohort, "stp_slides", targets, outputs, ["EGFR_mutated", "EGFR_wild type", "purity"])
    cohort.obs["stp_slides_EGFR"] = cohort.obs["stp_slides"]
    cohort.obs["stp_slides_EGFR_threshold"] = 0.4
    with pytest.warns(UserWarning, match="no labels of purity, so this target is not scored"):
        _, rows = score(cohort)
    assert set(rows["target"]) == {"EGFR"}
    del cohort.obs["EGFR"]
    with pytest.raises(KeyError, match="no labels to score: obs lacks EGFR, purity"):
        score(cohort)


def test_new_patients_are_not_mixed_with_those_of_a_cross_validation():
    cohort, is_positive, probabilities = binary_cohort()
    is_new = np.arange(60) < 12
    cohort.obs["stp_slides_models"] = per_slide(cohort, np.where(is_new, 3, 1))
    with pytest.warns(UserWarning, match="12 patients predicted by all models"):
        result, rows = score(cohort)
    assert result["patients"]["EGFR"]["n_scored"] == 48
    folds = [np.arange(n, 60, 3)[np.arange(n, 60, 3) >= 12] for n in range(3)]
    expected = [roc_auc_score(is_positive[fold], probabilities[fold]) for fold in folds]
    assert rows.loc[("auroc", "mutated", "")]["value"] == pytest.approx(np.mean(expected))


def test_patients_without_a_prediction_are_counted():
    cohort, *_ = binary_cohort()
    is_missing = per_slide(cohort, np.arange(60) < 6)
    cohort.obsm["stp_slides"][is_missing] = np.nan
    result, _ = score(cohort)
    assert result["patients"]["EGFR"] == {
        "n_scored": 54,
        "n_without_label": 0,
        "n_without_prediction": 6,
    }
