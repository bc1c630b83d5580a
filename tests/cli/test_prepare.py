"""`stp prepare`: manifests, folders with downloads, and what failed."""

import os

import pandas as pd
import pytest
from distributed import Client, LocalCluster
from tests.slides import HEST_FACTS, make_slide, write_hest, write_pyramid, write_space_ranger

import stp
from stp.cli.main import main
from stp.data.store import SpotStore


@pytest.fixture(scope="module")
def slide():
    return make_slide(0, 5, 5)


def run(*arguments):
    return main(["prepare", *map(str, arguments)])


def refuse(capsys, *arguments):
    """Run a command that ends with status 2, and return its message."""
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2
    return capsys.readouterr().err


def test_a_row_that_fails_is_listed_at_the_end(slide, tmp_path, capsys):
    adata, image = slide
    adata.write_h5ad(tmp_path / "a.h5ad")
    write_pyramid(tmp_path / "a.tif", image)
    (tmp_path / "m.csv").write_text(
        "name,path,image,um_per_px,patch_um_per_px\nfine,a.h5ad,a.tif,1,4\ncoarse,a.h5ad,a.tif,1,\n"
    )
    command = [tmp_path / "m.csv", "--out", tmp_path / "out", "--workers", 1]
    assert run(*command) == 1
    listed = capsys.readouterr().out
    assert listed.startswith("1 slide failed:\n  coarse: ValueError: the image has 1 µm per pixel")
    (tmp_path / "m.csv").write_text("name,path,um_per_px\nfine,a.h5ad,1\n")
    assert run(*command) == 0
    assert capsys.readouterr().out == ""


def test_a_report_is_made_again_only_if_a_store_a_row_or_the_report_changed(slide, tmp_path):
    slide[0].write_h5ad(tmp_path / "a.h5ad")
    no_counts = slide[0].copy()
    no_counts.X = no_counts.X * 0.5
    no_counts.write_h5ad(tmp_path / "c.h5ad")
    report = tmp_path / "out" / "report.html"

    def prepare(*rows):
        (tmp_path / "m.csv").write_text("\n".join(["name,path,um_per_px,organ", *rows]))
        if report.exists():
            os.utime(report, (0, 0))
        status = run(tmp_path / "m.csv", "--out", tmp_path / "out", "--workers", 1)
        return status, report.stat().st_mtime != 0

    rows = ["a,a.h5ad,1,breast", "b,a.h5ad,1,breast"]
    assert prepare(*rows) == (0, True)
    first = report.read_bytes()
    assert b"equal counts" in first
    assert prepare(*rows) == (0, False)
    assert report.read_bytes() == first
    assert prepare(*rows, "c,c.h5ad,1,") == (1, True)  # a row fails
    assert prepare(rows[0], "b,a.h5ad,1,liver") == (0, True)
    assert b"liver" in report.read_bytes()
    assert prepare(rows[0], "b,a.h5ad,2,liver") == (0, True)  # another store
    report.write_bytes(report.read_bytes()[:-100])  # a call that was killed
    assert prepare(rows[0], "b,a.h5ad,2,liver") == (0, True)
    report.unlink()
    assert prepare(rows[0], "b,a.h5ad,2,liver") == (0, True)
    assert prepare(rows[0], "b,a.h5ad,2,liver") == (0, False)


def test_if_all_rows_fail_table_and_report_say_so(slide, tmp_path, capsys):
    adata = slide[0].copy()
    adata.X = adata.X * 0.5  # no counts
    adata.write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "m.csv").write_text("name,path\na,a.h5ad\n")
    assert run(tmp_path / "m.csv", "--out", tmp_path / "out", "--workers", 1) == 1
    assert capsys.readouterr().out.startswith("1 slide failed:\n  a: ValueError")
    assert len(pd.read_parquet(tmp_path / "out" / "collection.parquet")) == 0
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Collection of 0 slides" in report
    assert "<b>1</b> failed" in report
    assert report.count("<h2>") == 1


def test_samples_of_hest_are_shown_and_prepared(slide, tmp_path, capsys):
    adata = slide[0].copy()
    adata.obsm["spatial"] = adata.obsm["spatial"] * 2
    image = slide[1].repeat(2, axis=0).repeat(2, axis=1)  # 0.5 µm per pixel
    write_hest(tmp_path / "hest", "TENX1", adata, image, HEST_FACTS)
    command = ["--hest", tmp_path / "hest", "--out", tmp_path / "out", "--workers", 1]
    assert run(*command, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "Study of 2024: Patient 1" in shown
    assert shown.splitlines()[-1].startswith("The manifest has no faults. This was a dry run")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.csv"]
    assert run(*command) == 0
    log = capsys.readouterr().err
    assert "out has 1 of 1 slide; 1 cannot be trained on, and the column 'problem'" in log
    table = pd.read_parquet(tmp_path / "out" / "collection.parquet")
    assert table[["name", "organ", "platform"]].values.tolist() == [["TENX1", "Breast", "Visium"]]
    assert table["problem"].tolist() == ["no spot on tissue detects 100 genes"]


def test_space_ranger_folders_are_prepared(slide, tmp_path, capsys):
    write_space_ranger(tmp_path / "visium" / "one" / "outs", *slide)
    assert run("--visium", tmp_path / "visium", "--out", tmp_path / "out", "--workers", 1) == 0
    assert str(tmp_path / "visium" / "one" / "outs") in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "out" / "collection.parquet")
    assert table["name"].tolist() == ["one"]
    assert table["digest"].tolist() == [SpotStore(tmp_path / "out" / "one.zarr").digest]


def test_a_scheduler_prepares_rows_with_a_vocabulary(slide, tmp_path):
    adata = slide[0].copy()
    adata.var_names = [f"ENSMUSG{number:011}" for number in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    stp.Vocabulary.from_genes(adata.var_names).save(tmp_path / "mouse.parquet")
    (tmp_path / "m.csv").write_text("name,path,species\na,a.h5ad,mouse\n")
    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address=None, protocol="tcp"
        ) as cluster,
        Client(cluster),
    ):
        options = ["--scheduler", cluster.scheduler_address, "--out", tmp_path / "out"]
        assert run(tmp_path / "m.csv", *options, "--vocabulary", tmp_path / "mouse.parquet") == 0
    assert SpotStore(tmp_path / "out" / "a.zarr").species == "mouse"


def test_all_faults_of_a_manifest_are_shown(tmp_path, capsys):
    (tmp_path / "m.csv").write_text("name,path,Patient\na,a.h5ad,\nb,b.h5ad,\n")
    for further in ([], ["--dry-run"]):
        message = refuse(capsys, tmp_path / "m.csv", "--out", tmp_path / "out", *further)
        assert "because of 3 faults" in message
        assert "did you mean 'patient'" in message
        assert "row 2 (b): there is no file or folder" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "there is no file nowhere.csv; give a manifest"),
        (["--hest", "nowhere"], "there is no folder nowhere"),
        (["."], "is a folder; give a manifest"),
        (["--visium", "."], "has no folders of Space Ranger"),
        ([__file__], "is no manifest; give a .csv, .tsv or .parquet file"),
        ([__file__, "--workers", "0"], "n_workers must be 1 or more"),
        ([__file__, "--scheduler", "tcp://x", "--workers", "2"], "leave out --scheduler"),
        ([__file__, "--vocabulary", "no.parquet"], "there is no file no.parquet"),
        ([], "is required"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in refuse(capsys, *arguments, "--out", tmp_path / "out")
