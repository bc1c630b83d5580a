"""The report of scores: one page without a network, in which names are texts."""

import re

import numpy as np
from tests.predictions import binary_cohort, survival_cohort

from stp import tl
from stp.workflows.slide_config import read_study
from stp.workflows.slide_report import Figure, write_report
from stp.workflows.slide_report_tables import ScoredCohort

SCRIPT = "<script>alert('x')</script>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def scored(cohort, name, *, is_internal=True, far=0):
    """Return a cohort with scores, as `stp slides score` makes it."""
    import pandas as pd

    cohort.obs["n_tiles"] = 3
    left_out = pd.DataFrame({"reason": ["no tile"], "slide": [SCRIPT], "patient": ["P"]})
    features = {"model": None, "width": 8, "tile_um": None, "um_per_px": 0.5}
    cohort.uns["stp_cohort"] = {"features": features, "left_out": left_out}
    cohort.uns["stp_slides"]["checks"] = {
        "n_far_slides": far,
        "n_bags_out_of_range": 0,
        "unknown_labels": {},
        "are_patients_checked": True,
    }
    tl.score_slides(cohort, n_resamples=20)
    return ScoredCohort(name, cohort, is_internal, "runs/cv", "")


def write(tmp_path, cohorts, figures=()):
    (tmp_path / "c.toml").write_text('output_dir = "out"\n[cohort]\nslides = "s.csv"\n')
    study = read_study(tmp_path / "c.toml")
    write_report(tmp_path / "report.html", study, cohorts, list(figures))
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_names_are_texts_and_nothing_is_loaded(tmp_path):
    cohort = scored(binary_cohort()[0], SCRIPT)
    figures = [Figure(SCRIPT, "EGFR", "roc", "a.svg", SVG)]
    page = write(tmp_path, [cohort], figures)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "default-src 'none'" in page
    assert 'src="data:image/svg+xml;base64,' in page


def test_cohorts_stand_side_by_side_with_their_notes(tmp_path):
    internal = scored(binary_cohort()[0], "cross-validation")
    external = scored(
        binary_cohort(n_patients=30, seed=1, n_models=3)[0], "b", is_internal=False, far=5
    )
    page = write(tmp_path, [internal, external])
    row = re.search(r"<tr><td>AUROC <small>mutated</small></td>(.*?)</tr>", page)[1]
    values = re.findall(r"</span>(\d\.\d{3})", row)
    expected = [
        cohort.scores.set_index("score").loc["auroc", "value"] for cohort in (internal, external)
    ]
    np.testing.assert_allclose(np.array(values, float), expected, atol=5e-4)
    assert "5 of 60 slides are far from the training slides" in page
    assert "The tile_um of the tiles is not recorded" in page
    assert "of all folds together (cross-validation)" in page
    assert "<summary>Folds of cross-validation</summary>" in page
    assert "<summary>Folds of b</summary>" not in page


def test_a_cohort_without_scores_says_why(tmp_path):
    internal = scored(survival_cohort()[0], "cross-validation")
    other = scored(survival_cohort()[0], "b", is_internal=False)
    other = ScoredCohort("b", other.table, False, "runs/cv", "obs lacks days")
    page = write(tmp_path, [internal, other])
    assert "Not scored: obs lacks days" in page
    assert "concordance (Harrell)" in page and "hazard ratio" in page
