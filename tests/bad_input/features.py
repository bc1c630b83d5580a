"""Features of other tools, and tile stores."""

from pathlib import Path

import h5py
import numpy as np
import tifffile
import torch
from tests.bad_input.case import refused
from tests.features import CORNERS, example_features, tiny_encoder, write_clam, write_trident

import stp


@refused(ValueError, "has no features: expected a dataset 'feats' or 'features'")
def a_file_has_places_of_tiles_and_no_features():
    """TRIDENT and CLAM write two files for each slide: one with the places of its tiles, one with
    their features. This is the first.

    Pass the file in the folder of the features.
    """
    with h5py.File("slide_patches.h5", "w") as file:
        file["coords"] = CORNERS
    stp.io.read_features("slide_patches.h5")


@refused(ValueError, "6 rows of features and 4 of coords, so it is not complete")
def a_file_of_features_is_not_complete():
    """The extraction was stopped while it wrote the file.

    Extract the features of this slide again.
    """
    write_clam(Path("slide.h5"), example_features(), CORNERS[:4])
    stp.io.read_features("slide.h5")


@refused(ValueError, "has features that are NaN or infinite, in row 2")
def features_of_a_file_are_not_finite():
    """The encoder overflowed, which happens in 16 bits.

    Extract the features again in 32 bits.
    """
    features = example_features()
    features[2] = np.inf
    write_clam(Path("slide.h5"), features)
    stp.io.read_features("slide.h5")


@refused(ValueError, "holds a dict, not a tensor of features")
def a_tensor_file_holds_something_else():
    """The file is a checkpoint of a model, or features with a name.

    Save the tensor of the features alone.
    """
    torch.save({"features": torch.ones(3, 8)}, "slide.pt")
    stp.io.read_features("slide.pt")


@refused(ValueError, "records the corners of tiles and not their size; pass tile_um=")
def the_size_of_tiles_is_unknown():
    """CLAM records the corners of tiles in pixels. Their centers need the side of a tile, too.

    Pass `tile_um=`. It is the patch size of CLAM times the µm per pixel of the level that it read.
    """
    write_clam(Path("slide.h5"), example_features(), CORNERS * 256)
    stp.io.read_features("slide.h5", um_per_px=0.5)


@refused(ValueError, "um_per_px=0.5 contradicts slide.h5, which records 0.25")
def two_scales_of_a_file_of_features_differ():
    """A tile of TRIDENT has 512 pixels here. With 128 µm per tile this is 0.25 µm per pixel.

    Pass only one of the two, or correct the wrong one.
    """
    write_trident(Path("slide.h5"), example_features(), CORNERS * 512)
    stp.io.read_features("slide.h5", um_per_px=0.5, tile_um=128)


@refused(ValueError, "needs the side and the places of the tiles in µm, and they are not known")
def features_without_places_are_exchanged():
    """KatherLab's STAMP reads places in µm. TRIDENT records pixels, and no µm per pixel.

    Pass `um_per_px=` to {func}`stp.io.read_features`.
    """
    write_trident(Path("slide.h5"), example_features(), CORNERS * 512)
    features = stp.io.read_features("slide.h5")
    stp.io.write_features(features, "katherlab.h5", use_rep="X_features")


@refused(ValueError, "the SpatialData has no record of the slide of its tiles")
def spots_are_written_as_tiles(sdata):
    """A tile store records the file of its slide and how its tiles were laid. Only slides of
    {func}`stp.io.read_wsi` and {func}`stp.io.read_features` have this record.

    Write spots with counts by {func}`stp.io.write_store`, and anything else by `sdata.write`.
    """
    stp.io.write_tiles(sdata, "tiles.zarr")


@refused(ValueError, "a/slide.tif and b/slide.tif would have one store, because they have one name")
def two_slides_have_one_name():
    """A tile store has the name of its slide. Two files in different folders have the same name.

    Rename a file, or tile the slides of each folder into another folder.
    """
    for folder in ("a", "b"):
        Path(folder).mkdir()
        tifffile.imwrite(f"{folder}/slide.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    paths = ["a/slide.tif", "b/slide.tif"]
    stp.io.tile_slides(paths, "tiles", model=tiny_encoder(), tile_um=112, device="cpu")


@refused(ValueError, "no image at slides: it is a folder; give the path of one file")
def a_folder_in_place_of_its_slides():
    """A folder is no slide. Nothing was tiled yet.

    Pass the files in it, such as `sorted(Path("slides").glob("*.svs"))`.
    """
    Path("slides").mkdir()
    stp.io.tile_slides("slides", "tiles", model=tiny_encoder(), tile_um=112, device="cpu")


@refused(ValueError, "there are no slides at first.svs, second.svs; check the paths")
def slides_are_missing():
    """There are no files at these paths. Nothing was tiled yet.

    Correct the paths. A relative path starts at the working directory.
    """
    paths = ["first.svs", "second.svs"]
    stp.io.tile_slides(paths, "tiles", model=tiny_encoder(), tile_um=112, device="cpu")
