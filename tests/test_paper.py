"""The paper's protocols for whole slides as one command, on a small cohort."""

import numpy as np
import pandas as pd
import pytest
from benchmarks.accuracy import paper, paper_tables
from tests.cohorts import write_cohort
from tests.features import katherlab_25, write_katherlab

FIT = "[fit]\nepochs = 3\nhidden = 8\nattention = 4\nlearning_rate = 0.01\n"
COLUMNS = """[columns]
mutations = ["EGFR"]
positive = "mutated"
label = "subtype"
time = "days"
event = "event"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort of 30 patients with two sets of features: one of the label, one of noise."""
    folder = tmp_path_factory.mktemp("paper")
    write_cohort(folder / "signal", n_patients=30)
    rng = np.random.default_rng(0)
    (folder / "noise").mkdir()
    slides = pd.read_csv(folder / "signal" / "slides.csv")
    for slide in slides["slide"]:
        features = rng.normal(size=(6, 8)).astype(np.float16)
        write_katherlab(folder / "noise" / f"{slide}.h5", features, **katherlab_25())
    number = slides["patient"].str[1:].astype(int)
    slides["subtype"] = number.mod(2).map({0: "a", 1: "b"}).where(number < 28)
    slides.loc[number % 3 == 2, "subtype"] = "c"
    slides.to_csv(folder / "slides.csv", index=False)
    return folder


def write_file(path, *features, fit=FIT, columns=COLUMNS):
    parts = [f"[features.{name}]\nroot = '{name}'\nuse_rep = 'X_features'\n" for name in features]
    path.write_text("\n".join(["slides = 'slides.csv'", columns, *parts, fit]))
    return path


def run(task, cohort, folder, *more):
    command = ["slides", "--task", task, "--cohort", str(cohort), "--folder", str(folder), *more]
    return paper.main(command)


def test_mutations_are_scored_next_to_a_paired_difference(folder, tmp_path, capsys):
    cohort = write_file(folder / "two.toml", "noise", "signal")
    table = run("mutations", cohort, tmp_path, "--resamples", "200").set_index("features")
    assert table.loc["signal", "value"] > 0.9
    assert table.loc["noise", "value"] < 0.8
    assert table["n_patients"].tolist() == [30, 30]
    assert table["n_positives"].tolist() == [15, 15]
    assert table.loc["signal", "low"] <= table.loc["signal", "value"] <= table.loc["signal", "high"]
    difference = table.loc["signal", "value"] - table.loc["noise", "value"]
    assert table.loc["signal", "difference"] == pytest.approx(difference)
    assert table.loc["signal", "p"] < 0.05
    assert np.isnan(table.loc["noise", "difference"])
    text = capsys.readouterr().out
    assert "| EGFR, signal, AUROC | AUROC | " in text and "30, 15 positive" in text
    assert "no number in the text" in text and "gated attention of widths 512 and 256" in text
    assert "changed by the cohort file: {'epochs': 3" in text


def test_folds_keep_patients_whole_and_are_the_same_for_all_features(folder, tmp_path):
    cohort = write_file(folder / "folds.toml", "noise", "signal")
    run("mutations", cohort, tmp_path, "--resamples", "10")
    folds = [
        pd.read_csv(tmp_path / "mutations" / "EGFR" / name / "folds.csv").query("side == 'test'")
        for name in ("noise", "signal")
    ]
    pd.testing.assert_frame_equal(folds[0], folds[1])
    assert folds[0]["fold"].nunique() == 5
    assert not folds[0]["patient"].duplicated().any()


@pytest.mark.parametrize("task", ["ubc", "nsclc", "panda"])
def test_classes_have_macro_auroc_and_accuracy(folder, tmp_path, capsys, task):
    cohort = write_file(folder / "one.toml", "signal")
    table = run(task, cohort, tmp_path, "--resamples", "10").set_index("score")
    assert table.index.tolist() == ["auroc", "accuracy"]
    assert set(table["n_patients"]) == {29}, "P28 has no subtype; P29 is c"
    text = capsys.readouterr().out
    for score in ("auroc", "accuracy"):
        assert all(value in text for value in paper_tables.PAPER[task, score].values())


def test_survival_is_scored_by_concordance(folder, tmp_path, capsys):
    cohort = write_file(folder / "survival.toml", "signal")
    table = run("survival", cohort, tmp_path, "--resamples", "10")
    assert table["score"].tolist() == ["harrell_c"]
    assert table["n_events"].tolist() == [14]
    assert 0 <= table["value"][0] <= 1
    assert "LUAD 0.6385, LUSC 0.6321" in capsys.readouterr().out


def test_a_second_call_reads_the_finished_runs(folder, tmp_path):
    cohort = write_file(folder / "again.toml", "signal")
    first = run("mutations", cohort, tmp_path, "--resamples", "10")
    model = tmp_path / "mutations" / "EGFR" / "signal" / "fold_4" / "model.safetensors"
    time = model.stat().st_mtime_ns
    pd.testing.assert_frame_equal(run("mutations", cohort, tmp_path, "--resamples", "10"), first)
    assert model.stat().st_mtime_ns == time


def test_settings_are_those_of_the_paper():
    from benchmarks.accuracy.paper_slides import CLASSES, SURVIVAL

    assert (CLASSES.learning_rate, CLASSES.epochs, CLASSES.patience) == (5e-4, 50, 5)
    assert (SURVIVAL.learning_rate, SURVIVAL.epochs) == (5e-5, 30)
    assert CLASSES.weight_decay == 0 and CLASSES.warmup_steps == 0, "AdamW is then Adam"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slides = 'slides.csv'\nfeature = 1", "has feature; known keys are slides"),
        ("slides = 'slides.csv'\n[features.A]\nroots = 'a'", r"has features.A.roots; known keys"),
        ("slides = 'slides.csv'\n[fit]\nepoch = 3", "has fit.epoch; known keys"),
        ("slides = 'slides.csv'\n[features.A]\nuse_rep = 'X'", "lacks columns.mutations, .*A.root"),
        ("slides = 'slides.csv'\nfit = 3", r"has fit = 3; write a table, such as \[fit\]"),
        ("slides = ", "is no TOML file"),
    ],
)
def test_a_cohort_file_that_cannot_be_used_is_an_error(tmp_path, text, message):
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        run("mutations", tmp_path / "wrong.toml", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_column_that_the_cohort_lacks_is_an_error(folder, tmp_path):
    columns = COLUMNS.replace("EGFR", "KRAS")
    cohort = write_file(folder / "lacks.toml", "signal", columns=columns)
    with pytest.raises(KeyError, match="the cohort has no column 'KRAS'"):
        run("mutations", cohort, tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no cohort file"):
        run("mutations", folder / "absent.toml", tmp_path)
