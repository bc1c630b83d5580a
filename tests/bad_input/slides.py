"""Reading slides."""

import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import shapely
import tifffile
from tests.bad_input.case import refused
from tests.slides import write_hest

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


@refused(ValueError, "the colors of slide.jpg are CMYK; convert the image to RGB")
def the_image_has_colors_for_print(adata):
    """The image was saved with the four colors of a printer. How they look depends on the paper.

    Convert it to RGB with the program that saved it, or export it anew from the slide.
    """
    PIL.Image.new("CMYK", (700, 700)).save("slide.jpg")
    stp.io.from_anndata(adata, "slide.jpg", um_per_px=4)


@refused(
    ValueError, r"is rotated or mirrored by its EXIF orientation \(6\).*save the image upright"
)
def the_image_is_rotated_by_a_tag(adata):
    """The file says that programs shall rotate the picture. Spots were measured either on the
    stored picture or on the rotated one, and the file does not say on which.

    Save the image as the spots were measured, without the tag.
    """
    tags = PIL.Image.Exif()
    tags[274] = 6
    PIL.Image.new("RGB", (700, 700)).save("slide.jpg", exif=tags)
    stp.io.from_anndata(adata, "slide.jpg", um_per_px=4)


@refused(ValueError, "is the file complete")
def the_image_is_incomplete():
    """The file was not downloaded or copied completely.

    Download it again, and compare its size or checksum with the source.
    """
    tifffile.imwrite("slide.tif", np.zeros((512, 512, 3), dtype=np.uint8), photometric="rgb")
    os.truncate("slide.tif", 100_000)
    stp.io.read_wsi("slide.tif", um_per_px=0.5)


@refused(ValueError, "is a Zeiss CZI file, which is no image that can be read; convert the slide")
def the_slide_has_a_format_that_is_not_read():
    """The file is a slide of a maker whose format is not read, whatever its name.

    Convert it as the message says, or give a format of [](howto/slide_files.md).
    """
    Path("slide.tif").write_bytes(b"ZISRAWFILE")
    stp.io.read_wsi("slide.tif")


@refused(ValueError, "is only the preview of a MIRAX slide: its pixels lie in the folder")
def the_folder_of_a_MIRAX_slide_is_missing():
    """A `.mrxs` file is a small picture. The pixels of the slide lie in the folder with its name.

    Copy the folder too.
    """
    PIL.Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save("slide.mrxs", format="JPEG")
    stp.io.read_wsi("slide.mrxs", um_per_px=0.25)


@refused(ValueError, "has 2 images of one size")
def it_is_not_clear_which_image_of_a_file_is_the_slide():
    """The file has several RGB images of the same size.

    Export the slide to a separate file.
    """
    pictures = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    tifffile.imwrite("slide.tif", pictures, photometric="rgb", metadata=None)
    stp.io.read_wsi("slide.tif", um_per_px=0.5)


