import anndata
import numpy as np
import pytest
from tests.slides import add_prediction, make_slide

from stp import pl
from stp.images.regions import check_one_slide, list_libraries
from stp.images.slides import find_slides, only_slide
from stp.io import from_anndata, write_store

LIBRARY = {"scalefactors": {"spot_diameter_fullres": 65.0}}
OTHER = (40.0, 25.0)  # between the spots of the first slide


def concatenate(**more):
    """Two slides in one table, the second a little to the right, with libraries A and B."""
    slides = {"A": make_slide(0)[0], "B": make_slide(1)[0]}
    slides["B"].obsm["spatial"] += OTHER
    both = anndata.concat(slides, label="library_id", index_unique="-")
    both.uns["spatial"] = {"A": LIBRARY, "B": LIBRARY, **more}
    return both


@pytest.fixture
def both():
    return concatenate()


@pytest.fixture
def without_lattice(both):
    del both.obs["array_row"], both.obs["array_col"]
    return both


def test_several_libraries_are_several_slides(without_lattice):
    message = r"one slide is needed, but the table covers the libraries \['A', 'B'\] of uns.*"
    remedy = r"from_anndata\(adata, images, library_key='library_id'\)"
    with pytest.raises(ValueError, match=message + remedy):
        check_one_slide(without_lattice)


def test_a_library_that_does_not_occur_is_no_slide(without_lattice):
    part = without_lattice[without_lattice.obs["library_id"] == "B"]
    assert list_libraries(part) == (["B"], "library_id")
    check_one_slide(part, part.obsm["spatial"])


def test_libraries_that_no_column_names_are_several_slides(without_lattice):
    del without_lattice.obs["library_id"]
    with pytest.raises(ValueError, match=r"\['A', 'B'\].*keep only its own library in uns"):
        check_one_slide(without_lattice)
    del without_lattice.uns["spatial"]["B"]
    check_one_slide(without_lattice)


def test_a_flag_and_an_image_are_no_library(without_lattice):
    part = without_lattice[:100].copy()
    del part.obs["library_id"]
    part.uns["spatial"] = {"is_single": True, "A": LIBRARY}
    assert list_libraries(part) == (["A"], "")
    part.uns["spatial"] = {"images": {"hires": np.zeros((2, 2, 3))}, "scalefactors": {"a": 1.0}}
    assert list_libraries(part) == ([], "")
    check_one_slide(part)


def test_libraries_are_recognized_under_the_names_that_spatialdata_stores(without_lattice):
    without_lattice.uns["spatial"] = {"Slide 1": LIBRARY, "Slide 2": LIBRARY}
    without_lattice.obs["library_id"] = "Slide_2"
    assert list_libraries(without_lattice) == (["Slide 2"], "library_id")


def test_two_spots_at_one_lattice_position_are_of_two_slides(both):
    del both.uns["spatial"]
    both.obs["in_tissue"] = [1] * 100 + [0] * 100
    both = both[np.random.default_rng(0).permutation(200)].copy()
    with pytest.raises(ValueError, match=r"spots spot\d+-. and spot\d+-. share the lattice posi"):
        check_one_slide(both)


def test_two_spots_at_one_place_are_of_two_slides(without_lattice):
    del without_lattice.uns["spatial"]
    centers = without_lattice.obsm["spatial"]
    check_one_slide(without_lattice, centers)
    centers[[7, 150]] = centers[3]
    with pytest.raises(
        ValueError, match=r"spots spot3-A and spot7-A share the coordinates \(500, 200\)"
    ):
        check_one_slide(without_lattice, centers)
    centers[[3, 7, 150]] = np.nan
    check_one_slide(without_lattice, centers)


@pytest.mark.parametrize("kind", ["libraries", "lattice", "coordinates"])
def test_all_that_needs_one_slide_refuses_several(kind, image, tmp_path):
    both = concatenate()
    if kind != "libraries":
        del both.uns["spatial"]
    if kind != "lattice":
        del both.obs["array_row"], both.obs["array_col"]
    if kind == "coordinates":
        both.obsm["spatial"][100:] -= OTHER
    add_prediction(both)
    calls = [
        lambda: from_anndata(both, image, um_per_px=1.0),
        lambda: write_store(both, tmp_path / "a.zarr"),
        lambda: pl.neighborhoods(both),
        lambda: pl.expression(both, ["EPCAM"]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="one slide is needed, but"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_region_with_two_slides_is_refused(both, image, tmp_path):
    rows = both[:100].copy()
    sdata = from_anndata(rows, image, um_per_px=1.0)
    table = sdata["table"]
    table.obs["array_row"] = 1
    for call in (
        lambda: find_slides(sdata, table),
        lambda: only_slide(sdata, table),
        lambda: pl.spots(sdata, "array_col"),
        lambda: write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=4.0),
    ):
        with pytest.raises(ValueError, match="share the lattice position"):
            call()
