"""`stp slides explain`: genes of tiles are predicted, models explained, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata.models import TableModel
from tests.cohorts import write_study
from tests.explained import GENES, draw_slide, make_spots, write_slide
from tests.features import write_wsi

from stp import io, tl
from stp.cli.main import main
from stp.workflows.mcp_paths import OutsideError
from stp.workflows.mcp_tools import Tools

STUDY = """
output_dir = "out"
[cohort]
slides = "slides.csv"
root = "tiles"
use_rep = "X_stp_images_aligned"
[[target]]
classes = "label"
positive = "high"
[fit]
validation_share = 0.5
epochs = 15
hidden = 8
attention = 4
learning_rate = 5e-2
device = "cpu"
[cross_validation]
n_folds = 2
"""
REFERENCE = """
[genes]
reference = "spots/*.zarr"
gene_sets = "programs.csv"
n_neighbors = 10
n_permutations = 100
seed = 0
"""
EXPRESSION = '[genes]\nexpression_key = "measured"\nn_permutations = 100\n'
SLIDES = [f"P{number:02d}" for number in range(8)]


def run(step, file, *arguments):
    return main(["slides", step, str(file), *map(str, arguments)])


def refuse(capsys, step, file, *arguments):
    """Run a step that ends with status 2, and return its message."""
    with pytest.raises(SystemExit) as error:
        run(step, file, *arguments)
    assert error.value.code == 2
    return capsys.readouterr().err


def check(capsys, file, *arguments):
    """Return the status of `stp slides check`, and the texts about genes."""
    capsys.readouterr()
    status = run("check", file, "--json", *arguments)
    findings = json.loads(capsys.readouterr().out)["findings"]
    return status, [finding["text"] for finding in findings if finding["part"] == "genes"]


def read_table(file, slide):
    return spatialdata.read_zarr(file.parent / "tiles" / f"{slide}.zarr").tables["table"]


def write_spots(path, **options):
    tables = {"table": TableModel.parse(make_spots(**options))}
    spatialdata.SpatialData(tables=tables).write(path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Predict a cohort whose tiles have aligned vectors, and genes under another name."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "tiles").mkdir()
    for number, slide in enumerate(SLIDES):
        table = draw_slide(number, shift=1.0 if number % 2 else -1.0)
        table.obsm["X_stp_images"] = table.obsm["X_stp_images_aligned"]
        table.obsm["measured"] = table.obsm.pop("stp_expression")
        table.obs["measured_far"] = table.obs.pop("stp_expression_far")
        table.uns["measured"] = table.uns.pop("stp_expression")
        write_slide(folder / "tiles" / f"{slide}.zarr", table)
    labels = ["high" if number % 2 else "low" for number in range(len(SLIDES))]
    rows = pd.DataFrame({"patient": SLIDES, "slide": SLIDES, "label": labels})
    rows.to_csv(folder / "slides.csv", index=False)
    write_spots(folder / "spots" / "a.zarr", n_slides=2)
    sets = [("planted", gene) for gene in GENES[:3]] + [("others", gene) for gene in GENES[3:]]
    table = pd.DataFrame([*sets, ("others", "UNMEASURED")], columns=["set", "gene"])
    table.to_csv(folder / "programs.csv", index=False)
    (folder / "cohort.toml").write_text(STUDY)
    assert run("cross-validate", folder / "cohort.toml") == 0
    assert run("predict", folder / "cohort.toml") == 0
    return folder / "cohort.toml"


@pytest.fixture(scope="module")
def explained(saved, tmp_path_factory):
    """Explain a copy of the cohort by gene sets, predicted from measured spots."""
    file = copy(saved, tmp_path_factory.mktemp("explained"))
    file.write_text(STUDY + REFERENCE)
    for step in ("predict", "check", "explain"):
        assert run(step, file) == 0
    return file


@pytest.fixture
def file(saved, tmp_path):
    """The file of a cohort that a test may change."""
    return copy(saved, tmp_path)


def copy(saved, folder):
    shutil.copytree(saved.parent, folder, dirs_exist_ok=True, copy_function=shutil.copy2)
    file = folder / "cohort.toml"
    predictions = folder / "out" / "predictions" / "cross-validation"
    cohort = anndata.read_h5ad(predictions.with_suffix(".h5ad"))
    cohort.obs["path"] = [str(folder / "tiles" / f"{slide}.zarr") for slide in cohort.obs["slide"]]
    cohort.write_h5ad(predictions.with_suffix(".h5ad"))
    record = json.loads(predictions.with_suffix(".json").read_text())
    record["models"] = str(folder / "out" / "cross_validation")
    predictions.with_suffix(".json").write_text(json.dumps(record))
    return file


def test_genes_of_tiles_are_those_of_predict_expression(explained):
    spots = explained.parent / "spots" / "a.zarr"
    for slide in SLIDES[:2]:
        table = read_table(explained, slide)
        expected = table.copy()
        tl.predict_expression(expected, spots, genes=GENES, n_neighbors=10, key_added="expected")
        np.testing.assert_array_equal(table.obsm["stp_expression"], expected.obsm["expected"])
        assert list(table.uns["stp_expression"]["genes"]) == GENES
        assert (table.obs["stp_expression_far"] == expected.obs["expected_far"]).all()


def test_results_are_those_of_explain_slides(explained):
    folder = explained.parent / "out" / "genes" / "cross-validation"
    cohort = io.read_cohort(
        explained.parent / "slides.csv",
        root=explained.parent / "tiles",
        use_rep="X_stp_images_aligned",
    )
    tl.explain_slides(
        cohort,
        explained.parent / "out" / "cross_validation",
        gene_sets=io.read_gene_sets(explained.parent / "programs.csv"),
        n_permutations=100,
    )
    entry = cohort.uns["stp_slide_genes"]
    table = pd.read_csv(folder / "genes.csv")
    pd.testing.assert_frame_equal(
        table, entry["genes"].reset_index(drop=True), check_dtype=False, rtol=1e-6
    )
    assert table["gene"].iloc[0] == "planted" and table["effect"].iloc[0] > 0.5
    slides = pd.read_csv(folder / "slides.csv").set_index("slide")
    assert list(slides.index) == SLIDES and slides["is_used"].all()
    np.testing.assert_allclose(slides["share_far"], entry["slides"]["share_far"], rtol=1e-6)
    record = json.loads((folder / "genes.json").read_text())
    assert record["share_far"] == pytest.approx(entry["share_far"])
    assert record["predictions"][0]["p"] == pytest.approx(entry["predictions"]["p"].iloc[0])
    assert record["n_slides"] == record["n_slides_used"] == 8
    assert "<svg" in (folder / "genes.svg").read_text()
    assert {path.name for path in folder.iterdir()} == {
        "genes.csv",
        "genes.json",
        "genes.svg",
        "slides.csv",
    }


def test_what_is_finished_is_skipped(explained, capsys):
    before = {path: path.stat().st_mtime_ns for path in explained.parent.rglob("*")}
    assert run("explain", explained) == 0
    log = capsys.readouterr().err
    assert "genes of 0 slides are predicted from 1 reference, 8 finished and skipped" in log
    assert "explain cross-validation:" in log and "is finished and skipped" in log
    assert {path: path.stat().st_mtime_ns for path in explained.parent.rglob("*")} == before


def test_new_genes_of_tiles_are_no_new_features(explained, capsys):
    assert run("predict", explained) == 0
    assert "is finished and skipped" in capsys.readouterr().err


def test_other_features_than_those_of_the_predictions_are_refused(file, capsys):
    file.write_text(STUDY + EXPRESSION)
    sdata = spatialdata.read_zarr(file.parent / "tiles" / "P03.zarr")
    sdata.tables["table"].obsm["X_stp_images_aligned"] *= 2
    io.write_results(sdata, keys=["X_stp_images_aligned"])
    error = refuse(capsys, "explain", file)
    assert "not those of the predictions 'cross-validation'; run `stp slides predict` ag" in error


def test_genes_that_tiles_have_are_used_without_a_reference(file, capsys):
    file.write_text(STUDY + EXPRESSION)
    assert check(capsys, file) == (0, [])
    assert run("explain", file) == 0
    table = pd.read_csv(file.parent / "out" / "genes" / "cross-validation" / "genes.csv")
    assert set(table["gene"]) == set(GENES)
    assert set(table["gene"][:3]) == set(GENES[:3])
    assert "stp_expression" not in read_table(file, "P00").obsm


def test_a_failed_slide_leaves_whole_files_and_only_what_differs_is_computed(
    explained, tmp_path, capsys
):
    file = copy(explained, tmp_path)
    folder = tmp_path / "out" / "genes" / "cross-validation"
    before = {path: path.read_text() for path in folder.iterdir()}
    file.write_text(STUDY + REFERENCE.replace("n_neighbors = 10", "n_neighbors = 11"))
    path = tmp_path / "tiles" / "P02.zarr" / "tables" / "table" / "uns" / "X_stp_images"
    shutil.move(path, tmp_path / "record")
    error = refuse(capsys, "explain", file)
    assert "slide 'P02': the model that made obsm['X_stp_images_al" in error
    sizes = [read_table(file, slide).obsm["stp_expression_neighbors"].shape[1] for slide in SLIDES]
    assert sizes == [11, 11, 10, 10, 10, 10, 10, 10]
    assert {path: path.read_text() for path in folder.iterdir()} == before
    shutil.move(tmp_path / "record", path)
    file.write_text(STUDY + REFERENCE.replace("seed = 0", "seed = 1"))
    assert run("explain", file) == 0
    log = capsys.readouterr().err
    assert "2 slides are predicted from 1 reference, 6 finished" in log and "into" in log
    assert (folder / "genes.csv").read_text() != before[folder / "genes.csv"]
    assert (folder / "slides.csv").read_text() == before[folder / "slides.csv"]


@pytest.mark.extended
def test_a_killed_prediction_is_continued(file, explained, capsys):
    file.write_text(STUDY + REFERENCE)
    command = [sys.executable, "-c", "from stp.cli.main import main; raise SystemExit(main())"]
    process = subprocess.Popen([*command, "slides", "explain", str(file)])
    deadline = time.monotonic() + 120
    expression = file.parent / "tiles" / "P02.zarr" / "tables" / "table" / "obsm" / "stp_expression"
    while not expression.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run("explain", file) == 0
    for slide in SLIDES:
        np.testing.assert_array_equal(
            read_table(file, slide).obsm["stp_expression"],
            read_table(explained, slide).obsm["stp_expression"],
        )
    genes = [
        one.parent / "out" / "genes" / "cross-validation" / "genes.csv" for one in (file, explained)
    ]
    assert genes[0].read_text() == genes[1].read_text()


def no_genes(folder):
    return STUDY, "8 slides have no obsm['stp_expression']: P00, P01"


def no_reference(folder):
    return STUDY + '[genes]\nreference = "no/*.zarr"\n', "[genes] reference: nothing matches 'no/*"


def no_store(folder):
    (folder / "empty").mkdir()
    return (
        STUDY + '[genes]\nreference = "empty"\n',
        "is not a SpatialData store with a table 'table'",
    )


def other_model(folder):
    sdata = spatialdata.read_zarr(folder / "spots" / "a.zarr")
    sdata.tables["table"].uns["X_stp_genes"]["model"]["digest"] = "6" * 64
    io.write_results(sdata, keys=["X_stp_genes"])
    return STUDY + REFERENCE, "embeddings of different models do not mix"


def other_genes(folder):
    (folder / "programs.csv").write_text("set,gene\nmouse,Erbb2\n")
    return STUDY + REFERENCE, "no gene of 'programs.csv' is measured in all references, e.g. Erbb2"


def genes_of_others(folder):
    text = STUDY + REFERENCE + 'expression_key = "measured"\n'
    return text, "8 slides have an obsm['measured'] that this step did not make: P00"


def no_sets(folder):
    (folder / "programs.csv").unlink()
    return STUDY + REFERENCE, "programs.csv"


def other_target(folder):
    return STUDY + EXPRESSION + 'target = "age"\n', "age"


@pytest.mark.parametrize(
    "damage",
    [
        no_genes,
        no_reference,
        no_store,
        other_model,
        other_genes,
        genes_of_others,
        no_sets,
        other_target,
    ],
)
def test_what_cannot_be_explained_is_refused_and_found_by_check(damage, file, capsys):
    text, message = damage(file.parent)
    file.write_text(text)
    assert message in refuse(capsys, "explain", file)
    if damage is no_genes:
        file.write_text(text + "[genes]\nseed = 0\n")
    status, texts = check(capsys, file)
    assert status == 1 and len(texts) == 1 and message in texts[0]


def test_features_without_aligned_vectors_predict_no_genes(file, capsys):
    table = draw_slide(0)
    table.obsm["X_stp_images"] = table.obsm.pop("X_stp_images_aligned")
    write_slide(file.parent / "tiles" / "P00.zarr", table)
    file.write_text(STUDY.replace("X_stp_images_aligned", "X_stp_images") + REFERENCE)
    message = "1 slide have no aligned vectors obsm['X_stp_images_aligned']: P00"
    status, texts = check(capsys, file)
    assert status == 1 and message in texts[0]
    assert run("predict", file, "--models", file.parent / "out", "--name", "again") == 0
    assert message in refuse(capsys, "explain", file, "--name", "again")


def test_feature_files_and_transformers_are_found_by_check(tmp_path, capsys):
    file = write_study(tmp_path, n_patients=12, n_tiles=4)
    text = file.read_text().replace("hidden = 16", 'hidden = 16\npooling = "transformer"')
    file.write_text(text + "[genes]\n")
    status, texts = check(capsys, file)
    assert status == 1 and len(texts) == 2
    assert 'pooling = "transformer" in [fit] gives no contributions of tiles' in texts[0]
    assert "15 slides are feature files, which have no predicted genes" in texts[1]


def test_an_encoder_that_aligns_nothing_is_found_before_tiling(file, capsys):
    slides = '[slides]\nwsi = ["wsi/*.tif"]\nmodel = "Midnight-12k"\ntile_um = 112\n[cohort]'
    text = STUDY.replace('root = "tiles"\n', "").replace("[cohort]", slides)
    file.write_text(text + REFERENCE)
    (file.parent / "wsi").mkdir()
    for slide in SLIDES:
        write_wsi(file.parent / "wsi" / f"{slide}.tif", side=64)
    status, texts = check(capsys, file)
    assert status == 1
    assert texts[0].startswith("[slides] model = 'Midnight-12k' makes no aligned vectors")


def test_a_cohort_of_few_patients_is_found_by_check(file, capsys):
    pd.read_csv(file.parent / "slides.csv")[:5].to_csv(file.parent / "slides.csv", index=False)
    file.write_text(STUDY + EXPRESSION)
    _, texts = check(capsys, file)
    assert texts == [
        "5 patients have a slide with 20 tiles, and an explanation needs 6; add patients, or "
        "leave out [genes]"
    ]


def test_predictions_come_first(tmp_path, file, capsys):
    assert "there are no predictions 'x'" in refuse(capsys, "explain", file, "--name", "x")
    file.write_text(STUDY + EXPRESSION)
    shutil.rmtree(file.parent / "out" / "predictions")
    assert "run `stp slides predict cohort.toml` first" in refuse(capsys, "explain", file)


def test_an_agent_explains_predictions(file):
    file.write_text(STUDY + EXPRESSION)
    result = Tools(file.parent).explain(file="cohort.toml")
    assert result["genes"] == "out/genes/cross-validation/genes.csv"
    for name in ("genes", "slides", "figure"):
        assert (file.parent / result[name]).is_file()
    assert result["n_slides_used"] == 8


def test_an_agent_writes_into_no_store_that_leads_outside(file, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    scratch = file.parent / "tiles" / ".P03.zarr.results"
    scratch.mkdir()
    journal = {"table": str(outside), "new": [["obsm", "X"]]}
    (scratch / "journal.json").write_text(json.dumps(journal))
    file.write_text(STUDY + REFERENCE)
    with pytest.raises(OutsideError, match="is no name"):
        Tools(file.parent).explain(file="cohort.toml")
    shutil.rmtree(scratch)
    shutil.move(file.parent / "spots" / "a.zarr" / "tables", outside / "tables")
    (file.parent / "spots" / "a.zarr" / "tables").symlink_to(outside / "tables")
    with pytest.raises(OutsideError, match="leads outside"):
        Tools(file.parent).explain(file="cohort.toml")
