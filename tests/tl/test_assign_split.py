import itertools

import numpy as np
import pandas as pd
import pytest

import stp


def make_collection(patients, tmp_path, **columns):
    names = [f"s{number:03}" for number in range(len(patients))]
    table = pd.DataFrame({"name": names, "path": names, "digest": names, "patient": patients})
    return stp.io.Collection(table.assign(**columns), tmp_path)


def side_of(collection):
    return dict(zip(collection.table["name"], collection.table["split"], strict=True))


@pytest.fixture
def her2(tmp_path):
    names = ["C1", "D1", "E1", "F1"]
    table = pd.DataFrame({"name": names, "path": names, "digest": names, "patient": list("CDEF")})
    return stp.io.Collection(table.assign(n_spots=[176, 306, 587, 691]), tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_four_patients_fill_three_sides(her2, seed):
    sides = stp.tl.assign_split(her2, seed=seed).table["split"].tolist()
    assert sorted(sides) == ["test", "train", "train", "validation"]
    assert "split" not in her2.table


def test_seeds_give_different_splits(her2):
    splits = {tuple(stp.tl.assign_split(her2, seed=seed).table["split"]) for seed in range(20)}
    assert len(splits) > 2


@pytest.mark.parametrize("seed", range(3))
def test_patients_are_whole_and_shares_are_met(tmp_path, seed):
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, 80, 300).astype(str)
    n_spots = rng.integers(300, 5000, 300)
    collection = stp.tl.assign_split(
        make_collection(patients, tmp_path, n_spots=n_spots), validation=0.1, test=0.2, seed=seed
    )
    table = collection.table
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    shares = table.groupby("split")["n_spots"].sum() / n_spots.sum()
    expected = {"test": 0.2, "train": 0.7, "validation": 0.1}
    assert shares.to_dict() == pytest.approx(expected, abs=0.02)


def test_organs_and_platforms_have_the_same_shares_on_each_side(tmp_path):
    # 40 patients of breast and 10 of lung, each with one store of 100 spots.
    patients = [str(number) for number in range(50)]
    organs = ["breast"] * 40 + ["lung"] * 10
    platforms = ["Visium", "ST"] * 25
    collection = make_collection(
        patients, tmp_path, organ=organs, platform=platforms, n_spots=[100] * 50
    )
    table = stp.tl.assign_split(collection, validation=0.2, test=0.2).table
    counts = pd.crosstab(table["organ"], table["split"])
    assert counts.loc["breast"].to_dict() == {"test": 8, "train": 24, "validation": 8}
    assert counts.loc["lung"].to_dict() == {"test": 2, "train": 6, "validation": 2}
    counts = pd.crosstab(table["platform"], table["split"])
    assert counts.loc["ST"].to_dict() == {"test": 5, "train": 15, "validation": 5}


def test_an_organ_of_one_patient_is_trained_on(tmp_path):
    patients = [str(number) for number in range(31)]
    organs = ["breast"] * 30 + ["bladder"]
    collection = make_collection(patients, tmp_path, organ=organs, n_spots=[100] * 31)
    table = stp.tl.assign_split(collection).table
    assert table["split"].iloc[-1] == "train"


def test_the_order_of_rows_does_not_matter(tmp_path):
    rng = np.random.default_rng(1)
    patients = rng.integers(0, 20, 60).astype(str)
    organs = rng.choice(["breast", "lung", ""], 60)
    collection = make_collection(patients, tmp_path, organ=organs, n_spots=rng.integers(1, 99, 60))
    shuffled = stp.io.Collection(collection.table.sample(frac=1, random_state=2), tmp_path)
    pairs = pd.DataFrame({"first": ["s001", "s009"], "second": ["s040", "s002"]})
    first = stp.tl.assign_split(collection, seed=3, duplicates=pairs)
    second = stp.tl.assign_split(shuffled, seed=3, duplicates=pairs[["second", "first"]])
    assert side_of(first) == side_of(second)


def connected(patients, pairs):
    """Return whether each two stores are connected by patients and pairs: the slow way."""
    n = len(patients)
    reach = np.eye(n, dtype=bool)
    for a, b in itertools.product(range(n), repeat=2):
        reach[a, b] |= patients[a] == patients[b]
    for a, b in pairs:
        reach[a, b] = reach[b, a] = True
    for _ in range(n):
        reach = reach @ reach
    return reach


