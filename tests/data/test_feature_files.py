import re

import anndata
import h5py
import numpy as np
import pytest
import torch
import zarr
from tests.features import (
    CORNERS,
    SORTED,
    example_features,
    katherlab_25,
    write_clam,
    write_clam_tensor,
    write_katherlab,
    write_lazyslide,
    write_trident,
)

from stp.data.feature_files import open_features

FEATURES = example_features()


def test_katherlab_2_5_is_read_in_the_order_of_the_slide(tmp_path):
    half = FEATURES.astype(np.float16)
    path = write_katherlab(tmp_path / "a.h5", half, CORNERS * 256, **katherlab_25())
    file = open_features(path)
    assert (file.writer, file.n_tiles, file.width) == ("KatherLab h5", 6, 8)
    assert file.dtype == np.float16
    assert (file.tile_um, file.um_per_px) == (256, 256 / 224)
    np.testing.assert_array_equal(file.read(), half[SORTED])
    assert file.read().dtype == np.float16
    np.testing.assert_array_equal(file.centers(), CORNERS[SORTED] * 256 + 128)


def test_katherlab_2_0_has_a_tile_size_in_um_and_no_pixels(tmp_path):
    attributes = {"extractor": "uni", "unit": "um", "tile_size": 224.0}
    path = write_katherlab(tmp_path / "a.h5", FEATURES, CORNERS * 224, **attributes)
    file = open_features(path)
    assert (file.tile_um, file.um_per_px) == (224, None)
    np.testing.assert_array_equal(file.centers(), CORNERS[SORTED] * 224 + 112)


@pytest.mark.parametrize("attributes", [{}, {"tile_size": 224}])
def test_katherlab_1_has_another_unit(tmp_path, attributes):
    path = write_katherlab(tmp_path / "a.h5", FEATURES, CORNERS * 224, **attributes)
    file = open_features(path)
    assert (file.tile_um, file.um_per_px) == (256, 256 / 224)
    np.testing.assert_allclose(file.centers(), CORNERS[SORTED] * 256 + 128)


def test_places_of_an_unknown_unit_sort_the_rows_and_are_not_um(tmp_path):
    path = write_katherlab(tmp_path / "a.h5", FEATURES, CORNERS * 300)
    file = open_features(path)
    assert file.tile_um is None
    assert file.centers() is None
    np.testing.assert_array_equal(file.read(), FEATURES[SORTED])
    scaled = open_features(path, um_per_px=0.5, tile_um=150)
    np.testing.assert_array_equal(scaled.centers(), CORNERS[SORTED] * 150 + 75)


def test_features_of_a_multiplex_image_have_no_places(tmp_path):
    path = write_katherlab(tmp_path / "a.h5", FEATURES, key="patch_embeddings")
    file = open_features(path)
    assert file.centers() is None
    np.testing.assert_array_equal(file.read(), FEATURES)


@pytest.mark.parametrize("shape", [(8,), (1, 8)])
def test_the_vector_of_a_slide_is_a_bag_of_one(tmp_path, shape):
    vector = FEATURES[0].reshape(shape)
    attributes = {"encoder": "titan", "feat_type": "slide", "precision": "float32"}
    katherlab = write_katherlab(tmp_path / "a.h5", vector, **attributes)
    trident = write_trident(tmp_path / "b.h5", vector, CORNERS * 512)
    tensor = write_clam_tensor(tmp_path / "c.pt", vector)
    for path in (katherlab, trident, tensor):
        file = open_features(path)
        assert (file.n_tiles, file.width, file.tile_um) == (1, 8, None)
        assert file.centers() is None
        np.testing.assert_array_equal(file.read(), FEATURES[:1])
    assert open_features(katherlab).model["name"] == "titan"


def test_trident_records_pixels_and_no_um(tmp_path):
    path = write_trident(tmp_path / "a.h5", FEATURES, CORNERS * 512)
    file = open_features(path)
    assert file.writer == "TRIDENT h5"
    assert file.tile_um is None
    assert file.centers() is None
    np.testing.assert_array_equal(file.read(), FEATURES[SORTED])
    centers = CORNERS[SORTED] * 128 + 64
    for scale in ({"um_per_px": 0.25}, {"tile_um": 128}, {"um_per_px": 0.25, "tile_um": 128}):
        scaled = open_features(path, **scale)
        assert (scaled.tile_um, scaled.um_per_px) == (128, 0.5)
        np.testing.assert_array_equal(scaled.centers(), centers)


def test_the_scale_of_a_reduced_picture_is_noticed(tmp_path):
    path = write_trident(tmp_path / "a.h5", FEATURES, CORNERS * 512)
    with pytest.warns(UserWarning, match=r"magnification 40, .* 0\.2 to 0\.3 .* um_per_px is 0\.5"):
        open_features(path, um_per_px=0.5)


