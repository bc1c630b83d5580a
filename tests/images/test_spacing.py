import warnings

import numpy as np
import pytest
from tests.slides import make_slide

import stp
from stp.images.slides import find_slides
from stp.images.spacing import neighbor_distance


def grid(n_rows, n_columns, pitch):
    return np.stack(np.meshgrid(np.arange(n_columns), np.arange(n_rows)), -1).reshape(-1, 2) * pitch


def texts_of(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(item.message) for item in caught if " lie " in str(item.message)]


def test_the_distance_is_that_of_a_grid_though_few_of_its_spots_are_left():
    rng = np.random.default_rng(0)
    places = grid(60, 60, 100.0)
    assert neighbor_distance(places) == 100
    assert neighbor_distance(places[rng.choice(len(places), 180, replace=False)]) == 100
    assert neighbor_distance(np.repeat(places, 2, axis=0)) == 100
    assert neighbor_distance(np.concatenate([places, [[np.nan, 0]]])) == 100
    assert neighbor_distance(places[:15]) is None


def test_the_distance_of_very_many_spots_is_that_of_some_of_them():
    assert neighbor_distance(grid(400, 500, 2.0)) == 2


def join(um_per_px, has_image):
    adata, image = make_slide(0, 6, 6)  # 100 pixels between neighbors
    del adata.obs["array_row"], adata.obs["array_col"]
    return stp.io.from_anndata(adata, image if has_image else None, um_per_px=um_per_px)


@pytest.mark.parametrize("has_image", [True, False])
@pytest.mark.parametrize(
    ("um_per_px", "fact"),
    [
        (2.0, None),
        (10.0, "1,000 µm from their neighbors at 10 µm per pixel, farther than on any platform"),
        (0.002, "0.2 µm from their neighbors at 0.002 µm per pixel, closer than on any platform"),
    ],
)
def test_a_wrong_scale_without_another_source_is_noticed(um_per_px, fact, has_image):
    texts = texts_of(lambda: join(um_per_px, has_image))
    assert len(texts) == (fact is not None)
    for text in texts:
        assert fact in text
        assert "pass the right um_per_px=" in text


@pytest.mark.parametrize("has_image", [True, False])
@pytest.mark.parametrize(("um_per_px", "is_wrong"), [(2.0, False), (10.0, True)])
def test_a_store_at_a_wrong_scale_is_noticed(tmp_path, um_per_px, is_wrong, has_image):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = join(um_per_px, has_image)
    path = tmp_path / "a.zarr"
    texts = texts_of(lambda: stp.io.write_store(sdata, path, patch_um_per_px=um_per_px))
    assert len(texts) == is_wrong


def test_tiles_may_be_of_any_size():
    adata, image = make_slide(0, 6, 6)
    tiles = adata[:, :0].copy()
    sdata = stp.io.from_anndata(tiles, image, um_per_px=10.0)
    assert not texts_of(lambda: find_slides(sdata, sdata.tables["table"]))
