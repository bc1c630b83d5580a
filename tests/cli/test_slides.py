"""`stp slides`: each step of a study, and what it leaves."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from tests.cohorts import STUDY, write_slides, write_study
from tests.features import tiny_encoder, write_wsi

from stp.cli.main import main

FAST = STUDY.replace("epochs = 6", "epochs = 2").replace("n_folds = 3", "n_folds = 2")
STEPS = ("cross-validate", "predict", "score")


def run(step, *arguments):
    return main(["slides", step, *map(str, arguments)])


def refuse(capsys, step, *arguments):
    """Run a step that ends with status 2, and return its message."""
    with pytest.raises(SystemExit) as error:
        run(step, *arguments)
    assert error.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Run all steps, and predict the patients of another hospital."""
    folder = tmp_path_factory.mktemp("study")
    file = write_study(folder, FAST, n_patients=24, n_tiles=4)
    table = write_slides(folder / "other", n_patients=20, n_tiles=4, prefix="Q", seed=1)
    table[table["EGFR"] == "mutated"].to_csv(folder / "=b.csv", index=False)
    table[["patient", "slide"]].to_csv(folder / "unlabeled.csv", index=False)
    assert run("cross-validate", file) == 0
    assert run("predict", file) == 0
    others = ["--root", folder / "other", "--models", folder / "out"]
    assert run("predict", file, "--clinical", folder / "=b.csv", *others) == 0
    assert run("predict", file, "--slides", folder / "unlabeled.csv", *others) == 0
    assert run("score", file) == 0
    return file


def test_each_patient_is_predicted_by_the_model_that_never_saw_it(study):
    cohort = anndata.read_h5ad(study.parent / "out" / "predictions" / "cross-validation.h5ad")
    assert (cohort.obs["stp_slides_models"] == 1).all()
    folds = pd.read_csv(study.parent / "out" / "cross_validation" / "folds.csv")
    tested = folds[folds["side"] == "test"].set_index("patient")["fold"]
    assert (cohort.obs["stp_fold"] == cohort.obs["patient"].astype(str).map(tested)).all()
    table = pd.read_csv(study.parent / "out" / "predictions" / "cross-validation.csv")
    assert list(table["patient"]) == list(cohort.obs["patient"].astype(str).unique())


def test_another_cohort_has_the_classes_of_the_models(study):
    cohort = anndata.read_h5ad(study.parent / "out" / "predictions" / "=b.h5ad")
    assert set(cohort.obs["EGFR"]) == {"mutated"}  # a class is missing here
    assert list(cohort.uns["stp_slides"]["outputs"]) == ["EGFR_mutated", "EGFR_wild type"]
    assert (cohort.obs["stp_slides_models"] == 2).all()


def test_scores_stand_side_by_side(study):
    folder = study.parent / "out" / "scores"
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # A spreadsheet would run the name of the other cohort as a formula.
    assert {row["cohort"] for row in rows} == {"cross-validation", "'=b"}
    scores = json.loads((folder / "scores.json").read_text())
    internal, other, unlabeled = scores["cohorts"]
    assert (internal["name"], other["name"]) == ("cross-validation", "=b")
    assert unlabeled["name"] == "unlabeled" and "no labels to score" in unlabeled["not_scored"]
    auroc = {score["score"]: score for score in internal["scores"]}["auroc"]
    assert float(rows[0]["value"]) == pytest.approx(auroc["value"])
    assert auroc["n_patients"] == 24
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert "cross_validation-EGFR-roc.svg" in figures and "b-EGFR-confusion.svg" in figures
    assert "b-EGFR-roc.svg" not in figures  # a class is missing


def test_finished_steps_are_skipped(study, capsys):
    before = {path: path.stat().st_mtime_ns for path in study.parent.rglob("*") if path.is_file()}
    for step in STEPS:
        assert run(step, study) == 0
    log = capsys.readouterr().err
    assert "2 of 2 folds are finished and skipped" in log
    assert "predict cross-validation: 24 patients by 2 models" in log
    assert log.count("is finished and skipped") == 2
    for name in ("scores/report.html", "scores/scores.csv", "predictions/cross-validation.h5ad"):
        path = study.parent / "out" / name
        assert path.stat().st_mtime_ns == before[path]


