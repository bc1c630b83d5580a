import inspect
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import zarr

import stp
from stp.data.collection_file import csv_text
from stp.data.store import SpotStore
from stp.io._store_measures import measure_store


@pytest.fixture(scope="module")
def folder(stores):
    return stores[0].parent


def make_table(stores, **columns):
    names = [path.stem for path in stores]
    rows = {
        "name": names,
        "path": [path.name for path in stores],
        "digest": [SpotStore(path).digest for path in stores],
    }
    return pd.DataFrame({**rows, **columns})


@pytest.fixture
def collection(stores, folder):
    table = make_table(
        stores,
        organ=["breast", "Breast", None],
        is_ffpe=[True, False, True],
        um_per_px=[0.5, 1.0, np.nan],
        batch=["1", "2", "02"],
        n_spots=[40, 50, 60],
    )
    return stp.io.Collection(table, folder)


def names_of(collection):
    return list(collection.table["name"])


def test_iterating_gives_paths_and_urls_as_they_are(collection, stores):
    assert list(collection) == stores
    collection.table.loc[0, "path"] = "s3://bucket/a.zarr"
    assert list(collection)[0] == "s3://bucket/a.zarr"


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"organ": "breast"}, [0]),
        ({"organ": ["breast", "Breast"]}, [0, 1]),
        ({"is_ffpe": True}, [0, 2]),
        ({"is_ffpe": [True, False]}, [0, 1, 2]),
        ({"um_per_px": 1}, [1]),
        ({"um_per_px": np.float32(0.5)}, [0]),
        ({"n_spots": [60.0, 40]}, [0, 2]),
        ({"batch": "02"}, [2]),
        ({"batch": ("1", "2"), "organ": "Breast"}, [1]),
    ],
)
def test_rows_are_selected_by_value(collection, where, rows):
    assert names_of(collection.select(where)) == [f"slide{row}" for row in rows]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"organ": "brest"}, r"no row has 'brest' in 'organ' \(did you mean 'breast'\?\)"),
        ({"organ": "BREAST"}, r"did you mean '[Bb]reast'"),
        ({"organ": ["breast", "lung"]}, "no row has 'lung' in 'organ'; it has 'breast', 'Breast'"),
        ({"organ": None}, "a cell without a value matches nothing"),
        ({"um_per_px": float("nan")}, "a cell without a value matches nothing"),
        ({"is_ffpe": 1}, "no row has 1 in 'is_ffpe'; it has True, False"),
        ({"n_spots": True}, "no row has True in 'n_spots'"),
        ({"batch": 1}, r"no row has 1 in 'batch'; the column has '1' \(text\)"),
        ({"n_spots": "40"}, r"no row has '40' in 'n_spots'; the column has 40 \(a number\)"),
        ({"orga": "breast"}, r"no column 'orga' \(did you mean 'organ'\?\)"),
        ({"organ": []}, "empty list"),
        ({"organ": {"not": "breast"}}, "is a table; give a value"),
        ({"organ": "breast", "is_ffpe": False}, "meets all of"),
    ],
)
def test_a_condition_that_nothing_meets_is_refused(collection, where, message):
    with pytest.raises(ValueError, match=message):
        collection.select(where)


def test_a_side_needs_a_split(collection):
    with pytest.raises(ValueError, match=r"no split; stp\.tl\.assign_split"):
        collection.select(split="train")
    collection.table["split"] = ["train", "test", "train"]
    assert names_of(collection.select(split="train")) == ["slide0", "slide2"]
    with pytest.raises(ValueError, match="no row has 'validation' in 'split'"):
        collection.select(split="validation")


def test_stores_without_a_side_are_counted(collection):
    collection.table["split"] = ["train", "", None]
    with pytest.warns(UserWarning, match="2 stores of the collection have no side in 'split'"):
        assert names_of(collection.select(split="train")) == ["slide0"]


def test_a_selection_records_its_collection_and_conditions(collection):
    collection.table["split"] = ["train", "train", "test"]
    selection = collection.select({"is_ffpe": [True, False]}).select({"is_ffpe": True}, "train")
    assert selection.record() == {
        "digest": collection.digest,
        "where": {"is_ffpe": [True], "split": ["train"]},
        "n_stores": 1,
    }
    assert selection.describe() == (
        f"collection {collection.digest[:12]} (is_ffpe: True; split: train)"
    )
    assert collection.record() == {"digest": collection.digest, "where": {}, "n_stores": 3}


def test_the_digest_depends_on_names_content_and_order_alone(collection):
    digest = collection.digest
    collection.table["organ"] = "lung"
    assert collection.digest == digest
    collection.table.loc[1, "digest"] = "0" * 64
    assert collection.digest != digest


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_table_is_read_as_it_was_written(collection, folder, ending):
    table = collection.table
    table["note"] = ["=1+1", "'=quoted", "''plain"]
    table["indented"] = [" =1", "\t@x", "'- dash"]
    table["@column"] = ["-1", "+2", "@x"]
    table["patient"] = ["001", "1e5", ""]
    table["sample_id"] = ["1", "2", "3"]
    collection.write(folder / "table.parquet")
    read = stp.io.read_collection(folder / f"table.{ending}")
    assert csv_text(read.table) == csv_text(table)
    assert list(read.table["patient"]) == ["001", "1e5", ""]
    assert list(read.table["sample_id"]) == ["1", "2", "3"]
    assert list(read.table["note"]) == list(table["note"])
    assert list(read.table["indented"]) == list(table["indented"])
    assert list(read.table["@column"]) == ["-1", "+2", "@x"]
    assert names_of(read.select({"is_ffpe": True, "n_spots": 40})) == ["slide0"]
    lines = (folder / "table.csv").read_text().splitlines()
    assert "'@column" in lines[0] and ",'=1+1," in lines[1] and ",''=quoted," in lines[2]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_folder_of_a_collection_is_enough(collection, folder, tmp_path):
    collection.write(folder)
    assert names_of(stp.io.read_collection(folder)) == names_of(collection)
    (folder / "collection.parquet").unlink()
    assert names_of(stp.io.read_collection(folder)) == names_of(collection)
    (folder / "collection.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no collection.parquet in .*write_collection"):
        stp.io.read_collection(folder)
    with pytest.raises(FileNotFoundError, match="no collection at"):
        stp.io.read_collection(tmp_path / "x.parquet")


