import anndata
import numpy as np
import pandas as pd
import pytest

import stp


def make_cohort(n_patients: int = 60, seed: int = 0, **columns) -> anndata.AnnData:
    """Return a cohort with one to three slides a patient, in no order; columns are by patient."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients)))
    obs = pd.DataFrame({"patient": [f"P{number:03d}" for number in numbers]})
    for name, values in columns.items():
        obs[name] = pd.Series(values)[numbers].to_numpy()
    obs.index = [f"slide {number}" for number in range(len(obs))]
    return anndata.AnnData(obs=obs)


def folds_of(cohort: anndata.AnnData, unit: str = "patient", key: str = "stp_fold") -> pd.Series:
    """Return the fold of each patient or hospital; fail if one is in several."""
    by_unit = cohort.obs.groupby(unit, observed=True)[key]
    assert (by_unit.nunique() == 1).all()
    return by_unit.first()


def test_patients_stay_whole_and_folds_have_equal_shares_of_each_class():
    cohort = make_cohort(label=["a"] * 40 + ["b"] * 15 + ["c"] * 5)
    stp.tl.assign_folds(cohort, "label")
    assert cohort.obs["stp_fold"].dtype == int
    folds = folds_of(cohort)
    labels = cohort.obs.groupby("patient")["label"].first()
    table = pd.crosstab(folds, labels)
    assert table.to_numpy().tolist() == [[8, 3, 1]] * 5
    written = cohort.uns["stp_fold"]["table"]
    pd.testing.assert_frame_equal(
        written.pivot(index="fold", columns="class", values="n_patients"),
        table,
        check_names=False,
        check_dtype=False,
    )


def test_hospitals_stay_whole():
    rng = np.random.default_rng(1)
    site = rng.integers(0, 15, 90)
    cohort = make_cohort(90, label=rng.integers(0, 2, 90), site=[f"h{number}" for number in site])
    stp.tl.assign_folds(cohort, "label", n_folds=4, site_key="site")
    folds_of(cohort)
    assert folds_of(cohort, "site").nunique() == 4
    # Without it, most hospitals are in several folds.
    stp.tl.assign_folds(cohort, "label", n_folds=4, key_added="random")
    assert (cohort.obs.groupby("site")["random"].nunique() > 1).mean() > 0.5


def test_folds_do_not_depend_on_the_order_of_the_slides():
    cohort = make_cohort(label=["a"] * 40 + ["b"] * 20)
    shuffled = cohort[np.random.default_rng(1).permutation(cohort.n_obs)].copy()
    for table in (cohort, shuffled):
        stp.tl.assign_folds(table, "label")
    pd.testing.assert_series_equal(folds_of(cohort), folds_of(shuffled))


def test_the_seed_and_nothing_else_changes_the_folds():
    cohort = make_cohort(label=["a"] * 40 + ["b"] * 20)
    for key, seed in {"first": 0, "again": 0, "other": 1}.items():
        stp.tl.assign_folds(cohort, "label", seed=seed, key_added=key)
    assert cohort.obs["first"].equals(cohort.obs["again"])
    assert not cohort.obs["first"].equals(cohort.obs["other"])
    assert cohort.uns["other"]["params"]["seed"] == 1


@pytest.mark.parametrize("dtype", [int, float, bool, str, "category", "Int64"])
def test_an_event_is_a_class_whatever_the_type_of_its_column(dtype):
    event = pd.Series([0] * 45 + [1] * 15)
    cohort = make_cohort(event=event.astype(dtype))
    stp.tl.assign_folds(cohort, "event")
    events = folds_of(cohort).groupby(cohort.obs.groupby("patient")["event"].first())
    assert sorted(map(len, events.indices.values())) == [15, 45]
    counts = cohort.uns["stp_fold"]["table"]["n_patients"]
    assert sorted(counts) == [3] * 5 + [9] * 5
    assert not len(cohort.uns["stp_fold"]["edges"])


@pytest.mark.parametrize("dtype", [float, int])
def test_other_numbers_are_divided_at_their_quartiles(dtype):
    values = (100 * np.random.default_rng(0).exponential(size=80)).astype(dtype)
    cohort = make_cohort(80, days=values)
    stp.tl.assign_folds(cohort, "days")
    entry = cohort.uns["stp_fold"]
    np.testing.assert_allclose(entry["edges"], np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    assert len(entry["table"]) == 20
    days = cohort.obs.groupby("patient")["days"].first()
    for _, part in days.groupby(folds_of(cohort)):
        # Each quarter of the values is a quarter of the fold.
        quarters = np.searchsorted(entry["edges"][1:-1], part)
        assert np.bincount(quarters, minlength=4).tolist() == pytest.approx([4] * 4, abs=1)


def test_patients_without_a_label_get_no_fold():
    cohort = make_cohort(30, label=["a"] * 12 + ["b"] * 15 + [None, "", np.nan])
    with pytest.warns(UserWarning, match=r"3 patients without a label .*\(-1\): P"):
        stp.tl.assign_folds(cohort, "label")
    folds = folds_of(cohort)
    assert (folds == -1).sum() == 3
    assert (folds[-3:] == -1).all()
    assert cohort.uns["stp_fold"]["table"]["n_patients"].sum() == 27


def test_a_copy_leaves_the_table_as_it_is_and_can_be_saved(tmp_path):
    cohort = make_cohort(age=np.linspace(30, 80, 60))
    annotated = stp.tl.assign_folds(cohort, "age", copy=True)
    assert "stp_fold" not in cohort.obs
    annotated.write_h5ad(tmp_path / "cohort.h5ad")
    loaded = anndata.read_h5ad(tmp_path / "cohort.h5ad")
    assert loaded.obs["stp_fold"].equals(annotated.obs["stp_fold"])
    assert loaded.uns["stp_fold"]["params"]["site_key"] is None


def test_a_class_that_is_too_rare_is_refused():
    cohort = make_cohort(30, label=["a"] * 26 + ["b"] * 4)
    with pytest.raises(ValueError, match=r"fewer patients than the 5 folds: 'b' with 4 patients"):
        stp.tl.assign_folds(cohort, "label")
    assert "stp_fold" not in cohort.obs
    stp.tl.assign_folds(cohort, "label", n_folds=4)


def test_labels_that_cannot_be_divided_are_refused():
    cohort = make_cohort(
        30, one=["a"] * 30, none=[None] * 30, infinite=np.r_[np.inf, 0.5, [1] * 28]
    )
    with pytest.raises(ValueError, match="only the class 'a'"):
        stp.tl.assign_folds(cohort, "one")
    with pytest.raises(ValueError, match="has no label"):
        stp.tl.assign_folds(cohort, "none")
    with pytest.raises(ValueError, match="is infinite for P000"):
        stp.tl.assign_folds(cohort, "infinite")
    with pytest.raises(KeyError, match=r"'EGFR'\] is missing"):
        stp.tl.assign_folds(cohort, "EGFR")
    with pytest.raises(ValueError, match="n_folds must be at least 2, not 1"):
        stp.tl.assign_folds(cohort, "one", n_folds=1)


def test_slides_of_a_patient_that_disagree_are_refused():
    cohort = make_cohort(30, label=["a"] * 15 + ["b"] * 15, site=list("xyz") * 10)
    rows = np.flatnonzero(cohort.obs["patient"] == cohort.obs["patient"].mode()[0])
    for column in ("label", "site"):
        wrong = cohort.copy()
        wrong.obs.iloc[rows[0], wrong.obs.columns.get_loc(column)] = "q"
        with pytest.raises(
            ValueError, match=rf"slides of 1 patient have different values of obs\['{column}'"
        ):
            stp.tl.assign_folds(wrong, "label", n_folds=3, site_key="site")
    wrong = cohort.copy()
    wrong.obs.iloc[rows[0], wrong.obs.columns.get_loc("label")] = None
    with pytest.raises(ValueError, match="have different values"):
        stp.tl.assign_folds(wrong, "label")


def test_hospitals_that_cannot_be_divided_are_refused():
    label = ["a"] * 15 + ["b"] * 15
    cohort = make_cohort(
        30,
        label=label,
        three=list("xyz") * 10,
        by_class=["x", "y", "z"] * 5 + ["w"] * 15,
        partly=[*"xyzw" * 7, "x", None],
    )
    with pytest.raises(ValueError, match=r"obs\['three'\] has 3 hospitals for 5 folds"):
        stp.tl.assign_folds(cohort, "label", site_key="three")
    with pytest.raises(ValueError, match="class 'b' are of one hospital"):
        stp.tl.assign_folds(cohort, "label", n_folds=3, site_key="by_class")
    with pytest.raises(ValueError, match=r"no hospital in obs\['partly'\]: P029"):
        stp.tl.assign_folds(cohort, "label", n_folds=3, site_key="partly")


def test_a_class_that_hospitals_keep_out_of_a_fold_is_named():
    label = ["a"] * 27 + ["b"] * 3
    site = [*list("uvwxyz") * 4, "u", "v", "w", "u", "u", "v"]
    cohort = make_cohort(30, label=label, site=site)
    with pytest.warns(UserWarning, match="classes are missing in folds.*'b' in fold"):
        stp.tl.assign_folds(cohort, "label", n_folds=3, site_key="site")
    table = cohort.uns["stp_fold"]["table"]
    assert (table["n_patients"] == 0).sum() == 1


def test_real_hospitals_of_tcga_stay_whole(real):
    slides = pd.read_csv(real("cohorts", "tcga_blca", "slides.csv"), dtype={"site": str})
    cohort = anndata.AnnData(
        obs=slides.set_index("slide_id").rename(columns={"case_id": "patient"})
    )
    # The letters of the barcode after the project are the hospital.
    cohort.obs["hospital"] = cohort.obs["patient"].str.split("-").str[1]
    stp.tl.assign_folds(cohort, "censorship", site_key="hospital")
    folds_of(cohort)
    assert folds_of(cohort, "hospital").nunique() == 5
