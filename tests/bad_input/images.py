"""Spots and images."""

import shutil

import numpy as np
import spatialdata
import tifffile
from tests.bad_input.case import refused
from tests.bad_input.examples import slide

import stp


@refused(TypeError, "images are needed: pass a SpatialData")
def an_AnnData_has_no_image(adata, model):
    """An AnnData has no full-resolution image.

    Join the table and its image with {func}`stp.io.from_anndata`.
    """
    stp.tl.embed_images(adata, model)


@refused(KeyError, "no table 'cells'.*pass table_key= one of")
def the_table_has_another_name(sdata, vocabulary):
    """Readers name tables differently. Visium HD has a table for each bin size.

    Pass one of the names that the message lists.
    """
    stp.tl.tokenize(sdata, vocabulary, table_key="cells")


@refused(ValueError, "several images fit the spots; pass image_key=")
def several_images_fit(sdata, model):
    """The spots share a coordinate system with several RGB images of the same resolution.

    Pass the name of the H&E image.
    """
    sdata.images["copy"] = sdata.images["slide_full_image"]
    stp.tl.embed_images(sdata, model)


@refused(ValueError, "image 'stains' has the channels DAPI, CD3, CD8, not red, green and blue")
def the_channels_are_no_colors(sdata, model):
    """The image is fluorescence: its channels are stains, not red, green and blue.

    Pass the name of the H&E image. If the channels are the colors of an H&E image under other
    names, name them `r`, `g` and `b` ({func}`spatialdata.models.set_channel_names`).
    """
    image = sdata.images["slide_full_image"]
    sdata.images["stains"] = image.assign_coords(c=["DAPI", "CD3", "CD8"])
    stp.tl.embed_images(sdata, model, image_key="stains")


@refused(ValueError, "the image has 4 µm per pixel, patches of 0.5 are wanted")
def the_image_is_too_coarse(sdata):
    """The image has larger pixels than the patches. Often it is `tissue_hires_image.png`, which is
    2,000 pixels wide, and not the slide.

    Pass the full-resolution slide ([](howto/slide-image.md)), or train with coarser patches
    (`patch_um_per_px=`). If missing details are acceptable, pass `allow_upsampling=True` to
    {func}`stp.tl.embed_images`.
    """
    stp.io.write_store(sdata, "stores/slide.zarr", patch_um_per_px=0.5)


@refused(
    ValueError,
    "the image has no pixels where spots are: its chunk at .* is missing; write the image again",
)
def a_chunk_of_the_image_is_missing(sdata, model):
    """The store was not copied completely. Or the slide is black there because nothing was scanned:
    zarr does not write black chunks.

    Copy or write the store again. If the slide is black there, remove the spots on the black area.
    """
    sdata.write("slide.zarr")
    shutil.rmtree("slide.zarr/images/slide_full_image/s0/c")
    stp.tl.embed_images(spatialdata.read_zarr("slide.zarr"), model)


@refused(ValueError, "the table has no genes.*embed_images")
def a_store_of_tiles_without_counts():
    """Training needs counts. The tiles of a whole-slide image have none.

    Embed the slide with a trained model: {func}`stp.tl.embed_images` needs no counts.
    """
    picture = np.full((512, 512, 3), (200, 120, 180), dtype=np.uint8)
    tifffile.imwrite("slide.tif", picture, photometric="rgb")
    stp.io.write_store(
        stp.io.read_wsi("slide.tif", um_per_px=0.5, tile_um=112), "stores/slide.zarr"
    )


@refused(ValueError, "one slide is needed, but the table covers the regions")
def a_table_of_several_slides(sdata):
    """A store has one slide.

    Write a store for each slide: subset the table, and the other elements with
    `SpatialData.subset`.
    """
    both = spatialdata.concatenate({"a": sdata, "b": slide("other")}, concatenate_tables=True)
    stp.io.write_store(both, "stores/both.zarr", patch_um_per_px=4)
