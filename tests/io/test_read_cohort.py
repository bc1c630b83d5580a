"""Cohorts from tables as people have them, and from feature files on disk."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.features import (
    CORNERS,
    example_features,
    katherlab_25,
    write_katherlab,
    write_lazyslide,
    write_trident,
)

import stp
from stp.data.bag_file import BagFile
from stp.tables.cohort import bag_sources, features_record, patient_labels

SLIDES = {"a": "P1", "b": "P2", "c": "P1", "d": "P3"}  # the rows of P1 are apart
N_TILES = {"a": 2, "b": 3, "c": 4, "d": 5}


@pytest.fixture
def root(tmp_path) -> Path:
    """Write a feature file for each slide, in subfolders."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "features"
    for slide, patient in SLIDES.items():
        features = rng.normal(size=(N_TILES[slide], 8)).astype(np.float16)
        write_katherlab(folder / patient / f"{slide}.h5", features, **katherlab_25())
    return folder


@pytest.fixture
def slides() -> pd.DataFrame:
    return pd.DataFrame({"patient": SLIDES.values(), "slide": SLIDES.keys()})


@pytest.fixture
def clinical() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient": ["P3", "P1", "P2"],
            "EGFR": ["mutated", None, "wild type"],
            "days": [10, 400, 35],
        }
    )


def faults(*arguments, **options) -> str:
    """Return the message of the error that lists what does not match."""
    with pytest.raises(ValueError, match="the cohort does not match:\n") as error:
        stp.io.read_cohort(*arguments, **options)
    return str(error.value)


def test_a_cohort_has_a_row_per_slide_with_the_columns_of_its_patient(root, slides, clinical):
    cohort = stp.io.read_cohort(slides, clinical=clinical, root=root)
    assert cohort.shape == (4, 0)
    assert cohort.obs_names.tolist() == ["a", "b", "c", "d"]
    assert list(cohort.obs) == ["patient", "slide", "path", "n_tiles", "EGFR", "days"]
    assert cohort.obs["patient"].tolist() == ["P1", "P2", "P1", "P3"]
    assert cohort.obs["n_tiles"].tolist() == [2, 3, 4, 5]
    assert cohort.obs["days"].tolist() == [400, 35, 400, 10]
    assert cohort.obs["EGFR"].isna().tolist() == [True, False, True, False]
    assert cohort.obs["path"].tolist() == [
        str(root / patient / f"{slide}.h5") for slide, patient in SLIDES.items()
    ]
    entry = cohort.uns["stp_cohort"]
    assert (entry["n_patients"], entry["n_slides"], entry["n_tiles"]) == (3, 4, 14)
    assert not len(entry["left_out"])


def test_the_record_says_how_the_features_were_made(root, slides):
    features = features_record(stp.io.read_cohort(slides, root=root))
    assert features["model"]["name"] == "uni"
    assert features["model"]["class"] == features["writer"] == "KatherLab h5"
    assert features["tile_um"] == 256
    assert features["um_per_px"] == pytest.approx(256 / 224)
    assert (features["width"], features["dtype"]) == (8, "float16")
    assert (features["use_rep"], features["table_key"]) == ("X_stp_images", "table")


def test_scattered_rows_of_a_patient_give_the_bags_of_sorted_ones(root, slides, tmp_path):
    bags = []
    for name, table in (("scattered", slides), ("sorted", slides.sort_values("patient"))):
        (tmp_path / name).mkdir()
        cohort = stp.io.read_cohort(table, root=root)
        file = BagFile.write(bag_sources(cohort), tmp_path / name)
        bags.append({patient: file.bag(n).copy() for n, patient in enumerate(file.patients)})
    assert [len(bag) for bag in bags[0].values()] == [6, 3, 5]  # no slide is lost
    assert bags[0].keys() == bags[1].keys()
    for patient, bag in bags[0].items():
        np.testing.assert_array_equal(bags[1][patient], bag)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "parquet", "xlsx"])
def test_a_table_is_the_same_in_every_format(root, slides, clinical, tmp_path, suffix):
    tables = {"slides": slides, "clinical": clinical}
    paths = {}
    for name, table in tables.items():
        paths[name] = tmp_path / f"{name}.{suffix}"
        if suffix == "parquet":
            table.to_parquet(paths[name])
        elif suffix == "xlsx":
            table.to_excel(paths[name], index=False)
        else:
            table.to_csv(paths[name], index=False, sep="\t" if suffix == "tsv" else ",")
    expected = stp.io.read_cohort(slides, clinical=clinical, root=root)
    cohort = stp.io.read_cohort(paths["slides"], clinical=paths["clinical"], root=root)
    pd.testing.assert_frame_equal(cohort.obs, expected.obs)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
