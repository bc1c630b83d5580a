"""Reading slides."""

import os

import numpy as np
import tifffile
from tests.bad_input.case import refused

import stp


@refused(FileNotFoundError, r"no image at slide\.tif")
def the_image_is_not_there(adata):
    """The path leads nowhere; a relative one is taken from where Python runs.

    Give the path of the full-resolution TIFF, SVS, JPEG or PNG.
    """
    stp.io.from_anndata(adata, "slide.tif", um_per_px=0.5)


@refused(ValueError, "is a URL; download the image")
def the_image_is_a_URL(adata):
    """Patches are read in thousands of small pieces, which takes a file on disk.

    Download the image and give its path.
    """
    stp.io.from_anndata(adata, "https://example.org/slide.tif")


@refused(ValueError, "expected 8 bits per channel, got uint16; convert the image to uint8")
def the_image_has_16_bits(adata):
    """H&E models are made for 8 bits per channel; a fluorescence image has no such colors at all.

    Of an H&E image scale the values to 0 to 255 and convert them to uint8.
    """
    picture = np.zeros((700, 700, 3), dtype=np.uint16)
    stp.io.from_anndata(adata, picture, um_per_px=4)


@refused(ValueError, "expected an RGB image")
def the_image_has_one_channel(adata):
    """It is grayscale, or one channel of many.

    Give the RGB image, as (y, x, 3) or (3, y, x).
    """
    picture = np.zeros((700, 700), dtype=np.uint8)
    stp.io.from_anndata(adata, picture, um_per_px=4)


@refused(ValueError, "is the file complete")
def the_image_was_cut_off():
    """A download or a copy of the file ended early.

    Fetch it again, and compare size or checksum with those of the source.
    """
    tifffile.imwrite("slide.tif", np.zeros((512, 512, 3), dtype=np.uint8), photometric="rgb")
    os.truncate("slide.tif", 100_000)
    stp.io.read_wsi("slide.tif", um_per_px=0.5)


@refused(ValueError, "no physical scale: pass um_per_px=")
def the_physical_scale_is_unknown(adata):
    """Neither the file, nor scale factors, nor a lattice of Visium spots tells how large a pixel is.

    Pass `um_per_px=`: a scan at 20x has about 0.5 um per pixel, one at 40x about 0.25. See [](howto/physical-scale.md).
    """
    del adata.obs["array_row"], adata.uns["spatial"]
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(ValueError, "sources of the physical scale contradict each other")
def two_sources_give_different_scales(adata):
    """What was passed, the file, the scale factors and the lattice of spots differ by more than 5 %. Mostly the image
    is not the one that the spots were placed on, but a smaller copy.

    Give the image that was given to Space Ranger; or remove the source that is wrong, such as a resolution tag that an
    editor wrote into the file.
    """
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8), um_per_px=0.5)


@refused(KeyError, r"obsm\['spatial'\] is missing")
def the_table_has_no_coordinates(adata):
    """The counts were read without the positions of their spots.

    Read the whole Space Ranger folder ({func}`stp.io.read_visium`), or name the key that holds pixels (x, y) of the
    full-resolution image: `spatial_key=`.
    """
    del adata.obsm["spatial"]
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(FileNotFoundError, "no Space Ranger folder")
def the_Space_Ranger_folder_is_not_there():
    """The path leads nowhere.

    Give the folder `outs`, which holds `spatial` and the count matrix.
    """
    stp.io.read_visium("sample/outs", image="slide.tif")


@refused(ValueError, "no tile of 112 µm is 50% tissue")
def a_slide_without_tissue():
    """All tiles are glass: the scan is pale or gray, or its scale is wrong, so that a tile covers the whole slide.

    Check `um_per_px`, look at the image, and lower `min_tissue` where the stain is weak.
    """
    tifffile.imwrite("slide.tif", np.full((1024, 1024, 3), 240, dtype=np.uint8), photometric="rgb")
    stp.io.read_wsi("slide.tif", um_per_px=0.5, tile_um=112)
