"""Slides as spatialdata-io returns them, rebuilt in memory: `stp` reads them without arguments."""

import anndata
import geopandas
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import spatialdata
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale

from stp import tl
from stp.images.slides import SlideQuery, find_slides

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (1203, 1405, 3)).astype(np.uint8)
FACTOR = 0.25  # of the hires picture


def image_of(array, systems, **settings):
    dims = ("y", "x", "c")
    return Image2DModel.parse(array, dims=dims, transformations=systems, **settings)


def scaled(factor):
    return Scale([factor, factor], axes=("x", "y"))


def pictures(name):
    """Make the full-resolution image and the hires picture, as `visium` and `visium_hd` do."""
    hires = {f"{name}_downscaled_hires": Identity(), name: scaled(1 / FACTOR)}
    return {
        f"{name}_full_image": image_of(
            IMAGE, {name: Identity()}, scale_factors=[2, 2], c_coords=list("rgb")
        ),
        f"{name}_hires_image": image_of(IMAGE[::4, ::4], hires, c_coords=list("rgb")),
    }


def systems_of(name):
    return {
        name: Identity(),
        f"{name}_downscaled_hires": scaled(FACTOR),
        f"{name}_downscaled_lowres": scaled(0.05),
    }


def counts(n, **slots):
    adata = anndata.AnnData(
        scipy.sparse.csr_matrix(RNG.poisson(2, (n, 5)).astype(np.float32)), **slots
    )
    adata.obs_names = [f"{name}-1" for name in adata.obs_names]
    return adata


def visium(name="V1", um_per_px=0.5):
    row, col = (x.ravel() for x in np.meshgrid(np.arange(5), np.arange(6), indexing="ij"))
    col = 2 * col + row % 2
    centers = np.column_stack([col * 50, row * 50 * np.sqrt(3)]) / um_per_px + 100
    obs = pd.DataFrame({"in_tissue": 1, "array_row": row, "array_col": col, "spot_id": range(30)})
    adata = counts(30, obs=obs.set_index(obs.index.astype(str)), obsm={"spatial": centers})
    adata.obs["region"] = pd.Categorical([name] * 30)
    table = TableModel.parse(adata, region=name, region_key="region", instance_key="spot_id")
    circles = ShapesModel.parse(
        centers, geometry=0, radius=65 / um_per_px / 2, transformations=systems_of(name)
    )
    return spatialdata.SpatialData(
        images=pictures(name), shapes={name: circles}, tables={"table": table}
    )


def visium_hd(name="HD", um_per_px=0.5):
    tables, shapes = {}, {}
    for um in (2, 8, 16):
        pitch, n = um / um_per_px, 12
        row, col = (
            x.ravel() for x in np.meshgrid(np.arange(n) + 30, np.arange(n) + 20, indexing="ij")
        )
        centers = np.column_stack([col, row]) * pitch * [1, 0.99] + 40
        obs = pd.DataFrame(
            {"in_tissue": 1, "array_row": row, "array_col": col, "location_id": range(n * n)}
        )
        adata = counts(n * n, obs=obs.set_index(obs.index.astype(str)), obsm={"spatial": centers})
        bins, region = f"square_{um:03}um", f"{name}_square_{um:03}um"
        adata.obs["region"] = pd.Categorical([region] * n * n)
        circles = ShapesModel.parse(centers, geometry=0, radius=pitch / 2)
        squares = geopandas.GeoDataFrame(geometry=circles.buffer(pitch / 2, cap_style="square"))
        shapes[region] = ShapesModel.parse(squares, transformations=systems_of(name))
        tables[bins] = TableModel.parse(
            adata, region=region, region_key="region", instance_key="location_id"
        )
    return spatialdata.SpatialData(images=pictures(name), shapes=shapes, tables=tables)


PIXEL_UM = 0.2125  # of Xenium
TURN = np.array(
    [[0.0, -2.0, 2900.0], [2.0, 0.0, 40.0], [0, 0, 1]]
)  # H&E pixels to Xenium pixels: a quarter turn


def xenium():
    centers = np.stack(
        np.meshgrid(np.arange(200, 2600, 220), np.arange(200, 2500, 220)), axis=-1
    ).reshape(-1, 2)
    labels = np.zeros((2860, 2900), np.int32)
    for index, (x, y) in enumerate(centers):
        labels[y - 20 : y + 20, x - 20 : x + 20] = index + 1
    n = len(centers)
    obs = pd.DataFrame(
        {"cell_id": [f"aaaa{i}-1" for i in range(n)], "cell_labels": np.arange(n) + 1}
    )
    adata = counts(
        n, obs=obs.set_index(obs.index.astype(str)), obsm={"spatial": centers * PIXEL_UM}
    )
    adata.obs["region"] = pd.Categorical(["cell_labels"] * n)
    stains = ["DAPI", "ATP1A1/CD45/E-Cadherin", "18S", "AlphaSMA/Vimentin"]
    focus = RNG.integers(0, 4000, (286, 290, 4)).astype(np.uint16)
    affine = Affine(TURN, input_axes=("x", "y"), output_axes=("x", "y"))
    images = {
        "morphology_focus": image_of(
            focus, {"global": scaled(10)}, scale_factors=[2], c_coords=stains
        ),
        "if_image": image_of(IMAGE[..., ::-1], {"global": affine}),
        "he_image": image_of(IMAGE, {"global": affine}, scale_factors=[2], c_coords=list("rgb")),
    }
    cells = Labels2DModel.parse(
        labels, dims=("y", "x"), transformations={"global": Identity()}, scale_factors=[2]
    )
    table = TableModel.parse(
        adata, region="cell_labels", region_key="region", instance_key="cell_labels"
    )
    return spatialdata.SpatialData(
        images=images, labels={"cell_labels": cells}, tables={"table": table}
    )