def test_ids_that_look_like_numbers_stay_text(tmp_path, suffix):
    names = {"007": "01", "07": "02", "7": "1e5"}
    rng = np.random.default_rng(0)
    for slide in names:
        write_katherlab(tmp_path / f"{slide}.h5", rng.random((2, 8), np.float32))
    table = pd.DataFrame({"patient": names.values(), "slide": names.keys()})
    path = tmp_path / f"slides.{suffix}"
    if suffix == "xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    cohort = stp.io.read_cohort(path, root=tmp_path)
    assert cohort.obs["slide"].tolist() == list(names)
    assert cohort.obs["patient"].tolist() == list(names.values())


def test_ids_that_pandas_made_numbers_have_no_decimal_point(tmp_path):
    rng = np.random.default_rng(0)
    for slide in ("7", "8"):
        write_katherlab(tmp_path / f"{slide}.h5", rng.random((2, 8), np.float32))
    slides = pd.DataFrame({"patient": [1.0, 2.0, np.nan], "slide": [7.0, 8.0, np.nan]})
    clinical = pd.DataFrame({"patient": [1, 2], "age": [50, 60]})
    cohort = stp.io.read_cohort(slides[:2], clinical=clinical, root=tmp_path)
    assert cohort.obs["patient"].tolist() == ["1", "2"]
    assert cohort.obs["slide"].tolist() == ["7", "8"]


def test_whole_numbers_with_a_missing_value_stay_whole(root, slides, tmp_path):
    path = tmp_path / "clinical.csv"
    path.write_text("patient,event,drug,size\nP1,1,None,0.5\nP2,,A,\nP3,0,NA,1.5\n")
    obs = stp.io.read_cohort(slides, clinical=path, root=root).obs
    assert obs["event"].dtype == "Int64"
    assert obs["event"].isna().tolist() == [False, True, False, False]
    assert obs["drug"].astype(object).where(obs["drug"].notna(), "?").tolist() == [
        "None",  # a class, not a missing value
        "A",
        "None",
        "?",
    ]
    assert obs["size"].dtype == np.float64


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_cohort_survives_files_and_the_choice_of_rows(root, slides, clinical, tmp_path, kind):
    extra = clinical.assign(
        ok=[True, None, False], seen=pd.to_datetime(["2020-01-01"] * 3), n=[1, 2, 3]
    )
    with pytest.warns(UserWarning, match="dates and mixed values were written as text"):
        cohort = stp.io.read_cohort(slides, clinical=extra, root=root)
    path = tmp_path / f"cohort.{kind}"
    getattr(cohort, f"write_{kind}")(path)
    loaded = getattr(anndata, f"read_{kind}")(path)
    assert bag_sources(loaded) == bag_sources(cohort)
    assert features_record(loaded) == features_record(cohort)
    part = loaded[loaded.obs["patient"] == "P1"]
    assert [source.slide for source in bag_sources(part)] == ["a", "c"]
    assert [source.n_tiles for source in bag_sources(part)] == [2, 4]


def test_paths_are_relative_to_root_or_to_the_table(root, slides, tmp_path):
    slides["path"] = [f"{patient}/{slide}.h5" for slide, patient in SLIDES.items()]
    by_root = stp.io.read_cohort(slides, root=root)
    slides["path"] = "features/" + slides["path"]
    slides.to_csv(tmp_path / "slides.csv", index=False)
    by_table = stp.io.read_cohort(tmp_path / "slides.csv")
    assert by_table.obs["path"].tolist() == by_root.obs["path"].tolist()
    assert Path(by_table.obs["path"].iloc[0]).is_absolute()


def test_a_slide_without_a_path_is_looked_for_in_root(root, slides):
    slides["path"] = ["P1/a.h5", None, "", None]
    cohort = stp.io.read_cohort(slides, root=root)
    assert [Path(path).name for path in cohort.obs["path"]] == ["a.h5", "b.h5", "c.h5", "d.h5"]


def test_names_with_a_suffix_or_a_subfolder_find_their_file(root, slides):
    # KatherLab's column FILENAME has the suffix, tables of scanners have that of the slide.
    slides = slides.assign(FILENAME=["P1/a.h5", "b.svs", "c.ndpi", " d "])
    cohort = stp.io.read_cohort(
        slides.drop(columns="slide"), slide_key="FILENAME", root=root, missing="raise"
    )
    assert cohort.obs["slide"].tolist() == ["P1/a.h5", "b.svs", "c.ndpi", "d"]
    assert [Path(path).name for path in cohort.obs["path"]] == ["a.h5", "b.h5", "c.h5", "d.h5"]


