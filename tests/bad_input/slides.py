"""Reading slides."""

import os

import numpy as np
import tifffile
from tests.bad_input.case import refused

import stp


@refused(FileNotFoundError, r"no image at slide\.tif")
def the_image_does_not_exist(adata):
    """There is no file at this path. A relative path starts at the working directory.

    Pass the path of the full-resolution TIFF, SVS, JPEG or PNG.
    """
    stp.io.from_anndata(adata, "slide.tif", um_per_px=0.5)


@refused(ValueError, "is a URL; download the image")
def the_image_is_a_URL(adata):
    """Patches are read in thousands of small pieces. This needs a file on disk.

    Download the image and pass its path.
    """
    stp.io.from_anndata(adata, "https://example.org/slide.tif")


@refused(ValueError, "expected 8 bits per channel, got uint16; convert the image to uint8")
def the_image_has_16_bits(adata):
    """H&E models read 8 bits per channel. A fluorescence image has no H&E colors.

    Scale the values of an H&E image to 0 to 255 and convert them to uint8.
    """
    picture = np.zeros((700, 700, 3), dtype=np.uint16)
    stp.io.from_anndata(adata, picture, um_per_px=4)


@refused(ValueError, "expected an RGB image")
def the_image_has_one_channel(adata):
    """The image is grayscale, or one channel of several.

    Pass the RGB image, as (y, x, 3) or (3, y, x).
    """
    picture = np.zeros((700, 700), dtype=np.uint8)
    stp.io.from_anndata(adata, picture, um_per_px=4)


@refused(ValueError, "is the file complete")
def the_image_is_incomplete():
    """The file was not downloaded or copied completely.

    Download it again, and compare its size or checksum with the source.
    """
    tifffile.imwrite("slide.tif", np.zeros((512, 512, 3), dtype=np.uint8), photometric="rgb")
    os.truncate("slide.tif", 100_000)
    stp.io.read_wsi("slide.tif", um_per_px=0.5)


@refused(ValueError, "no physical scale: pass um_per_px=")
def the_physical_scale_is_unknown(adata):
    """The size of a pixel follows neither from the file, nor from scale factors, nor from the
    lattice of Visium spots.

    Pass `um_per_px=`. A scan at 20x has about 0.5 µm per pixel, one at 40x about 0.25. See
    [](howto/physical-scale.md).
    """
    del adata.obs["array_row"], adata.uns["spatial"]
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(ValueError, "no physical scale: .* a square grid.* pass spot_pitch_um=")
def a_square_grid_does_not_give_its_pitch(adata):
    """Spatial Transcriptomics, DBiT-seq and squares of pooled bins have the same rows and columns,
    but their spots are 200, 20 to 50, or any number of µm apart.

    Pass the distance between neighboring spots as `spot_pitch_um=`, or pass `um_per_px=`.
    """
    del adata.uns["spatial"]
    adata.obs["array_row"] = np.arange(35) // 6
    adata.obs["array_col"] = np.arange(35) % 6
    adata.obsm["spatial"] = 50.0 * adata.obs[["array_col", "array_row"]].to_numpy()
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(ValueError, "spot_pitch_um=200 needs array_row and array_col in obs")
def a_pitch_without_a_lattice(adata):
    """`spot_pitch_um` is the distance between neighbors on a lattice. The table has no `array_row`
    and `array_col`, or they do not fit the coordinates.

    Pass `um_per_px=`.
    """
    del adata.obs["array_row"]
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8), spot_pitch_um=200)


@refused(ValueError, "sources of the physical scale contradict each other")
def two_sources_give_different_scales(adata):
    """The file, the scale factors and the lattice of spots differ by more than 5 %. Often the image
    is a smaller copy of the one on which the spots were placed, or an image editor wrote a wrong
    resolution tag.

    Pass the image that Space Ranger read, or the right scale as `um_per_px=`: it wins, and a
    warning names the others. See [](howto/physical-scale.md).
    """
    adata.uns["spatial"] = {"slide": {"scalefactors": {"microns_per_pixel": 0.5}}}
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(
    ValueError,
    "only 0% of 35 spot centers lie on the image.*scalef.*a reduced picture",
)
def the_image_is_a_reduced_picture(adata):
    """The image is a hires or lowres picture of Space Ranger, and the spot centers are in pixels of
    the full-resolution image.

    Pass the full-resolution image ([](howto/slide-image.md)).
    """
    scalefactors = {"tissue_hires_scalef": 0.1}
    adata.uns["spatial"] = {"slide": {"scalefactors": scalefactors}}
    adata.obsm["spatial"] = 10 * adata.obsm["spatial"]
    stp.io.from_anndata(adata, np.zeros((190, 190, 3), dtype=np.uint8), um_per_px=0.4)


@refused(ValueError, "only 0% of 35 spot centers lie on the image.*with x and y swapped")
def x_and_y_are_swapped(adata):
    """The coordinates are rows and columns of the image. `obsm["spatial"]` holds x, which grows to
    the right, and then y, which grows downwards.

    Swap the two columns.
    """
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1] + [0, 1000]
    stp.io.from_anndata(adata, np.zeros((700, 1700, 3), dtype=np.uint8), um_per_px=4)


@refused(KeyError, r"obsm\['spatial'\] is missing")
def the_table_has_no_coordinates(adata):
    """The counts were read without the positions of the spots.

    Read the whole Space Ranger folder ({func}`stp.io.read_visium`). Or pass `spatial_key=`, the key
    of the pixels (x, y) of the full-resolution image.
    """
    del adata.obsm["spatial"]
    stp.io.from_anndata(adata, np.zeros((700, 700, 3), dtype=np.uint8))


@refused(FileNotFoundError, "no Space Ranger folder")
def the_Space_Ranger_folder_does_not_exist():
    """There is no folder at this path.

    Pass the folder `outs`, which contains `spatial` and the count matrix.
    """
    stp.io.read_visium("sample/outs", image="slide.tif")


@refused(ValueError, "no tile of 112 µm is 50% tissue")
def a_slide_without_tissue():
    """All tiles are glass. The scan is pale or gray, or its scale is wrong and a tile covers the
    whole slide.

    Check `um_per_px` and look at the image. Lower `min_tissue` if the stain is weak.
    """
    tifffile.imwrite("slide.tif", np.full((1024, 1024, 3), 240, dtype=np.uint8), photometric="rgb")
    stp.io.read_wsi("slide.tif", um_per_px=0.5, tile_um=112)
