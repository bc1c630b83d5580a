"""Manifests of folders with downloads."""

import csv
import json

import pytest
from tests.slides import HEST_FACTS, make_slide, write_hest, write_space_ranger

from stp.io._manifest import read_manifest
from stp.io._manifest_search import (
    find_hest_samples,
    find_space_ranger_folders,
    write_manifest,
)


@pytest.fixture(scope="module")
def slide():
    return make_slide(0, 4, 4)


def test_samples_of_hest_have_patients_of_their_study(slide, tmp_path):
    facts = HEST_FACTS | {"disease_state": "Cancer", "license": "CC BY 4.0"}
    write_hest(tmp_path, "TENX1", *slide, facts)
    write_hest(tmp_path, "TENX2", *slide, facts | {"patient": None})
    first, second = find_hest_samples(tmp_path)
    assert first == {
        "name": "TENX1",
        "path": str(tmp_path / "st" / "TENX1.h5ad"),
        "patient": "Study of 2024: Patient 1",
        "organ": "Breast",
        "species": "Homo sapiens",
        "platform": "Visium",
        "disease": "Cancer",
        "source": "Study of 2024",
        "license": "CC BY 4.0",
    }
    assert second["patient"] == ""
    rows, faults = read_manifest(write_manifest([first, second], tmp_path))
    assert not faults
    assert [row.kind for row in rows] == ["HEST sample"] * 2


def test_the_newest_table_of_hest_describes_samples_without_their_own_file(slide, tmp_path):
    write_hest(tmp_path, "TENX1", *slide, HEST_FACTS)
    (tmp_path / "metadata" / "TENX1.json").unlink()
    for version, organ in (("1_9_0", "Skin"), ("1_10_0", "Lung")):
        with (tmp_path / f"HEST_v{version}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "organ", "patient", "dataset_title"])
            writer.writerow(["TENX1", organ, "007", "A study"])
    (line,) = find_hest_samples(tmp_path)
    assert line["organ"] == "Lung"
    assert line["patient"] == "A study: 007"


def test_space_ranger_folders_are_found_at_any_depth(slide, tmp_path, capsys):
    write_space_ranger(tmp_path / "patient1" / "left" / "outs", *slide)
    (tmp_path / "patient1" / "left" / "image.tif").touch()
    write_space_ranger(tmp_path / "patient1" / "right", *slide)
    for name in ("image.tif", "right_tissue_image.btf"):
        (tmp_path / "patient1" / "right" / name).touch()
    for side in (2, 8, 16):
        bins = tmp_path / "hd" / "outs" / "binned_outputs" / f"square_{side:03}um"
        write_space_ranger(bins, *slide)
    (tmp_path / "cells" / "outs").mkdir(parents=True)
    (tmp_path / "cells" / "outs" / "filtered_feature_bc_matrix.h5").touch()
    write_space_ranger(tmp_path / ".hidden" / "outs", *slide)
    lines = find_space_ranger_folders(tmp_path)
    assert {line["name"]: (line["image"], line["bin_um"]) for line in lines} == {
        "hd": ("", "8"),
        "patient1_left": (str(tmp_path / "patient1" / "left" / "image.tif"), ""),
        "patient1_right": ("", ""),
    }
    log = capsys.readouterr().err
    assert "right has 2 images (image.tif, right_tissue_image.btf)" in log
    assert "Left out: " in log
    rows, faults = read_manifest(write_manifest(lines, tmp_path))
    assert not faults
    assert [row.kind for row in rows] == [
        "Visium HD folder",
        "Space Ranger folder",
        "Space Ranger folder",
    ]


def test_a_folder_may_be_the_sample_itself(slide, tmp_path):
    write_space_ranger(tmp_path / "sample" / "outs", *slide)
    for folder in (tmp_path / "sample", tmp_path / "sample" / "outs"):
        (line,) = find_space_ranger_folders(folder)
        assert line["name"] == "sample"


def test_a_manifest_that_a_user_edited_is_not_replaced(tmp_path):
    lines = [{"name": "a", "path": "a.h5ad"}]
    file = write_manifest(lines, tmp_path / "out")
    assert write_manifest(lines, tmp_path / "out") == file
    file.write_text("name,path\na,b.h5ad\n")
    with pytest.raises(ValueError, match=r"manifest\.csv exists and differs"):
        write_manifest(lines, tmp_path / "out")
    assert "b.h5ad" in file.read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize(
    ("find", "message"),
    [
        (find_hest_samples, "has no samples of HEST"),
        (find_space_ranger_folders, "has no folders of Space Ranger"),
    ],
)
def test_a_folder_without_downloads_is_refused(find, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        find(tmp_path)


def test_a_damaged_description_of_a_sample_is_named(slide, tmp_path):
    write_hest(tmp_path, "TENX1", *slide, HEST_FACTS)
    (tmp_path / "metadata" / "TENX1.json").write_text(json.dumps(HEST_FACTS)[:-5])
    with pytest.raises(ValueError, match=r"TENX1\.json is no JSON file"):
        find_hest_samples(tmp_path)