@pytest.mark.parametrize("shape", [(0,), (0, 8)])
def test_an_empty_bag_has_no_tiles(tmp_path, shape):
    empty = np.empty(shape, np.float32)
    file = open_features(write_trident(tmp_path / "a.h5", empty, np.empty((0, 2))), um_per_px=0.25)
    assert file.n_tiles == 0
    assert file.read().shape == (0, shape[-1])
    assert file.centers().shape == (0, 2)
    assert open_features(write_clam_tensor(tmp_path / "a.pt", empty)).read().shape[0] == 0


def test_clam_needs_both_scales_for_um(tmp_path):
    path = write_clam(tmp_path / "a.h5", FEATURES, CORNERS * 256)
    file = open_features(path)
    assert (file.writer, file.tile_um, file.um_per_px) == ("CLAM h5", None, None)
    assert file.centers() is None
    np.testing.assert_array_equal(file.read(), FEATURES[SORTED])
    scaled = open_features(path, um_per_px=0.5, tile_um=128)
    np.testing.assert_array_equal(scaled.centers(), CORNERS[SORTED] * 128 + 64)
    with pytest.raises(ValueError, match="corners of tiles and not their size; pass tile_um="):
        open_features(path, um_per_px=0.5)


@pytest.mark.parametrize("is_old_format", [True, False])
def test_a_tensor_of_clam_keeps_its_order_and_type(tmp_path, is_old_format):
    tensor = torch.from_numpy(FEATURES).half()
    options = {"_use_new_zipfile_serialization": not is_old_format}
    torch.save(tensor, tmp_path / "a.pt", **options)
    file = open_features(tmp_path / "a.pt")
    assert (file.writer, file.n_tiles, file.width) == ("CLAM pt", 6, 8)
    assert file.dtype == np.float16
    np.testing.assert_array_equal(file.read(), FEATURES.astype(np.float16))


def test_a_tensor_of_bfloat16_becomes_float32(tmp_path):
    torch.save(torch.ones(3, 8, dtype=torch.bfloat16), tmp_path / "a.pt")
    file = open_features(tmp_path / "a.pt")
    assert file.dtype == np.float32
    np.testing.assert_array_equal(file.read(), np.ones((3, 8), np.float32))


def test_a_store_of_lazyslide_has_its_places_in_shapes(tmp_path):
    path = write_lazyslide(tmp_path / "a.zarr", FEATURES, CORNERS * 512)
    for file in (open_features(path), open_features(path, table_key="uni_tiles")):
        assert (file.writer, file.n_tiles, file.width) == ("LazySlide store", 6, 8)
        assert (file.tile_um, file.um_per_px) == (128, 0.5)
        assert file.model["name"] == "uni"
        np.testing.assert_array_equal(file.read(), FEATURES[SORTED])
        np.testing.assert_array_equal(file.centers(), CORNERS[SORTED] * 128 + 64)


def test_the_places_of_a_store_of_lazyslide_are_in_the_store(tmp_path):
    write_lazyslide(tmp_path / "b.zarr", FEATURES, CORNERS * 512)
    path = write_lazyslide(tmp_path / "a.zarr", FEATURES, CORNERS * 512)
    uns = zarr.open_group(path / "tables" / "uni_tiles" / "uns" / "spatialdata_attrs", mode="r+")
    anndata.io.write_elem(uns, "region", "../../b.zarr/shapes/tiles")
    file = open_features(path, table_key="uni_tiles")
    with pytest.raises(ValueError, match="which is a path and no name"):
        file.read()


def test_the_table_of_a_store_with_two_models_is_not_guessed(tmp_path):
    path = write_lazyslide(tmp_path / "a.zarr", FEATURES, CORNERS * 512, models=("gigapath", "uni"))
    message = r"2 tables with features .* table_key= one of \['gigapath_tiles', 'uni_tiles'\]"
    with pytest.raises(ValueError, match=message):
        open_features(path)
    gigapath = open_features(path, table_key="gigapath_tiles")
    uni = open_features(path, table_key="uni_tiles", use_rep="X")
    assert gigapath.model["name"] == "gigapath"
    assert gigapath.model["digest"] != uni.model["digest"]


def test_features_of_one_extraction_have_one_digest(tmp_path):
    def digest(name: str, **changes) -> str:
        attributes = katherlab_25() | changes
        path = write_katherlab(tmp_path / f"{name}.h5", FEATURES, CORNERS * 256, **attributes)
        return open_features(path).model["digest"]

    first = digest("first")
    assert digest("second", stamp_version="2.5.1") == first
    changes = ({"extractor": "gigapath"}, {"code_hash": "1111"}, {"tile_size_um": 128.0})
    others = {digest("other", **change) for change in changes}
    assert len(others | {first}) == 4
    # A slide scanned at 20x has tiles of fewer pixels of level 0, which are the same tiles.
    coarse = write_trident(tmp_path / "20x.h5", FEATURES, CORNERS * 256, magnification=20)
    fine = write_trident(tmp_path / "40x.h5", FEATURES, CORNERS * 512, magnification=40)
    other = write_trident(tmp_path / "10x.h5", FEATURES, CORNERS * 512, target=10)
    digests = [open_features(path).model["digest"] for path in (coarse, fine, other)]
    assert digests[0] == digests[1] != digests[2]
    assert open_features(fine, um_per_px=0.25).model["digest"] == digests[1]


