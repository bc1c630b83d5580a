"""Predictions of the same patients are compared by paired resamples."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from tests.predictions import add_classes, binary_cohort, make_cohort, per_slide, survival_cohort

import stp


def two_predictions(n_patients=80, n_folds=2, better=1.5, worse=0.3):
    """Return a cohort with two predictions, their probabilities and the classes."""
    rng = np.random.default_rng(0)
    cohort = make_cohort(n_patients, n_folds)
    codes = rng.permutation(np.arange(n_patients) % 2)
    noise = rng.normal(size=n_patients)
    probabilities = {}
    for key, signal in (("worse", worse), ("better", better)):
        logits = noise + rng.normal(size=n_patients) + signal * codes
        values = softmax(np.stack([np.zeros(n_patients), logits], axis=1), axis=1)
        add_classes(cohort, codes, values, classes=("no", "yes"), positive="yes", key=key)
        probabilities[key] = values[:, 1].astype(np.float32).astype(float)
    return cohort, codes == 1, probabilities


def compare(cohort, keys, **options):
    stp.tl.compare_slides(cohort, keys, **{"n_resamples": 200, **options})
    return cohort.uns["stp_slide_comparison"]["scores"]


def test_differences_are_those_of_a_loop_over_paired_resamples():
    cohort, is_positive, probabilities = two_predictions(n_folds=1)
    row = compare(cohort, ["worse", "better"], seed=3).query("score == 'auroc'").iloc[0]
    order = cohort.obs["patient"].drop_duplicates().str[1:].astype(int).to_numpy()
    labels = is_positive[order]
    draws = stp.metrics.resample(labels, n_resamples=200, seed=3)
    differences = [
        roc_auc_score(labels, probabilities["better"][order], sample_weight=counts)
        - roc_auc_score(labels, probabilities["worse"][order], sample_weight=counts)
        for counts in draws
    ]
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(differences, [0.025, 0.975]))
    assert row["p"] == pytest.approx(2 * ((np.array(differences) <= 0).sum() + 1) / 201)
    values = {key: roc_auc_score(is_positive, scores) for key, scores in probabilities.items()}
    assert row["value"] == pytest.approx(values["better"])
    assert row["value_baseline"] == pytest.approx(values["worse"])
    assert row["difference"] == pytest.approx(values["better"] - values["worse"])
    assert (row["prediction"], row["baseline"]) == ("better", "worse")
    assert (row["n_patients"], row["n_positives"]) == (80, 40)


def test_values_are_those_of_score_slides():
    cohort, *_ = two_predictions()
    rows = compare(cohort, ["worse", "better"])
    stp.tl.score_slides(cohort, key="better", n_resamples=10)
    scores = cohort.uns["stp_slide_scores"]["scores"]
    both = rows.merge(scores, on=["target", "score", "class", "decision"])
    assert len(both) == len(scores) == len(rows)
    np.testing.assert_array_equal(both["value_x"], both["value_y"])


def test_a_prediction_does_not_differ_from_itself():
    cohort, *_ = two_predictions()
    for column in ("", "_threshold", "_models"):
        cohort.obs[f"same{column}"] = cohort.obs[f"better{column}"]
    cohort.obsm["same"] = cohort.obsm["better"]
    cohort.uns["same"] = cohort.uns["better"]
    rows = compare(cohort, ["better", "same", "worse"])
    same = rows[(rows["prediction"] == "same") & rows["p"].notna()]
    assert len(same) > 10
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)
    assert (same["p"] == 1).all()
    assert set(rows["prediction"]) == {"same", "worse"}


def test_pairing_gives_shorter_intervals_than_two_separate_ones():
    cohort, *_ = two_predictions(n_patients=200)
    row = compare(cohort, ["worse", "better"]).query("score == 'auroc'").iloc[0]
    widths = []
    for key in ("worse", "better"):
        stp.tl.score_slides(cohort, key=key, n_resamples=200)
        single = cohort.uns["stp_slide_scores"]["scores"].query("score == 'auroc'").iloc[0]
        widths.append(single["high"] - single["low"])
    assert row["high"] - row["low"] < 0.95 * np.hypot(*widths)


def test_survival_is_compared_by_concordance():
    cohort, *_ = survival_cohort()
    cohort.obsm["noise"] = cohort.obsm["stp_slides"] * 0
    cohort.uns["noise"] = cohort.uns["stp_slides"]
    cohort.obs["noise_models"] = cohort.obs["stp_slides_models"]
    rows = compare(cohort, ["noise", "stp_slides"]).set_index("score")
    assert list(rows.index) == ["harrell_c", "uno_c"]
    assert (rows["value_baseline"] == 0.5).all()
    assert (rows["low"] > 0).all()
    assert (rows["n_events"] > 10).all()


def test_other_patients_folds_and_targets_are_refused():
    cohort, *_ = two_predictions()
    with pytest.raises(ValueError, match="name two or more predictions, each once"):
        compare(cohort, ["better"])
    with pytest.raises(ValueError, match="name two or more predictions, each once"):
        compare(cohort, ["better", "better"])
    cohort.obsm["better"][per_slide(cohort, np.arange(80) == 7)] = np.nan
    with pytest.raises(ValueError, match="1 patient with only one of .* such as 'P007'"):
        compare(cohort, ["worse", "better"])
    cohort, *_ = two_predictions()
    cohort.obs["better_models"] = 3
    with pytest.raises(ValueError, match="in fold '.' of 'worse' and in fold 'all' of 'better'"):
        compare(cohort, ["worse", "better"])
    cohort, *_ = two_predictions()
    cohort.uns["better"]["targets"]["EGFR"]["positive"] = "no"
    with pytest.raises(ValueError, match="predict different targets"):
        compare(cohort, ["worse", "better"])


def test_few_cases_have_no_interval():
    cohort, *_ = binary_cohort(n_patients=20)
    cohort.obs["other_models"] = cohort.obs["stp_slides_models"]
    cohort.obs["other"] = cohort.obs["stp_slides"]
    cohort.obsm["other"] = cohort.obsm["stp_slides"]
    cohort.uns["other"] = cohort.uns["stp_slides"]
    rows = compare(cohort, ["other", "stp_slides"])
    assert rows[["low", "high", "p"]].isna().all(axis=None)
    assert (rows["note"] == "no interval: fewer than 10 cases").all()
