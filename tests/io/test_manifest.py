"""Manifests: what their cells mean, and that all faults are listed at once."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from tests.slides import HEST_FACTS, make_slide, write_hest, write_space_ranger

from stp.io._manifest import read_manifest
from stp.io._manifest_columns import ARGUMENTS_OF, COLUMNS, RESERVED


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Make files and folders that are recognized by their structure; only some can be read."""
    folder = tmp_path_factory.mktemp("sources")
    adata, image = make_slide(0, 4, 4)
    for name in ("a.h5ad", "b.h5ad", "007.h5ad", "a.tif", "counts.h5"):
        (folder / name).write_bytes(b"")
    write_space_ranger(folder / "visium" / "outs", adata, image)
    (folder / "hd" / "outs" / "binned_outputs" / "square_008um").mkdir(parents=True)
    (folder / "xenium").mkdir()
    (folder / "xenium" / "experiment.xenium").write_text("{}")
    (folder / "empty").mkdir()
    for name, attributes in {
        "slide.zarr": {"spatialdata_attrs": {"version": "0.2"}},
        "anndata.zarr": {"encoding-type": "anndata"},
    }.items():
        (folder / name).mkdir()
        (folder / name / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    write_hest(folder / "hest", "TENX1", adata, image, HEST_FACTS)
    return folder


@pytest.fixture
def read(sources):
    """Return a function that reads lines as a CSV file among the sources."""

    def read_lines(*lines, name="manifest.csv", encoding="utf-8"):
        path = sources / name
        path.write_bytes("\n".join(lines).encode(encoding))
        return read_manifest(path)

    return read_lines


def only_fault(result):
    rows, (fault,) = result
    assert not rows
    return fault


@pytest.mark.parametrize(
    ("path", "further", "kind"),
    [
        ("a.h5ad", "", "h5ad"),
        ("visium", "", "Space Ranger folder"),
        ("visium/outs", "", "Space Ranger folder"),
        ("hd/outs", "8", "Visium HD folder"),
        ("hd", "8", "Visium HD folder"),
        ("xenium", "", "Xenium folder"),
        ("slide.zarr", "", "SpatialData"),
        ("hest/st/TENX1.h5ad", "", "HEST sample"),
    ],
)
def test_a_kind_is_recognized_by_its_files(read, path, further, kind):
    (row,), faults = read("name,path,bin_um", f"one,{path},{further}")
    assert not faults
    assert row.kind == kind
    assert row.path.exists()


def test_a_source_that_may_be_two_kinds_is_refused(sources, read):
    both = sources / "both"
    both.mkdir(exist_ok=True)
    (both / "experiment.xenium").write_text("{}")
    (both / "binned_outputs").mkdir(exist_ok=True)
    fault = only_fault(read("name,path", "one,both"))
    assert "both may be a Visium HD folder or a Xenium folder" in fault


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.h5ad", "there is no file or folder"),
        ("empty", "empty is not recognized"),
        ("counts.h5", "name the folder it lies in"),
        ("anndata.zarr", "write it as h5ad"),
        ("hest", r"name one: .*<id>\.h5ad"),
        ("s3://user:secret@bucket/a.h5ad", r"path s3://\.\.\. is remote"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(read, path, message):
    fault = only_fault(read("name,path", f"one,{path}"))
    assert fault.startswith("row 1 (one): ")
    assert re.search(message, fault)
    assert "secret" not in fault


def test_a_sample_of_hest_names_its_missing_files(sources, read):
    (sources / "hest" / "st" / "TENX2.h5ad").write_bytes(b"")
    fault = only_fault(read("name,path", "one,hest/st/TENX2.h5ad"))
    assert re.search(r"lacks \S+wsis/TENX2\.tif and \S+metadata/TENX2\.json", fault)


def test_all_faults_of_all_rows_are_listed_at_once(read):
    rows, faults = read(
        "name,path,image,um_per_px,bin_um,Patient,um_per_pixel,digest",
        "a,a.h5ad,,0.5,,1,,",
        "A,nowhere,,abc,,1,,",
        "../b,b.h5ad,no.tif,-1,,1,,",
        "c,visium,,,8.5,1,,",
        ",hd,,,,1,,",
    )
    listed = "\n".join(faults)
    for message in (
        r"'Patient', which is unknown: did you mean 'patient'",
        r"the column 'digest' is one that the collection measures",
        r"rows 1 and 2 have names that many file systems take for one, a and A",
        r"row 2 \(A\): there is no file or folder \S+nowhere",
        r"row 2 \(A\): um_per_px is 'abc', which is no number",
        r"row 3 \(\.\./b\): the name '\.\./b' is unsafe",
        r"row 3 \(\.\./b\): there is no image \S+no\.tif",
        r"row 3 \(\.\./b\): um_per_px is '-1', but must be a positive number",
        r"row 4 \(c\): bin_um is '8\.5', but must be a whole number",
        r"row 4 \(c\): the kind 'Space Ranger folder' takes no bin_um",
        r"row 5: it has no name",
        r"row 5: a Visium HD folder needs bin_um",
    ):
        assert re.search(message, listed), message
    assert len(faults) == 12
    assert [row.name for row in rows] == ["a"]


@pytest.mark.parametrize(
    ("column", "likely"),
    [
        ("um_per_pixel", "um_per_px"),
        ("patch_um_per_pixel", "patch_um_per_px"),
        ("Patient", "patient"),
        ("bin um", "bin_um"),
        ("patients", "patient"),
        ("Spot-Pitch-um", "spot_pitch_um"),
    ],
)
def test_a_column_that_is_almost_a_known_one_is_refused(read, column, likely):
    _, faults = read(f"name,path,{column}", "a,a.h5ad,")
    assert faults == [
        f"the manifest has a column {column!r}, which is unknown: did you mean {likely!r}? Rename "
        "it; a further column needs a name that is less similar"
    ]


@pytest.mark.parametrize("column", ["age", "tumor_grade", "patient_id,patient", "Größe", "split"])
def test_other_further_columns_are_kept(read, column):
    (row,), faults = read(f"name,path,{column}", f"a,a.h5ad{',01' * (column.count(',') + 1)}")
    assert not faults
    assert row.metadata[column.partition(",")[0]] == "01"


def test_ids_stay_text_and_a_byte_order_mark_is_no_part_of_a_column(read):
    (row,), faults = read(
        "name,path,patient", " 007 ,007.h5ad, 0012", encoding="utf-8-sig", name="bom.csv"
    )
    assert not faults
    assert row.name == "007"
    assert row.metadata["patient"] == "0012"


def test_tabs_separate_the_cells_of_tsv(read):
    (row,), faults = read("name\tpath\torgan", "a\ta.h5ad\tbreast, left", name="manifest.tsv")
    assert not faults
    assert row.metadata["organ"] == "breast, left"


def test_a_table_keeps_numbers_of_further_columns_and_no_others(sources, monkeypatch):
    monkeypatch.chdir(sources)
    table = pd.DataFrame(
        {
            "name": [1, 2],
            "path": ["a.h5ad", "b.h5ad"],
            "patient": [7.0, np.nan],
            "um_per_px": np.array([0.5, np.nan], dtype=np.float32),
            "age": [61, 62],
            "mixed": ["x", 1],
            "date": pd.to_datetime(["2024-01-02", None]),
        }
    )
    for manifest in (table, sources / "manifest.parquet"):
        table.astype({"mixed": str}).to_parquet(sources / "manifest.parquet")
        (first, second), faults = read_manifest(manifest)
        assert not faults
        assert (first.name, first.um_per_px, second.um_per_px) == ("1", 0.5, None)
        assert (first.metadata["patient"], second.metadata["patient"]) == ("7", "")
        assert (first.metadata["age"], second.metadata["mixed"]) == (61, "1")
        assert first.metadata["date"].startswith("2024-01-02")


def test_a_cell_that_is_no_value_is_refused(sources, monkeypatch):
    monkeypatch.chdir(sources)
    table = pd.DataFrame({"name": ["a"], "path": ["a.h5ad"], "genes": [["EPCAM"]]})
    assert read_manifest(table)[1] == ["row 1: genes is of the type list; write a text or a number"]


def test_columns_that_a_kind_does_not_take_are_refused(read):
    _, faults = read(
        "name,path,image,library_key,layer,library,coordinate_system",
        "h,hest/st/TENX1.h5ad,a.tif,,,,",
        "v,visium,,slide,counts,,",
        "a,a.h5ad,,,,left,um",
    )
    assert [fault.partition(";")[0] for fault in faults] == [
        "row 1 (h): the kind 'HEST sample' takes no image",
        "row 2 (v): the kind 'Space Ranger folder' takes no library_key",
        "row 2 (v): the kind 'Space Ranger folder' takes no layer",
        "row 3 (a): the kind 'h5ad' takes no coordinate_system",
        "row 3 (a): library needs library_key, the column of obs with the libraries",
    ]


@pytest.mark.parametrize("cell", ["nan", "inf", "0", "1_0", "0,5", "5 um"])
def test_a_number_is_positive_and_finite(read, cell):
    fault = only_fault(read("name\tpath\tum_per_px", f"a\ta.h5ad\t{cell}", name="n.tsv"))
    assert fault.startswith(f"row 1 (a): um_per_px is {cell!r}")
    assert ("write a point, not a comma" in fault) == ("," in cell)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\\b", "a\x00b", "x" * 300])
def test_a_name_that_is_no_safe_folder_is_refused(sources, name, monkeypatch):
    monkeypatch.chdir(sources)
    _, (fault,) = read_manifest(pd.DataFrame({"name": [name], "path": ["a.h5ad"]}))
    assert "is unsafe" in fault or "is longer than 200 bytes" in fault


@pytest.mark.parametrize("name", ["<script>", "Patient 1 – left", "µ+="])
def test_other_names_are_kept(sources, name, monkeypatch):
    monkeypatch.chdir(sources)
    (row,), faults = read_manifest(pd.DataFrame({"name": [name], "path": ["a.h5ad"]}))
    assert not faults
    assert row.name == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"name;path\na;a.h5ad", "separated by ';', not by ','"),
        ("name,path\nä,a.h5ad".encode("latin-1"), "is no UTF-8 text"),
        (b'name,path\n"a,a.h5ad', "check its quotes"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, message):
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_manifest(path)


def test_rows_that_are_too_short_or_too_long_are_refused(read):
    _, faults = read("name,path,organ", "a,a.h5ad,breast, left", "b,b.h5ad")
    assert faults[0].startswith("row 1 has 4 cells, the first line has 3")
    assert faults[1].startswith("row 2 has 2 cells")


def test_empty_lines_and_columns_of_spreadsheets_are_no_rows(read):
    (row,), faults = read("name,path,,", "a,a.h5ad,,", ",,,", "")
    assert not faults
    assert row.name == "a"


def test_a_manifest_without_rows_or_columns_is_refused(read):
    assert read("name,path")[1] == ["the manifest has no rows, so there is nothing to prepare"]
    assert read("name,file", "a,a.h5ad")[1] == ["the manifest has no column 'path'"]
    assert "has 2 columns 'organ'" in read("name,path,organ,organ", "a,a.h5ad,x,y")[1][0]


def test_no_column_has_two_meanings():
    assert not set(COLUMNS) & set(RESERVED)
    assert {name for names in ARGUMENTS_OF.values() for name in names} < set(COLUMNS)
