"""Spots and images."""

import shutil

import numpy as np
import spatialdata
import tifffile
from tests.bad_input.case import refused
from tests.bad_input.given import slide

import stp


@refused(TypeError, "images are needed: pass a SpatialData")
def images_are_wanted_of_an_AnnData(adata, model):
    """An AnnData has no full-resolution image.

    Join it with its image: {func}`stp.io.from_anndata`.
    """
    stp.tl.embed_images(adata, model)


@refused(KeyError, "no table 'cells'.*pass table_key= one of")
def the_table_has_another_name(sdata, vocabulary):
    """Readers name tables differently; those of Visium HD have one for each size of bins.

    Pass one of those that the message lists.
    """
    stp.tl.tokenize(sdata, vocabulary, table_key="cells")


@refused(ValueError, "several images fit the spots; pass image_key=")
def several_images_fit(sdata, model):
    """The spots lie in the coordinate systems of more than one RGB image, equally fine.

    Pass the one that is the H&E image.
    """
    sdata.images["copy"] = sdata.images["slide_full_image"]
    stp.tl.embed_images(sdata, model)


@refused(ValueError, "the image has 4 µm per pixel, patches of 0.5 are wanted")
def the_image_is_too_coarse(sdata):
    """Finer pixels are wanted than the image has: often it is `tissue_hires_image.png`, 2,000 px wide, not the slide.

    Give the full-resolution slide ([](howto/slide-image.md)); or train with coarser patches, `patch_um_per_px=` here;
    or, knowing that details are missing, pass `allow_upsampling=True` to {func}`stp.tl.embed_images`.
    """
    stp.io.write_store(sdata, "stores/slide.zarr", patch_um_per_px=0.5)


@refused(
    ValueError,
    "the image has no pixels where spots are: its chunk at .* is missing; write the image again",
)
def a_chunk_of_the_image_is_missing(sdata, model):
    """A copy of the store ended early. Or the slide is black there, outside what was scanned: zarr does not write
    chunks that are black.

    Copy or write the store again; where the slide is black, leave the spots out that lie on it.
    """
    sdata.write("slide.zarr")
    shutil.rmtree("slide.zarr/images/slide_full_image/s0/c")
    stp.tl.embed_images(spatialdata.read_zarr("slide.zarr"), model)


@refused(ValueError, "the table has no genes.*embed_images")
def a_store_of_tiles_without_counts():
    """Training needs counts, and the tiles of a whole-slide image have none.

    Embed them with a trained model: {func}`stp.tl.embed_images` takes the slide as it is.
    """
    picture = np.full((512, 512, 3), (200, 120, 180), dtype=np.uint8)
    tifffile.imwrite("slide.tif", picture, photometric="rgb")
    stp.io.write_store(
        stp.io.read_wsi("slide.tif", um_per_px=0.5, tile_um=112), "stores/slide.zarr"
    )


@refused(ValueError, "one slide is needed, the table covers")
def a_table_of_several_slides(sdata):
    """A store is one slide.

    Write a store for each: subset the table, and SpatialData's `subset` or a query the rest.
    """
    both = spatialdata.concatenate({"a": sdata, "b": slide("other")}, concatenate_tables=True)
    stp.io.write_store(both, "stores/both.zarr", patch_um_per_px=4)