def assert_patches_are_slices(slide, pixels, um_per_px):
    """Compare native patches with slices of IMAGE around centers that are known in its pixels."""
    half = 16
    inside = (pixels >= half).all(axis=1) & (pixels <= np.array(IMAGE.shape[1::-1]) - half).all(
        axis=1
    )
    assert inside.sum() > 20
    patches = slide.pyramid.read(slide.centers[inside], size=32, um_per_px=um_per_px)
    for patch, (x, y) in zip(
        patches, np.floor(pixels[inside] - half + 0.5).astype(int), strict=True
    ):
        np.testing.assert_array_equal(patch, IMAGE[y : y + 32, x : x + 32])


def test_visium():
    sdata = visium()
    (slide,) = find_slides(sdata, sdata["table"])
    assert (slide.region, slide.image_key, slide.coordinate_system) == ("V1", "V1_full_image", "V1")
    assert (slide.pyramid.um_per_px, slide.pyramid.scale_source) == (
        pytest.approx(0.5),
        "the spot lattice",
    )
    assert_patches_are_slices(slide, sdata["table"].obsm["spatial"], 0.5)


def test_visium_without_its_slide_is_refused_with_the_remedy(stamp):
    sdata = visium()
    del sdata.images["V1_full_image"]
    (slide,) = find_slides(sdata, sdata["table"])
    assert (slide.image_key, slide.pyramid.um_per_px) == ("V1_hires_image", pytest.approx(2.0))
    with pytest.raises(
        ValueError, match="has 2 µm per pixel, patches of 0.5 are wanted: give the full-resolution"
    ):
        slide.pyramid.read(slide.centers, size=32, um_per_px=0.5)


@pytest.mark.parametrize("um", [2, 8, 16])
def test_visium_hd(um):
    sdata = visium_hd()
    (slide,) = find_slides(sdata, sdata[f"square_{um:03}um"])
    assert (slide.region, slide.image_key) == (f"HD_square_{um:03}um", "HD_full_image")
    assert (slide.pyramid.um_per_px, slide.pyramid.scale_source) == (
        pytest.approx(0.5, rel=0.01),
        "the spot lattice",
    )
    assert_patches_are_slices(
        slide, sdata[f"square_{um:03}um"].obsm["spatial"], slide.pyramid.um_per_px
    )


def test_of_three_bins_one_is_to_be_named(stamp):
    with pytest.raises(
        KeyError, match=r"table_key= one of \['square_002um', 'square_008um', 'square_016um'\]"
    ):
        tl.embed_images(visium_hd(), stamp)


@pytest.mark.parametrize("attrs", [{}, {"spatialdata_io_reader": "xenium"}], ids=["older", "newer"])
def test_xenium(attrs):
    sdata = xenium()
    sdata.attrs.update(attrs)
    (slide,) = find_slides(sdata, sdata["table"])
    assert (slide.region, slide.image_key, slide.coordinate_system) == (
        "cell_labels",
        "he_image",
        "global",
    )
    assert slide.pyramid.um_per_px == pytest.approx(2 * PIXEL_UM, rel=1e-3)
    assert slide.pyramid.scale_source == "the um of Xenium in obsm['spatial']"
    in_global = np.column_stack([slide.centers, np.ones(len(slide.centers))])
    np.testing.assert_allclose(slide.centers, sdata["table"].obsm["spatial"] / PIXEL_UM, atol=1)
    pixels = (in_global @ np.linalg.inv(TURN).T)[:, :2]
    assert_patches_are_slices(slide, pixels, slide.pyramid.um_per_px)


def test_xenium_beside_stains_alone_has_no_picture():
    sdata = xenium()
    for key in ("he_image", "if_image"):
        del sdata.images[key]
    with pytest.raises(
        ValueError, match=r"no RGB image in any coordinate system .*\['morphology_focus'\]"
    ):
        find_slides(sdata, sdata["table"])
    with pytest.raises(ValueError, match="has the channels DAPI, .* not red, green and blue"):
        find_slides(sdata, sdata["table"], SlideQuery("morphology_focus"))


def test_two_slides_in_one_table(stamp):
    one, two = visium("one"), visium("two", um_per_px=0.7)
    for name, sdata in (("one", one), ("two", two)):
        sdata["table"].obs_names = [f"{name}{spot}" for spot in sdata["table"].obs_names]
    both = spatialdata.concatenate([one, two], concatenate_tables=True)
    both.tables["table"] = both["table"][RNG.permutation(60)].copy()
    slides = {slide.region: slide for slide in find_slides(both, both["table"])}
    assert {name: slide.image_key for name, slide in slides.items()} == {
        n: f"{n}_full_image" for n in ("one", "two")
    }
    assert [slides[name].pyramid.um_per_px for name in ("one", "two")] == [
        pytest.approx(0.5),
        pytest.approx(0.7),
    ]
    tl.embed_images(both, stamp)
    for single in (one, two):
        tl.embed_images(single, stamp)
        rows = both["table"].obs_names.get_indexer(single["table"].obs_names)
        of_both = both["table"].obsm["X_stp_images"][rows]
        np.testing.assert_allclose(
            of_both, single["table"].obsm["X_stp_images"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("make", [visium, visium_hd, xenium])
def test_embedding_needs_no_argument(make, stamp):
    sdata = make()
    for key in sdata.tables:
        named = {} if key == "table" else {"table_key": key}
        tl.embed_images(sdata, stamp, **named)
        assert np.isfinite(sdata[key].obsm["X_stp_images"]).all()
