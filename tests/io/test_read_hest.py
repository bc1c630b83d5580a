"""A sample of HEST-1k is read with its own scale, slide and metadata, or refused by name."""

import json

import dask.array
import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata.transformations import get_transformation
from tests.slides import HEST_FACTS as FACTS
from tests.slides import write_hest as write_sample
from tests.slides import write_pyramid

from stp import tl
from stp.images.slides import find_slides
from stp.io import read_hest

UM_PER_PX = 0.5


@pytest.fixture
def fine(adata, image):
    """The shared slide at 0.5 µm per pixel."""
    adata.obsm["spatial"] = adata.obsm["spatial"] / UM_PER_PX
    return adata, image.repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture
def hest(fine, tmp_path):
    write_sample(tmp_path, "TENX1", *fine, FACTS)
    return tmp_path


@pytest.fixture
def squares(fine):
    """Counts in squares of 15 µm, on a lattice as HEST pools Xenium."""
    adata, image = fine
    col, row = np.divmod(np.arange(100), 70)
    adata.obs["array_row"] = row
    adata.obs["array_col"] = col
    adata.obsm["spatial"] = np.column_stack([col, row]) * 15.0 / UM_PER_PX + 100
    return adata, image


def um_of(element):
    return get_transformation(element, "um").to_affine_matrix(("x", "y"), ("x", "y"))[0, 0]


def rewrite_facts(root, sample, **changes):
    path = root / "metadata" / f"{sample}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_counts_slide_and_scale(hest, fine):
    adata, image = fine
    sdata = read_hest(hest, "TENX1")
    assert (list(sdata.images), list(sdata.shapes)) == (["TENX1_full_image"], ["TENX1"])
    table = sdata["table"]
    assert (table.X != adata.X).nnz == 0
    assert um_of(sdata["TENX1"]) == UM_PER_PX
    assert sdata["TENX1"]["radius"].unique().tolist() == [55 / UM_PER_PX / 2]
    (slide,) = find_slides(sdata, table)
    assert [level.shape for level in slide.pyramid.levels] == [
        image[::step, ::step].shape[:2] for step in (1, 2, 4)
    ]
    patches = slide.pyramid.read(slide.centers, size=32, um_per_px=UM_PER_PX)
    corners = np.floor(adata.obsm["spatial"] - 15.5).astype(int)
    for patch, (x, y) in zip(patches, corners, strict=True):
        np.testing.assert_array_equal(patch, image[y : y + 32, x : x + 32])


def test_the_slide_is_opened_lazily(hest):
    element = read_hest(hest, "TENX1")["TENX1_full_image"]
    for scale in element.children:
        pixels = element[scale]["image"].data
        assert isinstance(pixels, dask.array.Array)
        assert max(pixels.chunks[1]) == max(pixels.chunks[2]) == 256


def test_descriptions_are_recorded_and_survive_the_disk(hest, tmp_path):
    sdata = read_hest(hest, "TENX1")
    assert {
        name: sdata["table"].obs[name].unique().tolist()
        for name in ("organ", "species", "technology", "patient")
    } == {
        "organ": ["Breast"],
        "species": ["Homo sapiens"],
        "technology": ["Visium"],
        "patient": ["Patient 1"],
    }
    sdata.write(tmp_path / "a.zarr")
    facts = spatialdata.read_zarr(tmp_path / "a.zarr").attrs["hest"]
    assert facts == sdata.attrs["hest"]
    assert facts["dataset_title"] == "Study of 2024"
    assert facts["pixel_size_um_embedded"] == 1.0
    assert not {"oncotree_code", "treatment_comment"} & set(facts)  # which have no value


def test_what_hest_does_not_know_is_empty(hest):
    rewrite_facts(hest, "TENX1", patient="   ", organ=None)  # both occur in HEST
    obs = read_hest(hest, "TENX1")["table"].obs
    assert (obs["patient"] == "").all() and (obs["organ"] == "").all()


def test_tokens_are_those_of_the_counts(hest, fine, vocabulary):
    adata, _ = fine
    sdata = read_hest(hest, "TENX1")
    tl.tokenize(sdata, vocabulary, context_length=32)
    tl.tokenize(adata, vocabulary, context_length=32)
    np.testing.assert_array_equal(sdata["table"].obsm["stp_tokens"], adata.obsm["stp_tokens"])


