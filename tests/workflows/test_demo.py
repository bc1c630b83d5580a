"""The demo as a user starts it, and what makes it fail."""

import json

import pytest

from stp.workflows.demo import has_learned

GOOD = {"recall@5": 0.04, "chance@5": 0.01, "pcc": 0.3}


@pytest.mark.slow
def test_demo_trains_predicts_and_reports(demo):
    summary = json.loads((demo / "summary.json").read_text())
    held_out = summary["held_out"]
    untrained = summary["untrained"]
    assert held_out["recall@5"] >= 3 * held_out["chance@5"]
    assert held_out["pcc"] >= 2 * untrained["pcc"]
    assert held_out["ari_genes"] > 0.3
    assert summary["seconds"]["total"] > 0
    page = (demo / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    figures = {path.stem for path in demo.glob("*.png")}
    assert figures == {"domains", "patches", "expression", "pretrain", "align"}


@pytest.mark.parametrize(
    ("trained", "untrained", "expected"),
    [
        pytest.param(GOOD, {"pcc": 0.1}, True, id="good"),
        pytest.param(GOOD | {"recall@5": 0.029}, {"pcc": 0.1}, False, id="recall near chance"),
        pytest.param(GOOD, {"pcc": 0.16}, False, id="no better than untrained"),
        pytest.param(GOOD | {"pcc": -0.1}, {"pcc": -0.2}, False, id="negative"),
    ],
)
def test_demo_passes_only_when_training_helped(trained, untrained, expected):
    assert has_learned(trained, untrained) is expected
