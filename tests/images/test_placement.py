"""Whether the spots lie on the image, and whether it is the image that Space Ranger read."""

import warnings

import anndata
import numpy as np
import pytest

from stp import pl
from stp.images.placement import check_image_size, check_spots_on_image, share_on_image
from stp.images.slides import find_slides
from stp.io import from_anndata, write_store
from stp.tl import embed_images


@pytest.fixture
def wide(adata, image):
    """Spots on a rectangular image: at the right, x is larger than the height of the image."""
    adata.obsm["spatial"] = adata.obsm["spatial"] + [3000, 0]
    picture = np.pad(image, ((0, 0), (3000, 0), (0, 0)), constant_values=255)
    return adata, picture


def scalefactors(adata, **factors):
    adata.uns["spatial"] = {"lib": {"scalefactors": factors}}


def move_off_the_image(adata, image, n_spots):
    adata.obsm["spatial"] = adata.obsm["spatial"].copy()
    adata.obsm["spatial"][:n_spots, 0] += image.shape[1]


def test_spots_that_lie_on_their_image_are_accepted_in_silence(adata, image):
    scalefactors(adata, tissue_hires_scalef=0.1, tissue_lowres_scalef=0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sdata = from_anndata(adata, image)
        (slide,) = find_slides(sdata, sdata["table"])
    assert slide.pyramid.um_per_px == pytest.approx(1.0)


@pytest.mark.parametrize("n_outside", [51, 100])
def test_an_image_with_less_than_half_of_the_spots_is_refused(adata, image, n_outside):
    move_off_the_image(adata, image, n_outside)
    with pytest.raises(
        ValueError, match=f"only {100 - n_outside}% of 100 spot centers lie on the image.*another "
    ):
        from_anndata(adata, image, um_per_px=1.0)


@pytest.mark.parametrize("n_outside", [6, 30, 50])
def test_an_image_with_less_than_all_spots_is_used_with_a_warning(adata, image, n_outside):
    move_off_the_image(adata, image, n_outside)
    message = f"only {100 - n_outside}% of 100 spot centers lie on the image"
    with pytest.warns(UserWarning, match=message):
        from_anndata(adata, image, um_per_px=1.0)


def test_swapped_coordinates_on_a_rectangular_image_are_named(wide):
    adata, picture = wide
    from_anndata(adata, picture)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1]
    with pytest.raises(
        ValueError, match=r"only 0% .* with x and y swapped, 100% of them would: swap"
    ):
        from_anndata(adata, picture)


@pytest.mark.parametrize("factor", [0.25, 0.1])
def test_a_reduced_picture_is_named_with_its_factor(adata, image, factor):
    full = adata.obsm["spatial"] / factor  # image is the reduced picture
    adata.obsm["spatial"] = full
    scalefactors(adata, tissue_lowres_scalef=0.003, tissue_hires_scalef=factor)
    with pytest.raises(ValueError, match=rf"coordinates times tissue_hires_scalef \({factor}\)"):
        from_anndata(adata, image)


def test_other_factors_than_those_of_pictures_explain_nothing(adata, image):
    adata.obsm["spatial"] = adata.obsm["spatial"] * 4
    scalefactors(adata, microns_per_pixel=0.25, spot_diameter_fullres=260.0)
    with pytest.raises(ValueError, match=r"lie on the image .* likely causes"):
        from_anndata(adata, image, um_per_px=0.25)


def test_centers_in_pixels_of_the_reduced_picture_are_named(adata, image):
    full = image.repeat(4, axis=0).repeat(4, axis=1)  # all centers lie in its upper left corner
    scalefactors(adata, tissue_hires_scalef=0.25)
    with pytest.warns(UserWarning, match=r"corner of the image; divided by tissue_hires_scalef"):
        from_anndata(adata, full)
    adata.obsm["spatial"] = adata.obsm["spatial"] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_anndata(adata, full)


def test_spots_without_a_place_do_not_count():
    pixels = np.array([[1.0, 1.0], [np.nan, 1.0], [5.0, 5.0]])
    assert share_on_image(pixels, (10, 10)) == 1.0
    assert share_on_image(pixels[1:2], (10, 10)) == 1.0
    assert share_on_image(pixels[:0], (10, 10)) == 1.0
    check_spots_on_image(pixels[1:2], (10, 10), "it", {"tissue_hires_scalef": 0.1})


@pytest.fixture
def other_image(sdata, image):
    """A slide whose image was replaced by one that shows little of it."""
    part = from_anndata(sdata["table"][:5].copy(), image[:200], um_per_px=1.0)
    sdata.images["slide_full_image"] = part["slide_full_image"]
    return sdata


MESSAGE = "spot centers lie on image 'slide_full_image'"


def test_each_verb_that_needs_the_image_checks_it(other_image, stamp, tmp_path):
    with pytest.raises(ValueError, match=MESSAGE):
        embed_images(other_image, stamp)
    with pytest.raises(ValueError, match=MESSAGE):
        write_store(other_image, tmp_path / "a.zarr", patch_um_per_px=4.0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=MESSAGE):
        pl.spots(other_image, "array_row")
    with pytest.raises(ValueError, match=MESSAGE):
        pl.patches(other_image)


@pytest.mark.parametrize("section", [f"C{i}" for i in range(2, 7)])
def test_real_sections_lie_on_their_image_and_not_on_a_part_of_it(section, real):
    adata = anndata.read_h5ad(real("her2st", f"{section}.h5ad"))
    picture = real("her2st", f"{section}.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sdata = from_anndata(adata, picture, um_per_px=float(adata.uns["um_per_px"]))
        (slide,) = find_slides(sdata, sdata["table"])
    height, width = slide.pyramid.levels[0].shape
    quarter = np.zeros((height // 4, width // 4, 3), np.uint8)
    scalefactors(adata, tissue_hires_scalef=0.25)
    with pytest.raises(ValueError, match=r"tissue_hires_scalef \(0\.25\), 100% of them would"):
        from_anndata(adata, quarter, um_per_px=float(adata.uns["um_per_px"]))


@pytest.mark.parametrize("shape", [(3000, 4000), (2971, 4039)])
def test_the_right_image_has_the_size_of_the_hires_picture_over_its_factor(shape):
    check_image_size(shape, (3000.0, 4000.0), "slide.tif")


@pytest.mark.parametrize(
    ("shape", "explanation"),
    [
        ((1500, 2000), r"it is a reduced copy with 0\.5 times the pixels along each side"),
        ((6000, 8000), r"it is an enlarged copy with 2 times the pixels along each side"),
        ((4000, 3000), r"it is turned by 90 degrees"),
        ((1000, 750), r"it is a reduced copy with 0\.25 times the pixels .*, turned by 90 degrees"),
        ((3000, 4100), r"it is another image"),
        ((2800, 2800), r"it is another image"),
    ],
    ids=["reduced", "enlarged", "turned", "reduced and turned", "wider", "square"],
)
def test_another_image_is_refused_with_what_it_is(shape, explanation):
    height, width = shape
    with pytest.raises(
        ValueError,
        match=rf"slide\.tif has {width} x {height} px, .* give 4000 x 3000 px: {explanation}",
    ):
        check_image_size(shape, (3000.0, 4000.0), "slide.tif")