def test_all_faults_of_a_table_are_listed(stores, tmp_path):
    table = make_table(stores)
    table["name"] = ["a", "a", ""]
    table.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(ValueError, match="3 faults") as error:
        stp.io.read_collection(tmp_path / "table.csv")
    message = str(error.value)
    assert "'name' is missing or no text in row 3" in message
    assert "several rows have the name a" in message
    assert "no store at slide0.zarr, slide1.zarr, slide2.zarr" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,path\na,b\n", r"lacks the columns \['digest'\]; it has \['name', 'path'\]"),
        ("name;path;digest\n", r"it has \['name;path;digest'\]"),
        ("name,path,digest\n", "it has no rows"),
        ("", "it is empty"),
        ("name,path,digest,name\n", r"columns repeat: \['name'\]"),
        ("name,path,digest\na,b\n", "3 columns, and these rows have another number of cells: 2"),
    ],
)
def test_a_csv_file_that_is_no_collection_is_refused(text, message, tmp_path):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        stp.io.read_collection(tmp_path / "table.csv")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "table.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        stp.io.read_collection(tmp_path / "table.parquet")
    (tmp_path / "table.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"give a \.parquet or \.csv file"):
        stp.io.read_collection(tmp_path / "table.xlsx")


def test_a_selection_does_not_overwrite_its_collection(collection, folder, tmp_path):
    collection.write(folder / "whole.parquet")
    part = collection.select({"is_ffpe": True})
    with pytest.raises(ValueError, match="selection of 2 of the 3 stores"):
        part.write(folder / "whole.csv")
    part.write(folder / "part.csv")
    assert len(stp.io.read_collection(folder / "part.parquet")) == 2
    with pytest.raises(ValueError, match="relative to"):
        collection.write(tmp_path / "elsewhere.parquet")


def test_stores_with_a_problem_are_left_out_with_one_warning(collection):
    collection.table["problem"] = ["", "no scale", None]
    with pytest.warns(UserWarning, match=r"1 of 3 stores are left out.*\(1 store: no scale\)") as w:
        stores = collection.training_stores()
    assert len(w) == 1
    assert names_of(stores) == ["slide0", "slide2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stores.training_stores()
    collection.table["problem"] = ["no scale", "too few genes", "no scale"]
    with pytest.raises(
        ValueError, match=r"no store .* \(2 stores: no scale; 1 store: too few genes\)"
    ):
        collection.trainable()


def test_a_store_that_was_written_anew_is_noticed(collection, stores, tmp_path):
    collection.check_stores()
    collection.table.loc[0, "path"] = str(stores[1])
    collection.table.loc[2, "path"] = str(tmp_path)
    with pytest.raises(ValueError, match="renew the table: stp.io.write_collection") as error:
        collection.check_stores()
    assert "slide0 was written anew" in str(error.value)
    assert "slide2 is no training store" in str(error.value)
    assert "slide1" not in str(error.value)


def test_a_collection_describes_itself(collection):
    collection.table.loc[1, "organ"] = "<script>"
    text = f"Collection(3 stores, 150 spots, digest {collection.digest[:12]})"
    assert repr(collection) == text
    html = collection._repr_html_()
    assert "&lt;script&gt; (1)" in html and "<script>" not in html
    assert "breast (1)" in html and "150" in html


def test_the_columns_that_are_measured_are_documented(stores):
    names = re.findall(r"`(\w+)`", inspect.getdoc(stp.io.read_collection))
    assert set(measure_store(stores[0])) <= set(names)
    assert {"name", "path", "digest", "patient", "organ", "problem", "split"} <= set(names)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_digest_of_a_store_of_any_zarr_version_is_read(tmp_path, zarr_format):
    store = {"stp_store": {"digest": "a"}}
    zarr.create_group(tmp_path / "a.zarr", zarr_format=zarr_format, attributes=store)
    (tmp_path / "table.csv").write_text("name,path,digest\na,a.zarr,a\n")
    stp.io.read_collection(tmp_path / "table.csv").check_stores()
    (tmp_path / "table.csv").write_text("name,path,digest\na,a.zarr,b\n")
    with pytest.raises(ValueError, match="a was written anew"):
        stp.io.read_collection(tmp_path / "table.csv").check_stores()


def test_categories_that_look_like_formulas_are_quoted():
    table = pd.DataFrame({"site": pd.Categorical(["=1+1", "b", None]), "n": [1, -2, 3]})
    assert csv_text(table) == "site,n\n'=1+1,1\nb,-2\n,3\n"