def test_a_subfolder_tells_files_of_one_name_apart(root, slides):
    write_katherlab(root / "P9" / "a.h5", example_features(7), **katherlab_25())
    text = faults(slides, root=root)
    assert "slides have several feature files: a has" in text
    assert str(root / "P9" / "a.h5") in text
    assert "missing='drop'" not in text
    slides["slide"] = ["P9/a", "b", "c", "d"]
    assert stp.io.read_cohort(slides, root=root).obs["n_tiles"].tolist() == [7, 3, 4, 5]


def test_each_slide_is_a_bag_if_the_patients_are_the_slides(root, slides):
    clinical = pd.DataFrame({"slide": list(SLIDES), "grade": [1, 2, 3, 1]})
    cohort = stp.io.read_cohort(
        slides[["slide"]], clinical=clinical, patient_key="slide", root=root
    )
    assert cohort.obs["patient"].tolist() == cohort.obs["slide"].tolist() == list(SLIDES)
    assert patient_labels(cohort, "grade").tolist() == [1, 2, 3, 1]


def test_stores_of_lazyslide_are_a_cohort(tmp_path):
    rng = np.random.default_rng(0)
    for slide in ("a", "b"):
        features = rng.normal(size=(len(CORNERS), 8)).astype(np.float32)
        write_lazyslide(tmp_path / f"{slide}.zarr", features, CORNERS * 512)
    slides = pd.DataFrame({"patient": ["P1", "P2"], "slide": ["a", "b"]})
    cohort = stp.io.read_cohort(slides, root=tmp_path, table_key="uni_tiles", use_rep="X")
    assert cohort.obs["n_tiles"].tolist() == [6, 6]
    assert len(BagFile.write(bag_sources(cohort), tmp_path)) == 2


def test_all_mismatches_are_listed_at_once(root, slides, clinical):
    more = pd.DataFrame(
        {
            "patient": ["P1", None, "P4", "P2", "P5", "P3"],
            "slide": ["A1", "x", "e", "b", "f", None],
        }
    )
    slides = pd.concat([slides, more], ignore_index=True)
    clinical = pd.concat(
        [clinical, pd.DataFrame({"patient": ["P9", None, "p5"]})], ignore_index=True
    )
    write_trident(root / "e.h5", np.zeros((0, 8), np.float32), np.zeros((0, 2)))
    (root / "f.h5").write_text("no HDF5")
    text = faults(slides, clinical=clinical, root=root)
    for line in (
        "no patient id, in 1 row of the slides table: x",
        "no slide id, in 1 row of the slides table: P3",
        "repeated, in 1 row of the slides table: b",
        "no patient id, in 1 row of the clinical table: row 5",
        "patient without clinical row, in 2 rows of the slides table: e, f (patient 'P4')",
        "patient without slide, in 2 rows of the clinical table: P9, p5 ('p5' is like 'P5')",
        f"no feature file, in 1 row of the slides table: A1 (in {root})",
        f"no tile, in 1 row of the slides table: e ({root / 'e.h5'} is empty)",
        "features that cannot be read, in 1 row of the slides table: f",
    ):
        assert f"- {line}" in text, text
    assert text.endswith("or pass missing='drop' to leave these rows out")
    with pytest.warns(UserWarning, match=r"11 rows left out of the cohort: .*no tile, in 1 row"):
        cohort = stp.io.read_cohort(slides, clinical=clinical, root=root, missing="drop")
    assert cohort.obs["slide"].tolist() == ["a", "b", "c", "d"]
    left_out = cohort.uns["stp_cohort"]["left_out"]
    assert len(left_out) == 11
    empty = left_out[left_out["reason"] == "no tile"].iloc[0]
    assert (empty["table"], empty["row"], empty["slide"]) == ("slides", 7, "e")