@pytest.mark.parametrize("argument", ["tile_um", "um_per_px"])
def test_a_scale_that_the_file_contradicts_is_refused(tmp_path, argument):
    path = write_lazyslide(tmp_path / "a.zarr", FEATURES, CORNERS * 512)
    with pytest.raises(ValueError, match=f"{argument}=1 contradicts .*a.zarr, which records"):
        open_features(path, **{argument: 1.0})


def test_pixels_do_not_apply_to_places_in_um(tmp_path):
    path = write_katherlab(tmp_path / "a.h5", FEATURES, CORNERS * 256, **katherlab_25())
    with pytest.raises(ValueError, match="in µm, not in pixels, so um_per_px= does not apply"):
        open_features(path, um_per_px=0.5)


def _with_nan() -> np.ndarray:
    values = FEATURES.copy()
    values[4, 3] = np.nan
    return values


def test_features_that_are_not_finite_are_refused_with_their_row(tmp_path):
    files = [
        write_katherlab(tmp_path / "a.h5", _with_nan(), CORNERS * 256, **katherlab_25()),
        write_clam_tensor(tmp_path / "a.pt", _with_nan()),
        write_lazyslide(tmp_path / "a.zarr", _with_nan(), CORNERS * 512),
    ]
    for path in files:
        message = f"{re.escape(str(path))} has features that are NaN or infinite, in row 4"
        with pytest.raises(ValueError, match=message):
            open_features(path).read()


def test_files_of_another_structure_are_refused_by_name(tmp_path):
    _write_bad_files(tmp_path)
    messages = {
        "three_axes.h5": r"have the shape \(6, 2, 4\)",
        "integers.h5": "are of type int64; expected floating-point numbers",
        "fewer_coords.h5": "6 rows of features and 5 of coords",
        "flat_coords.h5": r"coords of .* have the shape \(6, 3\)",
        "only_coords.h5": "has no features.*these are places of tiles without features",
        "dict.pt": "holds a dict, not a tensor",
        "integers.pt": "are of type int64",
        "text.h5": "is no file of features",
        "empty.h5": "is no file of features",
        "truncated.h5": "cannot be read .*is the file complete",
        "truncated.pt": "cannot be read .*is the file complete",
        "code.pt": "cannot be read",
        "folder": "is a folder without tables",
        "nothing.h5": "there are no features at",
    }
    for name, message in messages.items():
        error = FileNotFoundError if name == "nothing.h5" else ValueError
        with pytest.raises(error, match=message) as caught:
            open_features(tmp_path / name).read()
        assert str(tmp_path / name) in str(caught.value)


def _write_bad_files(folder) -> None:
    write_katherlab(folder / "three_axes.h5", FEATURES.reshape(6, 2, 4))
    write_katherlab(folder / "integers.h5", np.ones((6, 8), int))
    write_katherlab(folder / "fewer_coords.h5", FEATURES, CORNERS[:5] * 256)
    write_katherlab(folder / "flat_coords.h5", FEATURES, np.ones((6, 3)))
    with h5py.File(folder / "only_coords.h5", "w") as file:
        file["coords"] = CORNERS
    torch.save({"features": torch.ones(3, 8)}, folder / "dict.pt")
    torch.save(torch.ones(3, 8, dtype=torch.int64), folder / "integers.pt")
    (folder / "text.h5").write_text("features")
    (folder / "empty.h5").touch()
    for name in ("truncated.h5", "truncated.pt"):
        path = folder / name
        write = write_katherlab if path.suffix == ".h5" else write_clam_tensor
        write(path, FEATURES)
        path.write_bytes(path.read_bytes()[:-200])
    torch.save(_RunsCode(), folder / "code.pt")
    (folder / "folder").mkdir()


class _RunsCode:
    def __reduce__(self) -> tuple:
        return print, ("a file must not run code",)


def test_a_damaged_store_is_refused(tmp_path):
    path = write_lazyslide(tmp_path / "a.zarr", FEATURES, CORNERS * 512)
    file = open_features(path)
    for chunk in (path / "tables" / "uni_tiles" / "X" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
            damaged = chunk
    with pytest.raises(ValueError, match="cannot be read"):
        file.read()
    damaged.unlink()
    with pytest.raises(ValueError, match="has lost a part of its features"):
        file.read()


def test_features_that_a_store_lacks_are_named(tmp_path):
    path = write_lazyslide(tmp_path / "a.zarr", FEATURES, CORNERS * 512)
    with pytest.raises(ValueError, match=r"no table 'other'; pass table_key= one of \['uni_tiles'"):
        open_features(path, table_key="other")
    with pytest.raises(ValueError, match=r"no obsm\['X_uni'\] in the table 'uni_tiles'"):
        open_features(path, use_rep="X_uni")