def test_other_settings_of_scores_are_computed(study, capsys):
    text = study.read_text()
    study.write_text(text.replace("n_resamples = 100", "n_resamples = 50"))
    assert run("score", study, "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"]
    study.write_text(text)


def test_a_study_of_another_hospital_shows_the_scores_of_the_models(study, tmp_path):
    text = 'output_dir = "b"\n[cohort]\nslides = "slides.csv"\nroot = "features"\n'
    (tmp_path / "b.toml").write_text(text + "[scores]\nn_resamples = 50\n")
    table = write_slides(tmp_path / "features", n_patients=12, n_tiles=4, prefix="R", seed=2)
    table.to_csv(tmp_path / "slides.csv", index=False)
    assert run("check", tmp_path / "b.toml", "--models", study.parent / "out") == 0
    assert run("predict", tmp_path / "b.toml", "--models", study.parent / "out") == 0
    assert run("score", tmp_path / "b.toml") == 0
    scores = json.loads((tmp_path / "b" / "scores" / "scores.json").read_text())
    assert [cohort["name"] for cohort in scores["cohorts"]] == ["cross-validation of out", "b"]


def test_other_features_and_known_patients_are_refused(study, tmp_path, capsys):
    models = ["--models", study.parent / "out" / "cross_validation" / "fold_0"]
    known = ["--clinical", study.parent / "clinical.csv"]
    assert run("check", study, *known, *models) == 1
    assert "12 patients trained or validated every model" in capsys.readouterr().out
    assert "12 patients trained or validated every model" in refuse(
        capsys, "predict", study, *known, *models
    )
    table = write_slides(tmp_path / "features", n_patients=4, n_tiles=4, width=6, prefix="R")
    table.to_csv(tmp_path / "r.csv", index=False)
    other = ["--clinical", tmp_path / "r.csv", "--root", tmp_path / "features"]
    assert run("check", study, *other, *models) == 1
    assert "make the features of the cohort with the same model" in capsys.readouterr().out


def test_a_clinical_table_chooses_slides_of_its_patients(study, tmp_path):
    patients = pd.read_csv(study.parent / "clinical.csv").iloc[[1, 4]]
    patients.to_csv(tmp_path / "two.csv", index=False)
    assert run("predict", study, "--clinical", tmp_path / "two.csv", "--name", "two") == 0
    file = study.parent / "out" / "predictions" / "two.h5ad"
    assert set(anndata.read_h5ad(file).obs["patient"]) == set(patients["patient"])
    for path in file.parent.glob("two.*"):
        path.unlink()


def test_a_model_of_all_patients_is_fitted(tmp_path, capsys):
    file = write_study(tmp_path, FAST, n_patients=12, n_tiles=4)
    assert run("fit", file) == 0
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    error = refuse(capsys, "predict", file)
    assert "run `stp slides cross-validate cohort.toml` first" in error
    assert "12 patients trained or validated every model" in refuse(
        capsys, "predict", file, "--models", tmp_path / "out"
    )
    assert "run `stp slides predict cohort.toml` first" in refuse(capsys, "score", file)


def test_maps_are_those_of_the_predictions(study, capsys):
    slides = ["P003_0", "P003_1"]
    assert run("draw", study, "--slide", slides[0], "--slide", slides[1]) == 0
    folder = study.parent / "out" / "maps" / "cross-validation"
    for slide in slides:
        assert (folder / f"{slide}.png").stat().st_size > 5000
        assert "no GeoJSON" in (folder / f"{slide}.json").read_text()  # of files without pixels
    assert run("draw", study, "--slide", slides[0]) == 0
    assert "0 drawn, 1 skipped" in capsys.readouterr().err
    assert run("draw", study, "--slide", slides[0], "--um-per-px", 0.5) == 0
    features = json.loads((folder / f"{slides[0]}.geojson").read_text())["features"]
    assert len(features) == 4 and "measurements" in features[0]["properties"]
    error = refuse(capsys, "draw", study, "--name", "=b")
    assert "2 models predicted slide" in error and "give --models the folder of one" in error
    assert "have no slide P9" in refuse(capsys, "draw", study, "--slide", "P9")
    fold = study.parent / "out" / "cross_validation" / "fold_0"
    assert run("draw", study, "--name", "=b", "--models", fold) == 1
    assert "features or model have changed" in capsys.readouterr().out