def test_the_row_of_the_table_is_used_instead_of_the_file(hest):
    table = hest / "HEST_v1_1_0.csv"
    row = FACTS | {"id": "TENX1", "organ": "Lung", "pixel_size_um_estimated": 0.502}
    pd.DataFrame([FACTS | {"id": "TENX10"}, row]).to_csv(table, index=False)
    sdata = read_hest(hest, "TENX1", metadata=table)
    assert sdata.attrs["hest"]["organ"] == "Lung"
    assert um_of(sdata["TENX1"]) == UM_PER_PX  # both give a scale, and they agree
    (hest / "metadata" / "TENX1.json").unlink()
    sdata = read_hest(hest, "TENX1", metadata=table)
    assert um_of(sdata["TENX1"]) == 0.502
    assert sdata.attrs["hest"]["dataset_title"] == "Study of 2024"


def test_table_and_file_contradict_each_other(hest):
    table = hest / "HEST_v1_1_0.csv"
    pd.DataFrame([FACTS | {"id": "TENX1", "pixel_size_um_estimated": 0.2125}]).to_csv(table)
    with pytest.raises(
        ValueError,
        match=r"pixel_size_um_estimated of TENX1\.json gives 0\.5 .*"
        r"pixel_size_um_estimated of HEST_v1_1_0\.csv gives 0\.2125",
    ):
        read_hest(hest, "TENX1", metadata=table)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["TENX2", "TENX3"]}, r"has 0 rows with the id 'TENX1', 1 is needed; .*TENX2"),
        ({"id": ["TENX1", "TENX1"]}, r"has 2 rows with the id 'TENX1', 1 is needed"),
        ({"sample": ["TENX1"]}, r"is not HEST's table: it has no column 'id'"),
    ],
)
def test_a_table_without_the_sample_is_refused(columns, message, hest):
    table = hest / "table.csv"
    pd.DataFrame(columns).to_csv(table, index=False)
    with pytest.raises(ValueError, match=message):
        read_hest(hest, "TENX1", metadata=table)


def test_the_lattice_of_visium_contradicts_a_wrong_pixel_size(hest, fine):
    wrong = FACTS | {"pixel_size_um_estimated": 0.2125}
    write_sample(hest, "TENX2", *fine, wrong, tagged_um=0.2125)
    with pytest.raises(
        ValueError,
        match=r"pixel_size_um_estimated of TENX2\.json gives 0\.2125 .*the spot lattice gives 0\.5",
    ):
        read_hest(hest, "TENX2")


def test_the_tag_of_the_slide_contradicts_a_wrong_pixel_size(hest, squares):
    facts = FACTS | {"st_technology": "Xenium", "pixel_size_um_estimated": 0.2125}
    write_sample(hest, "TENX114", *squares, facts, tagged_um=0.1369)
    with pytest.raises(
        ValueError,
        match=r"TENX114\.json gives 0\.2125 .*the file's metadata gives 0\.1369",
    ):
        read_hest(hest, "TENX114")


def test_squares_of_xenium_tell_no_scale(hest, squares):
    """HEST pools transcripts in squares of 100 µm, in two samples in others (HEST issue 122)."""
    facts = FACTS | {"st_technology": "Xenium", "inter_spot_dist": None, "spot_diameter": None}
    write_sample(hest, "NCBI784", *squares, facts)
    sdata = read_hest(hest, "NCBI784")
    assert um_of(sdata["NCBI784"]) == UM_PER_PX
    assert sdata["table"].obs["technology"].unique().tolist() == ["Xenium"]


def test_squares_of_visium_hd_have_no_spots_of_2_um(hest, squares):
    """HEST's table gives 2 µm for Visium HD, though its h5ad has larger squares."""
    facts = FACTS | {"st_technology": "Visium HD", "inter_spot_dist": 2, "spot_diameter": 2}
    write_sample(hest, "TENX156", *squares, facts)
    sdata = read_hest(hest, "TENX156")
    assert um_of(sdata["TENX156"]) == UM_PER_PX
    assert sdata["TENX156"]["radius"].min() == 55 / UM_PER_PX / 2


