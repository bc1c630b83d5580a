"""Genes behind a slide model: exact effects, tests over patients, and what is refused."""

import dataclasses
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, spearmanr
from tests.explained import (
    CLASSES,
    GENES,
    draw_slide,
    make_model,
    write_cohort,
    write_slide,
)

from stp import io, tl
from stp.models.slide_config import SlideTarget

PATIENTS = [f"P{number}" for number in range(8)]
LABELS = {patient: ("high", "low")[n // 4] for n, patient in enumerate(PATIENTS)}
NAMES = [f"{patient}_0" for patient in PATIENTS] + ["P0_1"]


@pytest.fixture(scope="module")
def tables():
    """Tiles of nine slides of eight patients; P0 has two. Half of them have more of a program."""
    return {
        name: draw_slide(n, shift=1.0 if LABELS[name.split("_")[0]] == "high" else -1.0)
        for n, name in enumerate(NAMES)
    }


@pytest.fixture(scope="module")
def saved(tables, tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), tables, LABELS)


@pytest.fixture
def cohort(saved):
    return saved.copy()


@pytest.fixture
def copied(saved, tmp_path):
    """The cohort with stores that a test may change, in `tmp_path`."""
    cohort = saved.copy()
    for path in cohort.obs["path"]:
        shutil.copytree(path, tmp_path / Path(path).name)
    cohort.obs["path"] = [str(tmp_path / Path(path).name) for path in cohort.obs["path"]]
    return cohort


def genes_of(cohort, side="all", output="high"):
    genes = cohort.uns["stp_slide_genes"]["genes"]
    genes = genes[(genes["side"] == side) & (genes["output"] == output)]
    return genes.set_index("gene")


def test_effects_are_those_of_a_slow_loop(cohort, tables):
    tl.explain_slides(cohort, make_model())
    by_patient = {}
    for name, table in tables.items():
        near = table[~table.obs["stp_expression_far"].to_numpy()]
        program = near.obsm["X_stp_images_aligned"][:, 0]
        own = [spearmanr(program, gene).statistic for gene in near.obsm["stp_expression"].T]
        row = cohort.obs_names.get_loc(name)
        np.testing.assert_allclose(cohort.obsm["stp_slide_genes"][row], own, rtol=1e-5)
        by_patient.setdefault(name.split("_")[0], []).append(own)
    effects = np.array([np.mean(slides, axis=0) for slides in by_patient.values()])
    genes = genes_of(cohort).loc[GENES]
    np.testing.assert_allclose(genes["effect"], effects.mean(axis=0), rtol=1e-5)
    assert (genes["n_slides"] == 9).all() and (genes["n_patients"] == 8).all()
    signs = np.sign(cohort.obsm["stp_slide_genes"]) == np.sign(genes["effect"].to_numpy())
    np.testing.assert_allclose(genes["share_same_sign"], signs.mean(axis=0))
    assert (genes["low"] < genes["effect"]).all() and (genes["effect"] < genes["high"]).all()


def test_planted_genes_come_first_and_only_they_are_significant(cohort):
    tl.explain_slides(cohort, make_model())
    genes = genes_of(cohort)
    assert set(genes.index[:3]) == set(GENES[:3])
    assert genes["p"][:3].tolist() == [2 / 2**8] * 3
    assert (genes["q"][:3] < 0.05).all() and (genes["q"][3:] > 0.1).all()
    entry = cohort.uns["stp_slide_genes"]
    assert entry["units"] == "log1p of counts per 10,000"
    assert entry["expression_model"]["digest"] == "5" * 64
    assert entry["models"]["digests"] == [make_model().digest]


def test_a_model_that_predicts_nothing_has_no_genes(cohort):
    cohort.obs["label"] = [LABELS[f"P{(int(p[1:]) * 3) % 8}"] for p in cohort.obs["patient"]]
    tl.explain_slides(cohort, make_model())
    entry = cohort.uns["stp_slide_genes"]
    model_p = entry["predictions"]["p"].iloc[0]
    assert model_p > 0.1
    genes = genes_of(cohort)
    assert genes["p"].min() < 0.01 and genes["q"].min() > 0.1
    expected = false_discovery_control(np.maximum(genes["p"], model_p))
    np.testing.assert_allclose(genes["q"], expected)


def test_patients_that_the_model_has_seen_are_no_test_of_it(cohort):
    model = make_model()
    hashes = tuple(model.hash_patients(PATIENTS))
    seen = make_model(patients=(model.config.salt, hashes))
    with pytest.warns(UserWarning, match=r"nothing shows that the model .*0 patients have a label"):
        tl.explain_slides(cohort, seen)
    genes = genes_of(cohort)
    np.testing.assert_allclose(genes["q"], false_discovery_control(genes["p"]))


def test_a_cohort_without_labels_warns(cohort):
    del cohort.obs["label"]
    with pytest.warns(UserWarning, match="the cohort has no column 'label'"):
        tl.explain_slides(cohort, make_model())


def test_far_tiles_are_counted_and_not_used(cohort):
    tl.explain_slides(cohort, make_model())
    entry = cohort.uns["stp_slide_genes"]
    slides = entry["slides"]
    assert (slides["n_tiles"] - slides["n_near"] == 3).all()
    np.testing.assert_allclose(slides["share_far"], 3 / slides["n_tiles"])
    assert entry["share_far"] == pytest.approx(27 / slides["n_tiles"].sum())


def test_slides_with_few_near_tiles_are_listed(copied, tables, tmp_path):
    far = tables["P0_1"].copy()
    far.obs["stp_expression_far"] = np.arange(far.n_obs) >= 19
    write_slide(tmp_path / "P0_1.zarr", far)
    write_slide(tmp_path / "P1_0.zarr", tables["P1_0"][:12].copy())
    cohort = io.read_cohort(copied.obs.drop(columns="n_tiles"), use_rep="X_stp_images_aligned")
    with pytest.warns(UserWarning, match="2 slides of 9 are left out: P0_1, P1_0"):
        tl.explain_slides(cohort, make_model())
    slides = cohort.uns["stp_slide_genes"]["slides"]
    assert slides["reason"][["P0_1", "P1_0", "P2_0"]].tolist() == [
        "fewer than 20 near tiles",
        "fewer than 20 tiles",
        "",
    ]
    assert (genes_of(cohort)["n_patients"] == 7).all()
    row = cohort.obs_names.get_loc("P1_0")
    assert np.isnan(cohort.obsm["stp_slide_genes"][row]).all()


def test_too_few_patients_are_refused(cohort):
    few = cohort[cohort.obs["patient"].isin(PATIENTS[:5])].copy()
    with pytest.raises(ValueError, match="5 patients can be explained, and a signed-rank test nee"):
        tl.explain_slides(few, make_model())
    assert "stp_slide_genes" not in few.uns


def test_rows_of_a_store_may_be_in_any_order(cohort, copied, tables, tmp_path):
    table = tables["P0_0"]
    order = np.random.default_rng(0).permutation(table.n_obs)
    write_slide(tmp_path / "P0_0.zarr", table[order].copy())
    for one in (cohort, copied):
        tl.explain_slides(one, make_model())
    first, second = (one.obsm["stp_slide_genes"] for one in (cohort, copied))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_sides_are_those_of_the_threshold(cohort):
    cohort = cohort.copy()
    tl.explain_slides(cohort, make_model())
    sides = cohort.uns["stp_slide_genes"]["sides"].set_index("slide")["side"]
    expected = ["high" if LABELS[name.split("_")[0]] == "high" else "low" for name in sides.index]
    assert sides.tolist() == expected
    assert set(cohort.uns["stp_slide_genes"]["genes"]["side"]) == {"all"}  # 4 patients a side
    high = (dataclasses.replace(CLASSES[0], threshold=0.0),)
    tl.explain_slides(cohort, make_model(high))
    genes = genes_of(cohort, "high")
    assert (genes["n_patients"] == 8).all()
    np.testing.assert_allclose(genes["effect"], genes_of(cohort)["effect"])


def test_values_and_survival_have_sides_too(cohort):
    targets = (
        SlideTarget("value", "purity", value_mean=50.0, value_sd=4.0),
        SlideTarget("survival", "days", event="event", edges=(100.0,)),
        SlideTarget("classes", "grade", ("low", "middle", "high")),
    )
    with pytest.warns(UserWarning, match="the cohort has no column"):
        tl.explain_slides(cohort, make_model(targets))
    sides = cohort.uns["stp_slide_genes"]["sides"].groupby("output")["side"].agg(set)
    assert sides["purity"] == {"high", "low"} and sides["risk"] == {"neither"}
    table = cohort.uns["stp_slide_genes"]["sides"]
    is_high = table[(table["output"] == "purity") & (table["side"] == "high")]
    assert {LABELS[name[:2]] for name in is_high["slide"]} == {"high"}
    risk = genes_of(cohort, output="risk")["effect"]
    purity = genes_of(cohort, output="purity")["effect"]
    np.testing.assert_allclose(risk[GENES], purity[GENES])
    low = genes_of(cohort, output="low")["effect"]  # the first logit of each target rises
    middle = genes_of(cohort, output="middle")["effect"]
    np.testing.assert_allclose(low[GENES], -middle[GENES])
    assert cohort.obsm["stp_slide_genes"].shape == (9, 5 * len(GENES))
    with pytest.raises(KeyError, match="no target 'age'; it has purity, days, grade"):
        tl.explain_slides(cohort, make_model(targets), target="age")


def test_gene_sets_are_means_of_their_genes(cohort, tables):
    sets = {"planted": GENES[:3], "mixed": [*GENES[2:4], "ABSENT"], "unknown": ["ABSENT"]}
    with pytest.warns(UserWarning, match="1 gene set have no gene among .*: unknown"):
        tl.explain_slides(cohort, make_model(), gene_sets=sets)
    near = tables["P2_0"][~tables["P2_0"].obs["stp_expression_far"].to_numpy()]
    program = near.obsm["X_stp_images_aligned"][:, 0]
    values = near.obsm["stp_expression"]
    expected = [
        spearmanr(program, values[:, own].mean(axis=1)).statistic for own in ([0, 1, 2], [2, 3])
    ]
    row = cohort.obs_names.get_loc("P2_0")
    np.testing.assert_allclose(cohort.obsm["stp_slide_genes"][row], expected, rtol=1e-5)
    assert cohort.uns["stp_slide_genes"]["columns"] == ["planted", "mixed"]
    with pytest.raises(KeyError, match="no gene of 1 gene set is among the genes of"):
        tl.explain_slides(cohort, make_model(), gene_sets={"unknown": ["ABSENT"]})


def test_results_are_the_same_for_a_seed_and_can_be_stored(cohort, tmp_path):
    explained = tl.explain_slides(cohort, make_model(), seed=3, copy=True)
    assert "stp_slide_genes" not in cohort.uns
    tl.explain_slides(cohort, make_model(), seed=3)
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    stored = anndata.read_h5ad(tmp_path / "cohort.h5ad")
    for table in (explained, stored):
        pd.testing.assert_frame_equal(
            genes_of(cohort), genes_of(table), check_dtype=False, check_index_type=False
        )


def test_a_transformer_is_refused(cohort):
    with pytest.raises(ValueError, match="pooling='transformer', whose logits are no sum"):
        tl.explain_slides(cohort, make_model(pooling="transformer"))


def test_other_features_are_refused(cohort):
    with pytest.raises(ValueError, match="was trained on planted .* and the cohort has planted"):
        tl.explain_slides(cohort, make_model(digest="6" * 64))


def test_few_shifts_are_refused(cohort):
    with pytest.raises(ValueError, match="n_permutations must be at least 100, not 10"):
        tl.explain_slides(cohort, make_model(), n_permutations=10)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("no genes", KeyError, r"1 slide have no obsm\['stp_expression'\]: P0_0; run"),
        ("genes", ValueError, "have obsm.*with different genes; run"),
        ("model", ValueError, "have obsm.*with different models; run"),
        ("far", ValueError, "have obsm.*with different flags of far tiles; run"),
        ("places", ValueError, "tiles of the slide 'P0_0' lie on no square grid"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change, error, message, copied, tables, tmp_path):
    table = tables["P0_0"].copy()
    if change == "no genes":
        del table.obsm["stp_expression"]
    elif change == "genes":
        table.uns["stp_expression"]["genes"] = np.array(GENES[::-1], object)
    elif change == "model":
        table.uns["stp_expression"]["model"] = {"name": "x", "class": "Stamp", "digest": "7" * 64}
    elif change == "far":
        del table.obs["stp_expression_far"]
    else:
        table.obsm["spatial"] = np.random.default_rng(0).random((table.n_obs, 2)) * 1000
    write_slide(tmp_path / "P0_0.zarr", table)
    with pytest.raises(error, match=message):
        tl.explain_slides(copied, make_model())


def test_feature_files_are_refused(tmp_path):
    from tests.cohorts import make_cohort

    cohort = make_cohort(tmp_path, n_patients=4)
    with pytest.raises(ValueError, match="5 slides of the cohort are feature files, which have no"):
        tl.explain_slides(cohort, make_model())


def test_tables_of_a_prediction_by_regression_have_no_far_tiles(tables, tmp_path):
    tables = {name: tables[name].copy() for name in NAMES[:6]}
    for table in tables.values():
        del table.obs["stp_expression_far"]
    cohort = write_cohort(tmp_path, tables, LABELS)
    tl.explain_slides(cohort, make_model())
    slides = cohort.uns["stp_slide_genes"]["slides"]
    assert slides["share_far"].isna().all() and (slides["n_near"] == slides["n_tiles"]).all()
    assert np.isnan(cohort.uns["stp_slide_genes"]["share_far"])