def test_a_patient_all_of_whose_slides_are_left_out_is_listed(root, slides, clinical):
    (root / "P3" / "d.h5").unlink()
    with pytest.warns(UserWarning, match="whose slides are all left out, in 1 row .*: P3"):
        cohort = stp.io.read_cohort(slides, clinical=clinical, root=root, missing="drop")
    assert cohort.obs["patient"].tolist() == ["P1", "P2", "P1"]
    assert cohort.uns["stp_cohort"]["n_patients"] == 2


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("D", "'D' is like 'd'"),
        ("TCGA-05-4244-01", "'TCGA-05-4244-01' is like 'TCGA-05-4244-01Z-00-DX1'"),
        ("012", "'012' is like '12'"),
    ],
)
def test_an_id_that_is_almost_right_is_not_guessed_but_named(root, slides, wrong, hint):
    for name in ("TCGA-05-4244-01Z-00-DX1", "12"):
        write_katherlab(root / f"{name}.h5", example_features(), **katherlab_25())
    slides.loc[3, "slide"] = wrong
    text = faults(slides, root=root)
    assert f"no feature file, in 1 row of the slides table: {wrong}" in text
    assert hint in text


@pytest.mark.parametrize("missing", ["raise", "drop"])
def test_contradictions_are_errors_even_if_rows_may_be_left_out(root, slides, clinical, missing):
    twice = pd.concat([slides, pd.DataFrame({"patient": ["P2"], "slide": ["a"]})])
    text = faults(twice, root=root, missing=missing)
    assert "rows of the slides table contradict each other: a in the rows 1, 5, in patient" in text
    other = pd.concat([clinical, pd.DataFrame({"patient": ["P2"], "EGFR": ["mutated"]})])
    text = faults(slides, clinical=other, root=root, missing=missing)
    assert "clinical table contradict each other: P2 in the rows 3, 4, in EGFR, days" in text
    same_file = slides.assign(path=str(root / "P1" / "a.h5"))
    text = faults(same_file, missing=missing)
    assert "several slides have one feature file: a, b, c and 1 more have" in text
    both = slides.assign(days=[400, 35, 401, 10])
    text = faults(both, clinical=clinical, root=root, missing=missing)
    assert "the column 'days' differs in the two tables: slide c" in text


def test_a_column_of_both_tables_that_agrees_is_there_once(root, slides, clinical):
    both = slides.assign(days=["400", "35", "400", "10"])
    cohort = stp.io.read_cohort(both, clinical=clinical, root=root)
    assert cohort.obs["days"].tolist() == [400, 35, 400, 10]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extractor": "conch"}, "features are of several models: uni (KatherLab h5, "),
        ({"code_hash": "other"}, "features are of several models: uni (KatherLab h5, "),
        (
            {"tile_size_um": 300.0},
            "tiles have several sizes: 256 um in a, b and 1 more; 300 um in d",
        ),
        (
            {"tile_size_px": 256},
            "patches have several scales: 1.14286 um in a, b and 1 more; 1 um in d",
        ),
    ],
)
def test_features_of_two_extractions_are_refused(root, slides, changes, message):
    write_katherlab(root / "P3" / "d.h5", example_features(), **katherlab_25() | changes)
    assert message in faults(slides, root=root, missing="drop")


def test_features_of_several_widths_are_refused(root, slides):
    write_katherlab(root / "P3" / "d.h5", example_features(width=9), **katherlab_25())
    text = faults(slides, root=root)
    assert "features have several widths: 8 values in a, b and 1 more; 9 values in d" in text


def test_columns_and_folders_that_are_missing_are_named(root, slides, tmp_path):
    with pytest.raises(KeyError, match=r"no column 'case'; pass patient_key= one of"):
        stp.io.read_cohort(slides, patient_key="case", root=root)
    with pytest.raises(KeyError, match=r"clinical= has no column 'patient'"):
        stp.io.read_cohort(slides, clinical=pd.DataFrame({"PATIENT": ["P1"]}), root=root)
    with pytest.raises(KeyError, match=r"no column 'file'; pass path_key= one of"):
        stp.io.read_cohort(slides, path_key="file", root=root)
    with pytest.raises(ValueError, match=r"no column 'path' .*root= the folder"):
        stp.io.read_cohort(slides)
    with pytest.raises(FileNotFoundError, match="which is no folder"):
        stp.io.read_cohort(slides, root=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="there is no table at nowhere.csv"):
        stp.io.read_cohort("nowhere.csv", root=root)
    with pytest.raises(ValueError, match="rename them"):
        stp.io.read_cohort(slides.assign(n_tiles=1), root=root)
    with pytest.raises(ValueError, match=r"slash in their name.*ER/PR"):
        stp.io.read_cohort(slides.assign(**{"ER/PR": 1}), root=root)
    with pytest.raises(ValueError, match="missing must be 'raise' or 'drop'"):
        stp.io.read_cohort(slides, root=root, missing="ignore")
    with pytest.raises(TypeError, match="slides is a list"):
        stp.io.read_cohort(["a", "b"], root=root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"patient;slide\nP1;a\n", r"separated by ';', expected ','.*pandas.read_csv"),
        (b"patient,slide\nP1,a,b\n", "each line needs a value for each column"),
        (b"patient,slide,x,x\nP1,a,1,2\n", "columns of .* repeat: x"),
        (b"patient,slide\nM\xfcller,a\n", "no text in UTF-8"),
        (b"patient,slide,\nP1,a,4\n", "column 3 of .* has no name"),
        (b"", "each line needs a value|no column"),
        (b"patient,slide\n", "has no row"),
    ],
)
def test_tables_that_would_be_misread_are_refused(root, tmp_path, content, message):
    path = tmp_path / "slides.csv"
    path.write_bytes(content)
    with pytest.raises((ValueError, KeyError), match=message):
        stp.io.read_cohort(path, root=root)


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_an_index_and_spaces_around_text_are_no_part_of_a_table(root, slides, tmp_path, suffix):
    table = slides.assign(grade=["low", " low ", "high", "high "])
    path = tmp_path / f"slides.{suffix}"
    if suffix == "xlsx":
        table.to_excel(path)
    else:
        path.write_text(table.to_csv().replace("\n", ",\n"))  # and an empty column
    obs = stp.io.read_cohort(path, root=root).obs
    assert list(obs) == ["patient", "slide", "path", "n_tiles", "grade"]
    assert obs["grade"].tolist() == ["low", "low", "high", "high"]


