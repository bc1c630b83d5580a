"""Targets: what they read from a cohort, and what they refuse."""

import anndata
import numpy as np
import pandas as pd
import pytest

from stp import train
from stp.train.targets import Survival


def table(**columns):
    n = len(next(iter(columns.values())))
    obs = pd.DataFrame({"patient": [f"P{i}" for i in range(n)], **columns})
    obs.index = [f"s{i}" for i in range(n)]
    return anndata.AnnData(obs=obs)


def describe(target, cohort, is_training=None):
    everyone = np.ones(cohort.n_obs, bool)
    return target.describe(cohort, everyone if is_training is None else np.array(is_training))


def test_classes_are_the_sorted_labels_of_the_training_patients():
    cohort = table(grade=["b", "a", "b", "a", None, "b"])
    target = describe(train.Classes("grade"), cohort)
    assert target.classes == ("a", "b") and target.columns == ("grade_a", "grade_b")
    labels = train.Classes("grade").read(cohort, target)
    assert labels.values.tolist() == [1, 0, 1, 0, -1, 1]
    assert labels.has_label.tolist() == [True] * 4 + [False, True]


@pytest.mark.parametrize(
    "values", [[0, 1, 0, 1, 1], [0.0, 1.0, 0.0, 1.0, np.nan], [False, True, False, True, None]]
)
def test_numbers_and_booleans_are_classes_under_one_name(values):
    target = describe(train.Classes("status"), table(status=values))
    assert target.classes in (("0", "1"), ("False", "True"))
    positive = values[1]
    assert describe(train.Classes("status", positive=positive), table(status=values)).positive in (
        "1",
        "True",
    )


def test_a_patient_with_two_slides_counts_once():
    obs = pd.DataFrame({"patient": ["P", "P", "Q"], "grade": ["a", "a", "b"]}, index=list("xyz"))
    with pytest.raises(ValueError, match="too few training patients: 'a' 1, 'b' 1"):
        train.Classes("grade").describe(anndata.AnnData(obs=obs), np.ones(2, bool))


@pytest.mark.parametrize(
    ("target", "columns", "message"),
    [
        (train.Classes("g"), {"g": list("aab")}, "'a' 2, 'b' 1; each of at least two classes"),
        (train.Classes("g"), {"g": list("aaa")}, "each of at least two classes"),
        (train.Classes("g"), {"g": list(range(12))}, r"12 different numbers.*train.Value\('g'\)"),
        (train.Classes("g"), {"g": [f"{i}.5" for i in range(12)]}, "12 different numbers"),
        (train.Classes("g", classes=["a", "c"]), {"g": list("aabb")}, "has b, which no training"),
        (train.Classes("g", positive="c"), {"g": list("aabb")}, "positive 'c' is no class"),
        (train.Classes("g", positive="a"), {"g": list("aabbcc")}, "positive needs two classes"),
        (train.Value("v"), {"v": [1.0, "high", 2.0]}, "'high' for patient P1.*no finite number"),
        (train.Value("v"), {"v": [1.0, np.inf, 2.0]}, "'inf' for patient P1"),
        (train.Value("v"), {"v": [1.0, 1.0, None]}, "1 different values"),
        (Survival("t", "e"), {"t": [1.0, 2, 3, 4], "e": [0, 1, 2, 1]}, "has 2 for patient P2"),
        (Survival("t", "e"), {"t": [1.0, 2, 3, 4], "e": list("yyny")}, "'y' for patient P0"),
        (Survival("t", "e"), {"t": [1.0, 0, 3, 4], "e": [1, 1, 1, 1]}, "is 0 for patient P1"),
        (Survival("t", "e"), {"t": [1.0, -5, 3, 4], "e": [1, 1, 1, 1]}, "is -5 for patient P1"),
        (
            Survival("t", "e"),
            {"t": [1.0, np.nan, 3, 4], "e": [1, 1, 1, 1]},
            "only one of .* P1; write both",
        ),
        (Survival("t", "e"), {"t": [1.0, 2, 3, 4], "e": [1, 1, 1, 0]}, "3 events in training"),
        (
            Survival("t", "e"),
            {"t": [5.0, 5, 5, 5, 5], "e": [1, 1, 1, 1, 1]},
            "set a smaller n_intervals",
        ),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(target, columns, message):
    with pytest.raises(ValueError, match=message):
        describe(target, table(**columns))


def test_classes_that_are_listed_may_be_many_numbers():
    cohort = table(g=list(range(12)) * 2)
    target = describe(train.Classes("g", classes=list(range(12))), cohort)
    assert target.classes == tuple(map(str, range(12)))


def test_only_training_patients_give_mean_and_spread():
    cohort = table(v=[1.0, 3.0, 100.0, None])
    target = describe(train.Value("v"), cohort, [True, True, False, True])
    assert (target.value_mean, target.value_sd) == (2.0, 1.0)
    labels = train.Value("v").read(cohort, target)
    np.testing.assert_allclose(labels.values, [-1, 1, 98, 0])
    assert labels.has_label.tolist() == [True, True, True, False]


def test_edges_are_quantiles_of_events_of_training_patients():
    times = [10.0, 20, 30, 40, 50, 1000, 7, None]
    events = [True, True, True, True, True, True, False, None]
    cohort = table(t=times, e=events)
    target = describe(Survival("t", "e"), cohort, [True] * 5 + [False] + [True] * 2)
    assert target.edges == (20.0, 30.0, 40.0) and target.n_outputs == 4
    labels = Survival("t", "e").read(cohort, target)
    assert labels.values.tolist() == [*times[:7], 0.0]
    assert labels.events.tolist() == [True] * 6 + [False] * 2
    assert labels.has_label.tolist() == [True] * 7 + [False]


def test_slides_of_a_patient_that_contradict_each_other_are_refused():
    obs = pd.DataFrame({"patient": ["P", "P"], "grade": ["a", "b"]}, index=list("xy"))
    with pytest.raises(ValueError, match="different values"):
        train.Classes("grade").describe(anndata.AnnData(obs=obs), np.ones(1, bool))


def test_a_missing_column_is_named_with_the_nearest_one():
    with pytest.raises(KeyError, match="did you mean 'os_days'"):
        describe(Survival("os_day", "e"), table(os_days=[1.0], e=[1]))