def test_near_duplicates_take_their_patients_along(tmp_path):
    rng = np.random.default_rng(0)
    patients = [str(patient) for patient in rng.integers(0, 15, 40)]
    pairs = [(0, 30), (30, 12), (7, 8)]
    frame = pd.DataFrame(
        {"first": [f"s{a:03}" for a, _ in pairs], "second": [f"s{b:03}" for _, b in pairs]}
    )
    reach = connected(patients, pairs)
    for seed in range(5):
        collection = stp.tl.assign_split(
            make_collection(patients, tmp_path), seed=seed, duplicates=frame, validation=0.3
        )
        sides = collection.table["split"].to_numpy()
        assert (sides[:, None] == sides)[reach].all()
        assert set(sides) == {"train", "validation", "test"}


def test_stores_of_the_same_content_are_on_one_side(tmp_path):
    collection = make_collection(list("abcd"), tmp_path)
    collection.table["digest"] = ["x", "x", "y", "z"]
    for seed in range(5):
        sides = stp.tl.assign_split(collection, seed=seed).table["split"].tolist()
        assert sides[0] == sides[1]


def test_a_duplicate_outside_the_selection_still_links(tmp_path):
    # s000 and s003 both resemble s001, which is not selected.
    collection = make_collection(list("abcde"), tmp_path, organ=["x", "y", "x", "x", "x"])
    frame = pd.DataFrame({"first": ["s000", "s001"], "second": ["s001", "s003"]})
    for seed in range(5):
        part = stp.tl.assign_split(collection.select({"organ": "x"}), seed=seed, duplicates=frame)
        assert side_of(part)["s000"] == side_of(part)["s003"]


def test_stores_with_a_problem_follow_their_patient_and_do_not_count(tmp_path):
    collection = make_collection(list("aabcd"), tmp_path, n_spots=[100, 0, 100, 100, 9000])
    collection.table["problem"] = ["", "no spots", "", "", "no scale"]
    sides = stp.tl.assign_split(collection).table["split"].tolist()
    assert sides[0] == sides[1]
    assert {sides[0], sides[2], sides[3]} == {"train", "validation", "test"}
    assert sides[4] == "train"


def test_a_share_of_zero_makes_no_side(her2):
    sides = stp.tl.assign_split(her2, validation=0.25, test=0).table["split"]
    assert sorted(set(sides)) == ["train", "validation"]
    assert set(stp.tl.assign_split(her2, validation=0, test=0).table["split"]) == {"train"}


def test_an_existing_split_is_kept_unless_asked(her2):
    split = stp.tl.assign_split(her2)
    with pytest.raises(ValueError, match="has a split 'split'; pass overwrite=True"):
        stp.tl.assign_split(split)
    assert side_of(stp.tl.assign_split(split, overwrite=True)) == side_of(split)
    both = stp.tl.assign_split(split, key_added="second", seed=1)
    assert {"split", "second"} <= set(both.table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "patiente"}, r"no column 'patiente' \(did you mean 'patient'\?\)"),
        ({"stratify": ["orgn"]}, "no column 'orgn'"),
        ({"stratify": "organ"}, "pass a list of columns"),
        ({"validation": 0.6, "test": 0.4}, "leave nothing to train on"),
        ({"test": -0.1}, "test must be a share from 0 to below 1, not -0.1"),
        ({"validation": 10}, "validation must be a share"),
        ({"key_added": "name"}, "is a column that the split is made from"),
        ({"duplicates": pd.DataFrame({"a": ["C1"]})}, "lack the columns"),
        (
            {"duplicates": pd.DataFrame({"first": ["X"], "second": ["Y"]})},
            r"of other stores, e\.g\. X, Y",
        ),
        (
            {"duplicates": pd.DataFrame({"first": ["C1", "D1"], "second": ["D1", "E1"]})},
            "3 sides need as many units .* the collection has 2",
        ),
    ],
)
def test_wrong_arguments_are_refused(her2, arguments, message):
    with pytest.raises(ValueError, match=message):
        stp.tl.assign_split(her2, **arguments)


def test_rows_without_a_patient_are_listed(her2):
    her2.table["patient"] = ["C", None, "", "F"]
    with pytest.raises(ValueError, match=r"2 rows have no 'patient': D1, E1; .*by=\"name\""):
        stp.tl.assign_split(her2)
    assert len(set(side_of(stp.tl.assign_split(her2, by="name")).values())) == 3
    her2.table["n_spots"] = [1, np.nan, 0, 2]
    with pytest.raises(ValueError, match="'n_spots' is missing or 0 in the rows D1, E1"):
        stp.tl.assign_split(her2, by="name")