@pytest.mark.parametrize(("pitch_um", "is_right"), [(200.0, True), (150.0, False)])
def test_spatial_transcriptomics_is_compared_with_the_distance_of_its_spots(
    pitch_um, is_right, hest, fine
):
    adata, image = fine
    row, col = np.divmod(np.arange(25), 5)
    adata = adata[:25].copy()
    adata.obs["array_row"] = row
    adata.obs["array_col"] = col
    adata.obsm["spatial"] = np.column_stack([col, row]) * 200.0 / UM_PER_PX + 150
    facts = FACTS | {
        "st_technology": "Spatial Transcriptomics",
        "inter_spot_dist": pitch_um,
        "spot_diameter": 100.0,
    }
    write_sample(hest, "SPA1", adata, image, facts)
    if is_right:
        sdata = read_hest(hest, "SPA1")
        assert um_of(sdata["SPA1"]) == UM_PER_PX
        assert sdata["SPA1"]["radius"].min() == 100 / UM_PER_PX / 2
    else:
        with pytest.raises(ValueError, match=r"the spot lattice gives 0\.375"):
            read_hest(hest, "SPA1")


def test_a_sample_without_a_lattice(hest, fine):
    adata, image = fine
    adata.obs = adata.obs[[]]
    write_sample(hest, "MISC1", adata, image, FACTS, tagged_um=None)
    assert um_of(read_hest(hest, "MISC1")["MISC1"]) == UM_PER_PX


def test_a_sample_without_any_scale_is_refused(hest, fine):
    adata, image = fine
    adata.obs = adata.obs[[]]
    facts = FACTS | {"pixel_size_um_estimated": None}
    write_sample(hest, "MISC2", adata, image, facts, tagged_um=None)
    with pytest.raises(ValueError, match="no physical scale: pass um_per_px="):
        read_hest(hest, "MISC2")
    assert um_of(read_hest(hest, "MISC2", um_per_px=0.52)["MISC2"]) == 0.52


def test_missing_files_are_one_error_that_says_how_to_download_them(hest):
    (hest / "wsis" / "TENX1.tif").unlink()
    (hest / "metadata" / "TENX1.json").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        read_hest(hest, "TENX1")
    message = str(caught.value)
    assert str(hest / "wsis" / "TENX1.tif") in message
    assert str(hest / "metadata" / "TENX1.json") in message
    assert str(hest / "st" / "TENX1.h5ad") not in message
    assert "huggingface_hub.snapshot_download('MahmoodLab/hest', repo_type='dataset'" in message
    assert "allow_patterns=['st/TENX1.h5ad', 'wsis/TENX1.tif', 'metadata/TENX1.json']" in message


def test_an_unknown_sample_lists_those_that_are_there(hest):
    with pytest.raises(FileNotFoundError, match=r"'TENX9' is incomplete.*st has TENX1\."):
        read_hest(hest, "TENX9")


def test_a_missing_table_is_named(hest):
    with pytest.raises(FileNotFoundError, match=r"missing: .*nothing\.csv"):
        read_hest(hest, "TENX1", metadata=hest / "nothing.csv")


def test_metadata_of_another_sample_are_refused(hest):
    rewrite_facts(hest, "TENX1", id="TENX2")
    with pytest.raises(ValueError, match=r"describes the sample 'TENX2', not 'TENX1'"):
        read_hest(hest, "TENX1")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"id": "TENX1"', "is no JSON file .* download it again"), ("[]", "holds a list, not")],
)
def test_broken_metadata_are_named(text, message, hest):
    (hest / "metadata" / "TENX1.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_hest(hest, "TENX1")


def test_a_pixel_size_that_is_no_number_is_named(hest):
    rewrite_facts(hest, "TENX1", pixel_size_um_estimated="0,5")
    with pytest.raises(ValueError, match=r"pixel_size_um_estimated .* is '0,5', which is no"):
        read_hest(hest, "TENX1")


def test_a_smaller_copy_of_the_slide_is_noticed(hest, fine):
    _, image = fine
    height, width = image.shape[:2]
    write_pyramid(hest / "wsis" / "TENX1.tif", image[: height * 9 // 10])
    with pytest.warns(UserWarning, match=rf"HEST's metadata give {width} x {height}: is it a sma"):
        read_hest(hest, "TENX1")
