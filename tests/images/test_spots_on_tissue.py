"""Spots that show glass although they lie on the image: swapped coordinates, another image."""

import warnings

import anndata
import numpy as np
import pytest

from stp import io, tl
from stp.models import ImageEncoder, ImageEncoderConfig

GLASS = (244, 243, 245)
TISSUE = (180, 90, 160)
SIDE = 1200  # pixels of 1 µm


@pytest.fixture(scope="module")
def encoder():
    return ImageEncoder(
        ImageEncoderConfig("vit_tiny_patch16_224", {"depth": 1}, image_size=32, um_per_px=3.5)
    ).eval()


def picture(tissue):
    """Draw tissue (left, top, right, bottom) on glass."""
    pixels = np.full((SIDE, SIDE, 3), GLASS, np.uint8)
    left, top, right, bottom = tissue
    pixels[top:bottom, left:right] = TISSUE
    return pixels


def slide_of(centers, pixels, **columns):
    centers = np.array(centers, float)
    counts = np.ones((len(centers), 0), np.float32)
    adata = anndata.AnnData(counts, obsm={"spatial": centers})
    for name, values in columns.items():
        adata.obs[name] = values
    return io.from_anndata(adata, pixels, um_per_px=1.0, name="mine")


def grid(left, top, right, bottom):
    x, y = np.meshgrid(np.arange(left, right, 60), np.arange(top, bottom, 60))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def warnings_of(slide, encoder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tl.embed_images(slide, encoder)
    return [str(each.message) for each in caught if "stained tissue" in str(each.message)]


WIDE = (100, 300, 1100, 700)
SPOTS = grid(150, 350, 1100, 700)


def test_right_coordinates_give_no_warning(encoder):
    assert warnings_of(slide_of(SPOTS, picture(WIDE)), encoder) == []


def test_swapped_coordinates_on_the_image_are_named_with_both_shares(encoder):
    slide = slide_of(SPOTS[:, ::-1], picture(WIDE))
    x, y = SPOTS.T
    on_tissue = (y > 100) & (y < 1100) & (x > 300) & (x < 700)
    (message,) = warnings_of(slide, encoder)
    assert f"only {on_tissue.mean():.0%} of the spots of mine show stained tissue" in message
    assert "with x and y swapped, 100% would" in message


def test_spots_on_the_glass_of_another_image_are_warned_of(encoder):
    (message,) = warnings_of(slide_of(SPOTS, picture((500, 0, 700, 200))), encoder)
    assert "only 0% of the spots of mine show stained tissue" in message
    assert "the image is that of another slide" in message


def test_a_few_spots_on_glass_are_usual(encoder):
    spots = np.concatenate([SPOTS, grid(150, 800, 1100, 860)])
    assert 0.8 < len(SPOTS) / len(spots) < 0.9
    assert warnings_of(slide_of(spots, picture(WIDE)), encoder) == []


@pytest.mark.parametrize("values", [(1, 0), (True, False), ("1", "0")])
def test_spots_outside_the_tissue_do_not_count(values, encoder):
    outside = grid(150, 800, 1150, 1150)
    spots = np.concatenate([SPOTS, outside, outside + 20])
    inside, other = values
    column = [inside] * len(SPOTS) + [other] * 2 * len(outside)
    assert len(warnings_of(slide_of(spots, picture(WIDE)), encoder)) == 1
    assert warnings_of(slide_of(spots, picture(WIDE), in_tissue=column), encoder) == []


@pytest.mark.parametrize("section", ["rep04", "rep09", "rep11"])
def test_swapped_coordinates_of_a_real_section(section, real, encoder):
    adata = anndata.read_h5ad(real("mob_st", f"mob_{section}.h5ad"))
    image = real("mob_st", f"mob_{section}.jpg")
    um_per_px = adata.uns["um_per_px"]
    assert warnings_of(io.from_anndata(adata, image, um_per_px=um_per_px), encoder) == []
    adata.obsm["spatial"] = np.asarray(adata.obsm["spatial"])[:, ::-1].copy()
    slide = io.from_anndata(adata, image, um_per_px=um_per_px)
    (message,) = warnings_of(slide, encoder)
    assert "with x and y swapped, 9" in message or "with x and y swapped, 100%" in message


def test_write_store_warns_too(real, tmp_path):
    adata = anndata.read_h5ad(real("her2st", "C2.h5ad"))
    adata.obsm["spatial"] = np.asarray(adata.obsm["spatial"])[:, ::-1].copy()
    slide = io.from_anndata(adata, real("her2st", "C2.jpg"), um_per_px=adata.uns["um_per_px"])
    with pytest.warns(UserWarning, match="with x and y swapped, 100% would"):
        io.write_store(slide, tmp_path / "C2.zarr", patch_um_per_px=2.0)
