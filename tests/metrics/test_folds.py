import numpy as np
import pytest

from stp.metrics._folds import check_apart, check_whole, folds

LABELS = np.repeat(["a", "b"], [60, 40])


def test_random_folds_test_each_spot_once_and_have_equal_shares_of_classes():
    parts = folds(LABELS, n_folds=4)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([test for _, test in parts])), np.arange(100)
    )
    for train, test in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(100))
        assert (LABELS[test] == "a").sum() == 15
    again = folds(LABELS, n_folds=4)
    other = folds(LABELS, n_folds=4, seed=1)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(parts, again, strict=True))
    assert not np.array_equal(parts[0][1], other[0][1])


def test_each_group_is_tested_once_and_whole():
    groups = np.arange(100) % 3
    parts = folds(LABELS, groups)
    assert [set(groups[test]) for _, test in parts] == [{0}, {1}, {2}]
    for train, test in parts:
        assert not set(groups[train]) & set(groups[test])
        assert len(train) + len(test) == 100


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (["a"] * 10, None, r"one class \['a'\]; at least two"),
        (["a"] * 9 + ["b"], None, "class 'b' has 1 spots, fewer than 5 folds; leave it out"),
        (["a"] * 5 + ["b"] * 5, ["s"] * 10, "all spots belong to one group 's'"),
    ],
)
def test_folds_refuse(labels, groups, message):
    with pytest.raises(ValueError, match=message):
        folds(labels, groups)


def test_a_slide_on_both_sides_is_refused():
    check_apart(["C1", "C2"], ["D1"])
    with pytest.raises(
        ValueError, match="patient C, E is on both sides of the split; keep it on one side"
    ):
        check_apart(["C", "D", "E"], ["E", "C"], "patient")


def test_groups_that_divide_a_slide_are_refused():
    slides = np.repeat(["s1", "s2"], 10)
    check_whole(slides, np.repeat(["p", "q"], 10))
    check_whole(np.repeat(["s1"], 10), np.arange(10))  # blocks of one slide
    check_whole(np.repeat(["s1"], 10), None)
    with pytest.raises(ValueError, match="the spots are of 2 slides; give group_key="):
        check_whole(slides, None)
    with pytest.raises(
        ValueError, match="slide 's1' is on both sides of a split: its spots are of groups a, b;"
    ):
        check_whole(slides, np.repeat(["a", "b", "c"], [5, 5, 10]))
