import pandas as pd
import pytest

import stp
from stp.cli.main import main
from stp.data.store import SpotStore


@pytest.fixture
def file(stores, tmp_path):
    """Write a collection of three stores of three patients."""
    table = pd.DataFrame(
        {
            "name": [path.stem for path in stores],
            "path": [str(path) for path in stores],
            "digest": [SpotStore(path).digest for path in stores],
            "patient": ["007", "008", "009"],
            "organ": ["breast", "breast", "lung"],
            "n_spots": [40, 50, 60],
        }
    )
    stp.io.Collection(table, tmp_path).write(tmp_path / "collection.parquet")
    return tmp_path / "collection.parquet"


def split(*arguments):
    return main(["split", *map(str, arguments), "--no-duplicates"])


def test_the_split_is_written_and_printed(file, capsys):
    assert split(file, "--seed", 1) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["stores", "patients", "spots", "share", "organs"]
    assert [row[0] for row in rows[1:4]] == ["train", "validation", "test"]
    assert [row[1:3] for row in rows[1:4]] == [["1", "1"]] * 3
    assert {row[3] for row in rows[1:4]} == {"40", "50", "60"}
    for path in (file, file.with_suffix(".csv"), file.parent):
        collection = stp.io.read_collection(path)
        expected = stp.tl.assign_split(collection, seed=1, overwrite=True).table["split"].tolist()
        assert collection.table["split"].tolist() == expected
        assert collection.table["patient"].tolist() == ["007", "008", "009"]


def test_a_dry_run_writes_nothing(file, capsys):
    before = file.read_bytes()
    assert split(file, "--dry-run") == 0
    assert "validation" in capsys.readouterr().out
    assert file.read_bytes() == before


def test_a_split_is_replaced_only_if_asked(file, capsys):
    split(file)
    with pytest.raises(SystemExit, match="2"):
        split(file)
    assert "has a split; pass --overwrite" in capsys.readouterr().err
    assert split(file, "--overwrite", "--test", 0) == 0
    assert set(stp.io.read_collection(file).table["split"]) == {"train", "validation"}


def test_a_csv_file_that_was_edited_is_not_lost(file, capsys):
    csv = file.with_suffix(".csv")
    csv.write_text(csv.read_text().replace("008", "007"))
    with pytest.raises(SystemExit, match="2"):
        split(file)
    assert "other values than" in capsys.readouterr().err
    assert split(csv, "--validation", 0) == 0
    table = stp.io.read_collection(file).table
    assert table["patient"].tolist() == ["007", "007", "009"]
    assert table["split"][0] == table["split"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.parquet"], "there is no collection at nowhere.parquet"),
        (["FILE", "--by", "donor"], "no column 'donor'"),
        (["FILE", "--validation", "0.9"], "leave nothing to train on"),
    ],
)
def test_wrong_options_are_one_line(file, arguments, message, capsys):
    arguments = [str(file) if argument == "FILE" else argument for argument in arguments]
    with pytest.raises(SystemExit, match="2"):
        split(*arguments)
    assert message in capsys.readouterr().err.splitlines()[-1]