@refused(ValueError, "has pixels that are not square")
def the_pixels_of_a_slide_are_not_square():
    """The tags of the file give different µm per pixel along x and y. Patches would be distorted.

    Resize the image so that both are equal, and correct its tags.
    """
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    sides = {"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite("slide.tif", picture, photometric="rgb", **sides)
    stp.io.read_wsi("slide.tif", um_per_px=0.25)


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
    adata.obs["array_row"] = np.arange(adata.n_obs) // 6
    adata.obs["array_col"] = np.arange(adata.n_obs) % 6
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


@refused(ValueError, "only 0% of 35 spot centers lie on the image.*tissue_hires_scalef.*reduced")
def the_image_is_a_reduced_picture(adata):
    """The image is a hires or lowres picture of Space Ranger, and the spot centers are in pixels of
    the full-resolution image.

    Pass the full-resolution image ([](howto/slide-image.md)).
    """
    scalefactors = {"tissue_hires_scalef": 0.1}
    adata.uns["spatial"] = {"slide": {"scalefactors": scalefactors}}
    adata.obsm["spatial"] = 1000 + 10 * adata.obsm["spatial"]
    stp.io.from_anndata(adata, np.zeros((300, 300, 3), dtype=np.uint8), um_per_px=0.4)


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


@refused(FileNotFoundError, "HEST sample 'TENX95' is incomplete, these files are missing")
def a_file_of_a_HEST_sample_is_missing():
    """A sample of HEST-1k is three files: `st/<id>.h5ad`, `wsis/<id>.tif` and
    `metadata/<id>.json`. The folder lacks one, or the id is wrong.

    Pass the folder that contains `st`, or download the sample with the call in the message. See
    [](howto/your-data.md).
    """
    stp.io.read_hest("hest", "TENX95")


@refused(ValueError, "contradict each other: pixel_size_um_estimated of TENX95.json gives 0.5")
def the_scale_of_a_HEST_sample_is_wrong(adata):
    """The scale in HEST's metadata differs by more than 5 % from the resolution tag of the slide,
    from the lattice of the spots, or from HEST's table.

    Look at the slide to see which one is right, and pass it as `um_per_px=`. Nuclei are 5 to 10 µm
    wide.
    """
    picture = np.zeros((700, 700, 3), dtype=np.uint8)
    facts = {"st_technology": "Visium", "pixel_size_um_estimated": 0.5}
    write_hest(Path("hest"), "TENX95", adata, picture, facts, tagged_um=4.0)
    stp.io.read_hest("hest", "TENX95")


@refused(ValueError, "no tile of 112 µm is 50% tissue")
def a_slide_without_tissue():
    """All tiles are glass. The scan is pale or gray, or its scale is wrong and a tile covers the
    whole slide.

    Check `um_per_px` and look at the image. Lower `min_tissue` if the stain is weak.
    """
    tifffile.imwrite("slide.tif", np.full((1024, 1024, 3), 240, dtype=np.uint8), photometric="rgb")
    stp.io.read_wsi("slide.tif", um_per_px=0.5, tile_um=112)


@refused(FileNotFoundError, r"lacks spatial/tissue_positions\.csv, spatial/scalefactors_json\.json")
def the_Space_Ranger_folder_is_incomplete():
    """Files of the folder were not downloaded, or were renamed to names that Space Ranger does not
    give. The message lists them.

    Download the named files. `stp` also finds compressed files and names with the prefix of a
    sample, as in GEO.
    """
    Path("sample/outs").mkdir(parents=True)
    Path("sample/outs/filtered_feature_bc_matrix.h5").touch()
    stp.io.read_visium("sample/outs", image="slide.tif")


@refused(ValueError, "files of several samples, with the prefixes GSM1_, GSM2_")
def the_Space_Ranger_folder_has_two_samples():
    """The files of several samples lie in one folder, as GEO gives them.

    Put the files of each sample into a folder, and read one folder at a time.
    """
    Path("samples").mkdir(parents=True)
    for sample in ("GSM1", "GSM2"):
        Path(f"samples/{sample}_filtered_feature_bc_matrix.h5").touch()
    stp.io.read_visium("samples")


@refused(ValueError, r"Visium HD; read it with stp\.io\.read_visium_hd")
def the_folder_is_one_of_Visium_HD():
    """Visium HD has bins of several sizes in place of spots.

    Read bins of one size with {func}`stp.io.read_visium_hd`.
    """
    Path("sample/outs/binned_outputs/square_008um").mkdir(parents=True)
    stp.io.read_visium("sample/outs")


@refused(ValueError, r"no bins of 4 µm; pass bin_um= one of \[8\]")
def the_bin_size_does_not_exist():
    """Space Ranger writes bins of 2, 8 and 16 µm, unless its settings say otherwise.

    Pass one of the sizes that the message lists.
    """
    Path("sample/outs/binned_outputs/square_008um").mkdir(parents=True)
    stp.io.read_visium_hd("sample/outs", bin_um=4)


@refused(FileNotFoundError, r"lacks experiment\.xenium")
def the_folder_is_not_one_of_Xenium():
    """The folder has no output of Xenium, or files of it are missing.

    Pass the folder that has `experiment.xenium` and the files that the message lists.
    """
    Path("sample").mkdir(parents=True)
    stp.io.read_xenium("sample")


@refused(ValueError, r"classes \['Necrosis', 'Tissue'\]; pass tissue_class=")
def the_annotations_of_tissue_have_several_classes():
    """The GeoJSON file has annotations of several classes, and not all of them need be tissue.

    Pass those that are tissue: `tissue_class="Tissue"`.
    """
    picture = np.full((1024, 1024, 3), (200, 120, 180), dtype=np.uint8)
    tifffile.imwrite("slide.tif", picture, photometric="rgb")
    ring = [[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": name}},
        }
        for name in ("Tissue", "Necrosis")
    ]
    Path("slide.geojson").write_text(json.dumps(features))
    stp.io.read_wsi("slide.tif", um_per_px=0.5, tile_um=112, tissue="slide.geojson")


@refused(ValueError, "of the area of the polygons of tissue= lies on the image of 1024 x 1024")
def the_polygons_of_tissue_lie_outside_the_image():
    """The polygons are in another unit, such as µm, or belong to another slide.

    Give coordinates in pixels of level 0, the full resolution, as QuPath writes them.
    """
    picture = np.full((1024, 1024, 3), (200, 120, 180), dtype=np.uint8)
    tifffile.imwrite("slide.tif", picture, photometric="rgb")
    tissue = shapely.box(5000, 5000, 9000, 9000)
    stp.io.read_wsi("slide.tif", um_per_px=0.5, tile_um=112, tissue=tissue)


@refused(TypeError, "image= accepts the path of a file, a NumPy, Zarr or Dask array, a PIL image")
def the_image_is_of_another_type(adata):
    """The image is neither the path of a file nor pixels in a form that `stp` knows.

    Pass one of the types that the message lists; `numpy.asarray` makes an array of most others.
    """
    stp.io.from_anndata(adata, [[0, 0, 0]], um_per_px=0.5)


@refused(ValueError, r"which can be \(y, x, c\) or \(c, y, x\); pass xarray\.DataArray")
def the_axes_of_an_image_are_not_clear(adata):
    """The first and the last axis of the array both have 3 or 4 entries, so that either can be the
    channels.

    Name the axes with `xarray.DataArray(array, dims=("y", "x", "c"))`.
    """
    stp.io.from_anndata(adata, np.zeros((3, 500, 3), dtype=np.uint8), um_per_px=0.5)