def test_slides_are_tiled_embedded_and_learned(tmp_path):
    text = FAST.replace('root = "features"', "").replace(
        "[cohort]", '[slides]\nwsi = ["wsi/*.tif"]\nmodel = "encoder"\ntile_um = 112\n[cohort]'
    )
    text = text.replace("n_folds = 3", "n_folds = 2")
    file = write_study(tmp_path, text, n_patients=8, n_tiles=4)
    slides = pd.read_csv(tmp_path / "slides.csv")["slide"]
    (tmp_path / "wsi").mkdir()
    for number, slide in enumerate(slides):
        write_wsi(tmp_path / "wsi" / f"{slide}.tif", seed=number)
    tiny_encoder().save_pretrained(tmp_path / "encoder")
    assert run("check", file) == 0
    assert run("tile", file) == 0
    assert run("check", file) == 0
    for step in STEPS:
        assert run(step, file) == 0
    assert run("draw", file, "--slide", slides[0]) == 0
    folder = tmp_path / "out" / "maps" / "cross-validation"
    for name in (f"{slides[0]}.png", f"{slides[0]}-tiles.png", f"{slides[0]}.geojson"):
        assert (folder / name).is_file()
    (tmp_path / "wsi" / "broken.tif").write_text("no slide")
    assert run("tile", file) == 1


@pytest.mark.extended
def test_a_killed_cross_validation_continues_to_the_same_weights(tmp_path):
    text = STUDY.replace("n_folds = 3", "n_folds = 2")
    file = write_study(tmp_path, text, n_patients=16, n_tiles=4)
    command = [sys.executable, "-c", "from stp.cli.main import main; raise SystemExit(main())"]
    command += ["slides", "cross-validate", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    out = tmp_path / "out" / "cross_validation"
    deadline = time.monotonic() + 120
    while not (out / "fold_1" / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "models.json").exists()
    assert run("cross-validate", file) == 0
    whole = write_study(tmp_path / "whole", text, n_patients=16, n_tiles=4)
    assert run("cross-validate", whole) == 0
    for fold in ("fold_0", "fold_1"):
        weights = out / fold / "model.safetensors"
        expected = whole.parent / "out" / "cross_validation" / fold / "model.safetensors"
        for name, values in load_file(expected).items():
            np.testing.assert_array_equal(load_file(weights)[name], values)
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert names == {path.name for path in (whole.parent / "out").rglob("*")}
    assert not any(name.startswith(".stp_scratch") for name in names)


def test_init_writes_a_file_that_is_never_replaced(tmp_path, capsys):
    assert run("init", tmp_path / "new.toml") == 0
    assert "stp slides check" in capsys.readouterr().out
    assert run("show", tmp_path / "new.toml") == 0
    assert f'slides = "{tmp_path / "slides.csv"}"' in capsys.readouterr().out
    assert "exists; give the path of a new file" in refuse(capsys, "init", tmp_path / "new.toml")


def test_a_wrong_path_is_one_line(tmp_path, capsys):
    assert "there is no file" in refuse(capsys, "fit", tmp_path / "no.toml")
    (tmp_path / "a.toml").write_text("output_dir = 'x'\n[cohort]\nslides = 'no.csv'\n")
    models = ["--models", tmp_path]
    assert "there is no table at" in refuse(capsys, "predict", tmp_path / "a.toml", *models)
    assert "has no finished cross-validation" in refuse(capsys, "predict", tmp_path / "a.toml")
    assert "there is nothing to tile" in refuse(capsys, "tile", tmp_path / "a.toml")
    assert "there is nothing to learn" in refuse(capsys, "fit", tmp_path / "a.toml")
