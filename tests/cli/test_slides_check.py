"""`stp slides check`: a line for everything that would fail, with the row and the remedy."""

import json
import re
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from tests.cohorts import STUDY, write_features, write_study
from tests.features import tiny_encoder, write_wsi

from stp.cli.main import main


@pytest.fixture
def file(tmp_path):
    return write_study(tmp_path, n_patients=12, n_tiles=4)


def check(capsys, file, *arguments):
    """Return the status of `stp slides check`, and what it finds."""
    status = main(["slides", "check", str(file), *map(str, arguments), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["is_ready"] == (status == 0)
    return status, report["findings"]


def edit(path, change):
    """Change a table of a file."""
    table = pd.read_csv(path, dtype=str)
    change(table).to_csv(path, index=False)


def add_paths(folder, name):
    """Write the path of each file into the slide table; `name` makes it from the slide."""
    text = (folder / "cohort.toml").read_text().replace('root = "features"\n', "")
    (folder / "cohort.toml").write_text(text)
    edit(
        folder / "slides.csv",
        lambda table: table.assign(
            path=[f"features/{slide}.h5" if slide != "P003_1" else name for slide in table["slide"]]
        ),
    )


def lacks_a_suffix(folder, monkeypatch):
    add_paths(folder, "features/P003_1")


def lacks_a_subfolder(folder, monkeypatch):
    (folder / "features" / "batch").mkdir()
    (folder / "features" / "P003_1.h5").rename(folder / "features" / "batch" / "P003_1.h5")
    add_paths(folder, "features/P003_1.h5")


def is_xlsx_without_openpyxl(folder, monkeypatch):
    pd.read_csv(folder / "clinical.csv").to_excel(folder / "clinical.xlsx", index=False)
    text = (folder / "cohort.toml").read_text().replace("clinical.csv", "clinical.xlsx")
    (folder / "cohort.toml").write_text(text)
    monkeypatch.setitem(sys.modules, "openpyxl", None)


def repeats_a_slide(folder, monkeypatch):
    row = pd.DataFrame({"patient": ["P005"], "slide": ["P003_1"]})
    edit(folder / "slides.csv", lambda table: pd.concat([table, row]))


def lacks_a_patient(folder, monkeypatch):
    edit(folder / "clinical.csv", lambda table: table[table["patient"] != "P006"])


def divides_a_hospital(folder, monkeypatch):
    edit(
        folder / "clinical.csv",
        lambda table: table.assign(
            site=table["site"].where(table["patient"] != "P006", "hospital 1")
        ),
    )
    text = (folder / "cohort.toml").read_text()
    text = text.replace("n_folds = 3", 'fold_key = "fold"\nsite_key = "site"')
    (folder / "cohort.toml").write_text(text)


def has_another_scale(folder, monkeypatch):
    features = np.random.default_rng(1).normal(size=(4, 8))
    write_features(folder / "features" / "P003_1.h5", features, tile_size_um=256.0)


def has_another_encoder(folder, monkeypatch):
    features = np.random.default_rng(1).normal(size=(4, 8))
    write_features(folder / "features" / "P003_1.h5", features, extractor="conch")


def has_nan(folder, monkeypatch):
    with h5py.File(folder / "features" / "P003_1.h5", "r+") as features:
        features["feats"][2, 3] = np.nan


def has_no_event(folder, monkeypatch):
    edit(folder / "clinical.csv", lambda table: table.assign(event=0))
    text = (folder / "cohort.toml").read_text()
    text = text.replace("[fit]", '[[target]]\nsurvival = ["days", "event"]\n[fit]')
    (folder / "cohort.toml").write_text(text)


def has_a_copy(folder, monkeypatch):
    data = (folder / "features" / "P003_0.h5").read_bytes()
    (folder / "features" / "P003_1.h5").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lacks_a_suffix,
            r"slides.csv, row \d+, P003_1: no feature file \(.*P003_1 does not exist, but "
            r"P003_1.h5 does\); .* correct the row, or remove it",
        ),
        (
            lacks_a_subfolder,
            r"slides.csv, row \d+, P003_1: .* does not exist, but batch/P003_1.h5 does\); "
            r".* correct "
            r"the row",
        ),
        (is_xlsx_without_openpyxl, r"openpyxl.*pip install 'stp-spatial\[excel\]'"),
        (
            repeats_a_slide,
            r"rows of the slides table contradict each other: P003_1 in the rows \d+, 16, in "
            r"patient; keep one of the rows",
        ),
        (
            lacks_a_patient,
            r"slides.csv, row \d+, P006_0: patient without clinical row \(.*P006.*\); add the "
            r"patient to the clinical table, or remove the row",
        ),
        (
            divides_a_hospital,
            r"patients of site 'hospital 1' are in 2 folds, most of them in fold 1: P006 in fold "
            r"0; move them there",
        ),
        (
            has_another_scale,
            r"tiles have several sizes: 112 um in .* and 12 more; 256 um in P003_1; extract "
            r"features of tiles of one size",
        ),
        (
            has_another_encoder,
            r"features are of several models: uni .* and 12 more; conch \(KatherLab h5, .*\) in "
            r"P003_1; extract the features of all slides with one encoder",
        ),
        (
            has_nan,
            r"slides.csv, row \d+, P003_1: .*P003_1.h5 has features that are NaN or infinite, in "
            r"row 2; extract its features again",
        ),
        (
            has_no_event,
            r"obs\['event'\] has 0 events in training patients; 4 intervals need as many",
        ),
        (
            has_a_copy,
            r"slides.csv, row \d+, P003_\d: it has the same features as P003_\d; leave out one",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_cohort_has_one_line(file, damage, message, monkeypatch, capsys):
    damage(file.parent, monkeypatch)
    status, findings = check(capsys, file)
    faults = [finding["text"] for finding in findings if finding["kind"] == "fault"]
    assert status == 1
    assert len(faults) == 1, faults
    assert re.search(message, faults[0]), faults[0]
    assert "\n" not in faults[0]


def test_patients_without_a_label_are_noted(file, capsys):
    edit(
        file.parent / "clinical.csv",
        lambda table: table.assign(EGFR=table["EGFR"].where(table["patient"] != "P006")),
    )
    status, findings = check(capsys, file)
    assert status == 0
    assert findings[0]["text"].startswith("1 patient without a label in EGFR train nothing: P006")


def test_all_faults_are_listed_at_once(file, capsys):
    has_nan(file.parent, None)
    lacks_a_patient(file.parent, None)
    edit(file.parent / "slides.csv", lambda table: table.replace("P008_0", "P8_0"))
    text = file.read_text().replace('classes = "EGFR"', 'classes = "EGRF"')
    file.write_text(text)
    assert main(["slides", "check", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 faults"
    assert any("P8_0: no feature file ('P8_0' is like 'P008_0')" in line for line in lines)
    assert any("no column obs['EGRF']; did you mean 'EGFR'?" in line for line in lines)
    assert all(line.startswith("no  ") for line in lines[:-1])


def test_rows_that_may_be_dropped_are_notes(file, capsys):
    lacks_a_patient(file.parent, None)
    file.write_text(file.read_text().replace("[[target]]", 'missing = "drop"\n[[target]]'))
    status, findings = check(capsys, file)
    assert status == 0
    assert findings[0]["kind"] == "note" and findings[0]["text"].endswith("; it is left out")


def test_faults_of_the_file_are_listed(file, capsys):
    text = file.read_text().replace("epochs", "epoch").replace("n_folds = 3", "n_folds = '3'")
    file.write_text(text)
    status, findings = check(capsys, file)
    assert status == 1
    assert findings[0]["text"] == "[fit] has no key 'epoch' (did you mean 'epochs'?)"


def test_a_cohort_that_fits_is_ready(file, capsys):
    assert main(["slides", "check", str(file)]) == 0
    assert capsys.readouterr().out == "everything fits\n"


def test_slides_that_are_still_to_be_tiled_are_not_missing(tmp_path, capsys):
    text = STUDY.replace('root = "features"', "").replace(
        "[cohort]", '[slides]\nwsi = ["wsi/*.tif"]\nmodel = "encoder"\ntile_um = 112\n[cohort]'
    )
    file = write_study(tmp_path, text, n_patients=12, n_tiles=4)
    (tmp_path / "wsi").mkdir()
    slides = pd.read_csv(tmp_path / "slides.csv")["slide"]
    for slide in slides[1:]:
        write_wsi(tmp_path / "wsi" / f"{slide}.tif", side=64)
    status, findings = check(capsys, file)
    texts = [finding["text"] for finding in findings]
    assert status == 1 and len(texts) == 2
    assert texts[0].startswith("[slides] model = 'encoder' is no folder of a model")
    assert texts[1].startswith(f"slides.csv, row 1, {slides[0]}: no feature file")
    tiny_encoder().save_pretrained(tmp_path / "encoder")
    write_wsi(tmp_path / "wsi" / f"{slides[0]}.tif", side=64)
    assert check(capsys, file) == (0, [])
