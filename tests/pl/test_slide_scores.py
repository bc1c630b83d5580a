"""Figures of scored slides: what they draw, their legends, and numbers at risk."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.special import softmax
from tests.pl.test_colors import VISIONS, smallest_distance
from tests.predictions import add_classes, binary_cohort, make_cohort, survival_cohort, write

import stp
from stp import pl

CURVES = [pl.roc, pl.precision_recall, pl.calibration]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def binary():
    cohort, *_ = binary_cohort(90, 3)
    stp.tl.score_slides(cohort, n_resamples=50)
    return cohort


@pytest.fixture(scope="module")
def survival():
    cohort, *arrays = survival_cohort()
    stp.tl.score_slides(cohort, n_resamples=20)
    return cohort, *arrays


@pytest.fixture(scope="module")
def several():
    """A cohort with three classes."""
    codes = np.arange(60) % 3
    rng = np.random.default_rng(0)
    probabilities = softmax(rng.normal(size=(60, 3)) + 2 * np.eye(3)[codes], axis=1)
    cohort = add_classes(make_cohort(60, 1), codes, probabilities, classes=("x", "y", "z"), n_all=1)
    stp.tl.score_slides(cohort, n_resamples=20)
    return cohort


def legend(ax):
    return " ".join(text.get_text() for text in ax.get_legend().get_texts()).replace("\n", " ")


def scores_of(cohort):
    table = cohort.uns["stp_slide_scores"]["scores"]
    return table.set_index(["score", "class", "decision"]).sort_index()


@pytest.mark.parametrize(
    ("draw", "score", "title"),
    [(pl.roc, "auroc", "AUROC"), (pl.precision_recall, "auprc", "average precision")],
)
def test_legends_have_score_interval_and_numbers(binary, draw, score, title):
    ax = draw(binary).axes[0]
    row = scores_of(binary).loc[(score, "mutated", "")]
    text = f"mutated: {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    assert text in legend(ax)
    assert "90 patients, 54 mutated" in legend(ax)
    assert ax.get_legend().get_title().get_text() == f"{title} (95 % interval)"
    assert ax.get_title() == "EGFR"


def test_roc_draws_the_mean_curve_its_band_and_the_threshold(binary):
    ax = pl.roc(binary).axes[0]
    curve = binary.uns["stp_slide_scores"]["curves"]["EGFR"]["roc"]
    line = max(ax.lines, key=lambda line: len(line.get_xdata()))
    np.testing.assert_array_equal(line.get_xdata(), curve["false_positive_share"])
    np.testing.assert_array_equal(line.get_ydata(), curve["sensitivity"])
    assert len(ax.collections) == 1
    (dot,) = [line for line in ax.lines if line.get_marker() == "o"]
    rows = scores_of(binary)
    specificity = rows.loc[("specificity", "mutated", "threshold")]["value"]
    sensitivity = rows.loc[("sensitivity", "mutated", "threshold")]["value"]
    assert dot.get_xydata().tolist() == [[1 - specificity, sensitivity]]
    area = np.trapezoid(curve["sensitivity"], curve["false_positive_share"])
    assert area == pytest.approx(rows.loc[("auroc", "mutated", "")]["value"], abs=0.01)


def test_precision_recall_draws_the_share_of_the_class_as_chance(binary):
    ax = pl.precision_recall(binary).axes[0]
    dotted = [line.get_ydata() for line in ax.lines if line.get_linestyle() == ":"]
    assert [0.6, 0.6] in [list(values) for values in dotted]


def test_calibration_draws_shares_of_bins(binary):
    ax = pl.calibration(binary).axes[0]
    bins = binary.uns["stp_slide_scores"]["curves"]["EGFR"]["calibration"]
    assert bins["n_patients"].sum() == 90
    points = ax.containers[0].lines[0]
    np.testing.assert_allclose(points.get_xydata(), bins[["predicted", "observed"]])
    assert "slope" in legend(ax)
    assert "calibration error" in legend(ax)


def test_kaplan_meier_has_the_numbers_at_risk_under_the_axis(survival):
    cohort, times, _, risks = survival
    ax = pl.kaplan_meier(cohort).axes[0]
    numbers = {}
    for text in ax.texts:
        if text.get_text() != "number at risk":
            numbers.setdefault(text.xyann[1], []).append(text)
    assert len(numbers) == 2
    groups = {"low risk": risks <= 0, "high risk": risks > 0}
    for texts in numbers.values():
        (name,) = [text.get_text() for text in texts if text.get_text().endswith("risk")]
        for text in texts:
            if text.get_text() != name:
                expected = (groups[name] & (times >= text.xy[0])).sum()
                assert int(text.get_text()) == expected
    first = [line for line in ax.lines if line.get_label().startswith("low")][0]
    assert first.get_xydata()[0].tolist() == [0, 1]
    assert "hazard ratio" in ax.get_legend().get_title().get_text()
    assert "log-rank p" in ax.get_legend().get_title().get_text()
    assert f"{(risks > 0).sum()} patients" in legend(ax)


@pytest.mark.parametrize("draw", CURVES)
def test_each_class_has_a_color(several, draw):
    ax = draw(several).axes[0]
    colors = {line.get_color() for line in ax.lines} - {"black"}
    assert len(colors) == 3
    own = draw(several, palette={"x": "#111111", "y": "#222222", "z": "#333333"}).axes[0]
    assert {line.get_color() for line in own.lines} - {"black"} == {"#111111", "#222222", "#333333"}


@pytest.mark.parametrize("vision", VISIONS)
def test_groups_of_risk_can_be_told_apart(survival, vision):
    ax = pl.kaplan_meier(survival[0]).axes[0]
    colors = {mpl.colors.to_hex(line.get_color()) for line in ax.lines}
    assert len(colors) == 2
    assert smallest_distance(sorted(colors), vision) > 20


def test_confusion_of_slides_shows_shares_of_patients(several):
    ax = pl.confusion(several, key="stp_slide_scores").axes[0]
    counts = several.uns["stp_slide_scores"]["confusion"]["EGFR"]["counts"]
    np.testing.assert_allclose(ax.images[0].get_array(), counts / 20)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x (20)", "y (20)", "z (20)"]
    assert ax.get_title().startswith("EGFR: balanced accuracy 0.")
    assert ax.child_axes[0].get_ylabel() == "share of the row's patients"
    with pytest.raises(KeyError, match="pass key='stp_slide_scores' to draw predicted slides"):
        pl.confusion(several)


def test_each_target_has_a_panel():
    cohort, is_positive, probabilities = binary_cohort(60, 1, n_all=1)
    outputs = np.stack([probabilities, 1 - probabilities] * 2, axis=1)
    targets = dict.fromkeys(("EGFR", "KRAS"), cohort.uns["stp_slides"]["targets"]["EGFR"])
    names = [f"{target}_{name}" for target in targets for name in ("mutated", "wild type")]
    write(cohort, "stp_slides", targets, outputs, names, n_all=1)
    cohort.obs["KRAS"] = cohort.obs["EGFR"]
    for name in targets:
        cohort.obs[f"stp_slides_{name}"] = cohort.obs["stp_slides"]
        cohort.obs[f"stp_slides_{name}_threshold"] = 0.4
    stp.tl.score_slides(cohort, n_resamples=10)
    for draw in (*CURVES, lambda *a, **b: pl.confusion(*a, key="stp_slide_scores", **b)):
        figure = draw(cohort)
        drawn = [ax.get_title() for ax in figure.axes if ax.get_title()]
        assert [title.split(":")[0] for title in drawn] == ["EGFR", "KRAS"]
        assert len(draw(cohort, target="KRAS", title="mine").axes) == 1
        with pytest.raises(ValueError, match="pass target="):
            draw(cohort, ax=plt.subplots()[1])
        with pytest.raises(KeyError, match="no target 'TP53'; it has EGFR, KRAS"):
            draw(cohort, target="TP53")


def test_figures_are_saved_as_vectors_and_drawn_on_own_axes(binary, survival, tmp_path):
    for cohort, draws in ((binary, CURVES), (survival[0], [pl.kaplan_meier])):
        for draw in draws:
            path = tmp_path / f"{draw.__name__}.svg"
            draw(cohort, save=path, title="Title")
            text = path.read_text()
            assert "<image" not in text, "curves are lines, not pixels"
            assert "<path" in text
            ax = plt.subplots()[1]
            assert draw(cohort, ax=ax, title="mine") is None
            assert ax.get_title() == "mine"


def test_curves_that_a_target_does_not_have_are_named(binary, survival):
    with pytest.raises(ValueError, match="it needs a target of survival"):
        pl.kaplan_meier(binary)
    with pytest.raises(ValueError, match="it needs a target of classes"):
        pl.roc(survival[0])
    with pytest.raises(ValueError, match="no confusion of os_days"):
        pl.confusion(survival[0], key="stp_slide_scores")
    with pytest.raises(KeyError, match=r"run stp\.tl\.score_slides\(cohort\) first"):
        pl.roc(binary, key="other")
    with pytest.raises(ValueError, match=r"uns\['stp_slides'\] has no scores of slides"):
        pl.roc(binary, key="stp_slides")