def test_a_number_and_an_empty_cell_of_excel_are_an_id_and_none(tmp_path):
    rng = np.random.default_rng(0)
    for slide in ("7", "8"):
        write_katherlab(tmp_path / f"{slide}.h5", rng.random((2, 8), np.float32))
    path = tmp_path / "slides.xlsx"
    table = pd.DataFrame({"patient": [1, 2, None], "slide": [7, 8, None], "age": [61, 47, 52]})
    table.to_excel(path, index=False)
    with pytest.warns(UserWarning, match="no patient id, in 1 row of the slides table: row 3"):
        cohort = stp.io.read_cohort(path, root=tmp_path, missing="drop")
    assert cohort.obs["patient"].tolist() == ["1", "2"]
    assert cohort.obs["slide"].tolist() == ["7", "8"]


def test_features_without_a_scale_are_a_cohort_that_can_be_saved(tmp_path):
    rng = np.random.default_rng(0)
    for slide in ("a", "b"):
        features = rng.normal(size=(len(CORNERS), 8)).astype(np.float32)
        write_trident(tmp_path / f"{slide}.h5", features, CORNERS * 512)
    slides = pd.DataFrame({"patient": ["P1", "P2"], "slide": ["a", "b"]})
    cohort = stp.io.read_cohort(slides, root=tmp_path)
    assert features_record(cohort)["um_per_px"] is None
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    loaded = anndata.read_h5ad(tmp_path / "cohort.h5ad")
    assert features_record(loaded) == features_record(cohort)
    write_katherlab(tmp_path / "b.h5", features, CORNERS * 256.0, **katherlab_25())
    assert "features are of several models: uni_v1 (TRIDENT h5" in faults(slides, root=tmp_path)


def test_a_table_with_the_mark_of_excel_is_read(root, slides, tmp_path):
    path = tmp_path / "slides.csv"
    slides.to_csv(path, index=False, encoding="utf-8-sig")
    assert len(stp.io.read_cohort(path, root=root)) == 4


def test_several_sheets_and_other_formats_are_refused(root, slides, tmp_path):
    path = tmp_path / "slides.xlsx"
    with pd.ExcelWriter(path) as book:
        slides.to_excel(book, sheet_name="slides", index=False)
        slides.to_excel(book, sheet_name="old", index=False)
    with pytest.raises(ValueError, match=r"2 sheets: slides, old; pass .*sheet_name"):
        stp.io.read_cohort(path, root=root)
    with pytest.raises(ValueError, match="save it as csv, tsv, parquet or xlsx"):
        stp.io.read_cohort(tmp_path / "slides.xls", root=root)


def test_no_slide_left_is_an_error(root, slides):
    with (
        pytest.warns(UserWarning, match="4 rows left out"),
        pytest.raises(ValueError, match="no slide is left"),
    ):
        stp.io.read_cohort(slides.assign(slide=list("wxyz")), root=root, missing="drop")


def test_features_that_moved_are_named_when_they_are_used(root, slides):
    cohort = stp.io.read_cohort(slides, root=root)
    (root / "P2" / "b.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"features of 1 slide are no longer .*b\.h5"):
        bag_sources(cohort)
