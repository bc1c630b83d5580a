import warnings

import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import (
    Identity,
    Scale,
    Sequence,
    Translation,
    get_transformation,
    set_transformation,
)

from stp.images.regions import spots_in_um
from stp.images.slides import SlideQuery, find_slides
from stp.io import from_anndata


def only_slide(sdata, **query):
    (slide,) = find_slides(sdata, sdata["table"], SlideQuery(**query))
    return slide


def image_element(array, systems, names=("r", "g", "b")):
    return Image2DModel.parse(
        array, dims=("y", "x", "c"), c_coords=list(names), transformations=systems
    )


def scaled(factor):
    return Scale([factor, factor], axes=("x", "y"))


def test_all_is_resolved_from_the_table(sdata, adata):
    slide = only_slide(sdata)
    assert (slide.region, slide.image_key, slide.coordinate_system) == (
        "slide",
        "slide_full_image",
        "um",
    )
    assert slide.rows.tolist() == list(range(adata.n_obs))
    np.testing.assert_allclose(slide.centers, adata.obsm["spatial"])
    assert (slide.pyramid.um_per_px, slide.pyramid.scale_source) == (
        1.0,
        "the coordinate system um",
    )


@pytest.mark.parametrize("system", ["um", "global"])
def test_patches_do_not_depend_on_the_coordinate_system(adata, image, system):
    adata.obs = adata.obs[[]]
    slide = only_slide(from_anndata(adata, image, um_per_px=0.5), coordinate_system=system)
    assert slide.coordinate_system == system
    patches = slide.pyramid.read(slide.centers[:9], size=32, um_per_px=0.5)
    for patch, (x, y) in zip(patches, adata.obsm["spatial"][:9], strict=True):
        left, top = int(np.floor(x - 15.5)), int(np.floor(y - 15.5))
        np.testing.assert_array_equal(patch, image[top : top + 32, left : left + 32])


def test_rows_are_joined_by_instance_and_never_by_order(sdata, adata):
    order = np.random.default_rng(0).permutation(adata.n_obs)[:60]
    table = sdata["table"][order].copy()
    sdata.shapes["slide"] = sdata.shapes["slide"].iloc[::-1]
    (slide,) = find_slides(sdata, table)
    np.testing.assert_allclose(slide.centers, adata.obsm["spatial"][order])
    assert slide.rows.tolist() == list(range(60))


def test_instances_may_be_names(sdata, adata):
    shapes = ShapesModel.parse(sdata["slide"].set_index(adata.obs_names))
    table = adata[::-1].copy()
    table.obs["stp_region"], table.obs["spot"] = pd.Categorical(["slide"] * 100), table.obs_names
    table = TableModel.parse(table, region="slide", region_key="stp_region", instance_key="spot")
    named = spatialdata.SpatialData(
        images=dict(sdata.images), shapes={"slide": shapes}, tables={"table": table}
    )
    np.testing.assert_allclose(only_slide(named).centers, adata.obsm["spatial"][::-1])


def test_a_row_without_a_spot_is_an_error(sdata):
    sdata.shapes["slide"] = sdata.shapes["slide"].iloc[:-3]
    with pytest.raises(ValueError, match="3 rows of the table have no spot in 'slide', e.g. 97"):
        only_slide(sdata)


def test_labels_may_be_the_region(sdata, adata):
    labels = np.zeros(sdata["slide_full_image"].shape[1:], np.int32)
    corners = adata.obsm["spatial"].astype(int)
    for index, (x, y) in enumerate(corners):
        labels[y - 6 : y + 6, x - 6 : x + 6] = 7 + index
    systems = get_transformation(sdata["slide_full_image"], get_all=True)
    table = adata[::2].copy()
    table.obs["stp_region"] = pd.Categorical(["cells"] * table.n_obs)
    table.obs["cell"] = 7 + np.arange(0, 100, 2)
    table = TableModel.parse(table, region="cells", region_key="stp_region", instance_key="cell")
    cells = Labels2DModel.parse(labels, dims=("y", "x"), transformations=systems)
    slide = only_slide(
        spatialdata.SpatialData(
            images=dict(sdata.images), labels={"cells": cells}, tables={"table": table}
        )
    )
    assert slide.region == "cells"
    np.testing.assert_allclose(slide.centers, corners[::2])


def two_regions(adata, image):
    """Two slides in one SpatialData, their rows mixed in one table."""
    parts = [from_anndata(adata, image, um_per_px=1.0, name=name) for name in ("one", "two")]
    tables = [part["table"] for part in parts]
    obs = pd.concat([table.obs for table in tables]).set_axis([f"s{i}" for i in range(200)])
    order = np.random.default_rng(0).permutation(200)
    table = type(adata)(np.zeros((200, 1), np.float32), obs=obs)[order].copy()
    table.obs["stp_region"] = table.obs["stp_region"].astype("category")
    table = TableModel.parse(
        table, region=["one", "two"], region_key="stp_region", instance_key="stp_spot"
    )
    images = {key: part[key] for part in parts for key in part.images}
    shapes = {key: part[key] for part in parts for key in part.shapes}
    # The two slides share no coordinate system.
    for name in ("one", "two"):
        for element in (images[f"{name}_full_image"], shapes[name]):
            to_um = get_transformation(element, "um")
            set_transformation(element, {name: to_um}, set_all=True)
    return spatialdata.SpatialData(images=images, shapes=shapes, tables={"table": table})


def test_each_region_has_its_own_image(adata, image):
    sdata = two_regions(adata, image)
    slides = find_slides(sdata, sdata["table"], SlideQuery(um_per_px=1.0))
    assert sorted((s.region, s.image_key) for s in slides) == [
        ("one", "one_full_image"),
        ("two", "two_full_image"),
    ]
    assert sorted(np.concatenate([s.rows for s in slides])) == list(range(200))
    obs = sdata["table"].obs
    for slide in slides:
        assert set(obs["stp_region"].iloc[slide.rows]) == {slide.region}
        np.testing.assert_allclose(
            slide.centers, adata.obsm["spatial"][obs["stp_spot"].iloc[slide.rows]]
        )


def test_slides_that_share_coordinate_systems_are_told_by_the_names_of_their_images(adata, image):
    finer = adata.copy()
    finer.obsm["spatial"] = 2 * finer.obsm["spatial"]
    finer.obs_names = [f"{spot}-2" for spot in finer.obs_names]
    one = from_anndata(adata, image, um_per_px=1.0, name="V1")
    two = from_anndata(finer, image.repeat(2, axis=0).repeat(2, axis=1), um_per_px=0.5, name="V1_2")
    both = spatialdata.concatenate([one, two], concatenate_tables=True)
    slides = find_slides(both, both["table"])
    assert {s.region: s.image_key for s in slides} == {
        "V1": "V1_full_image",
        "V1_2": "V1_2_full_image",
    }


def test_slides_keep_their_scale_when_coordinate_systems_are_renamed(adata, image):
    adata.obs = adata.obs[[]]
    parts = {key: from_anndata(adata, image, um_per_px=um) for key, um in (("a", 1.0), ("b", 0.5))}
    both = spatialdata.concatenate(parts, concatenate_tables=True)
    assert "um" not in both.coordinate_systems
    scales = [
        (s.region, s.pyramid.um_per_px, s.pyramid.scale_source)
        for s in find_slides(both, both["table"])
    ]
    assert scales == [
        ("slide-a", 1.0, "the coordinate system um"),
        ("slide-b", 0.5, "the coordinate system um"),
    ]
    np.testing.assert_allclose(spots_in_um(both, both["table"])[100:], adata.obsm["spatial"] / 2)


def test_of_images_in_one_coordinate_system_the_one_under_the_spots_is_taken(sdata, image):
    # A finer picture of another place, and one as fine beside the spots.
    for name, scale, offset in (("finer", 0.5, 10_000), ("equal", 1.0, -5_000)):
        steps = Sequence([scaled(scale), Translation([offset, 0], axes=("x", "y"))])
        sdata.images[name] = image_element(image, {"global": steps, "um": steps})
    assert only_slide(sdata).image_key == "slide_full_image"


def test_a_mapping_names_the_image_of_each_region(sdata, adata, image):
    sdata = two_regions(adata, image)
    sdata.images["other"] = image_element(255 - image, {"one": Identity(), "two": Identity()})
    with pytest.raises(
        ValueError,
        match=r"several images fit the spots; pass image_key= one of \['.*_full_image', 'other'\]",
    ):
        find_slides(sdata, sdata["table"], SlideQuery(um_per_px=1.0))
    images_of_regions = {"one": "other", "two": "two_full_image"}
    slides = find_slides(sdata, sdata["table"], SlideQuery(images_of_regions, um_per_px=1.0))
    assert {s.region: s.image_key for s in slides} == images_of_regions


def test_the_finest_rgb_image_is_chosen(sdata, image):
    systems = {"global": scaled(2), "um": scaled(2)}
    sdata.images["hires"] = image_element(image[::2, ::2], systems)
    sdata.images["mask"] = image_element(image[..., :1], {"um": scaled(0.1)}, names=["m"])
    sdata.images["elsewhere"] = image_element(image, {"other": scaled(0.1)})
    assert only_slide(sdata).image_key == "slide_full_image"
    named = only_slide(sdata, image_key="hires")
    assert (named.image_key, named.pyramid.um_per_px) == ("hires", 2.0)


def test_several_images_are_listed(sdata):
    sdata.images["copy"] = sdata["slide_full_image"]
    with pytest.raises(
        ValueError, match=r"several images .* image_key= one of \['slide_full_image', 'copy'\]"
    ):
        only_slide(sdata)
    assert only_slide(sdata, image_key="copy").image_key == "copy"


def test_shapes_may_be_named(sdata, adata):
    moved = sdata.shapes["slide"].copy()
    moved["geometry"] = moved.translate(10, 20)
    sdata.shapes["moved"] = ShapesModel.parse(moved)
    np.testing.assert_allclose(
        only_slide(sdata, shapes_key="moved").centers, adata.obsm["spatial"] + [10, 20]
    )


def test_spots_and_image_meet_where_both_are(sdata, adata):
    shift = Translation([100, 50], axes=("x", "y"))
    set_transformation(sdata["slide_full_image"], {"aligned": Identity()}, set_all=True)
    set_transformation(sdata["slide"], {"aligned": shift, "own": Identity()}, set_all=True)
    slide = only_slide(sdata)
    assert slide.coordinate_system == "aligned"
    np.testing.assert_allclose(
        slide.pyramid.to_pixels(slide.centers), adata.obsm["spatial"] + [100, 50]
    )


def test_several_shared_coordinate_systems_that_say_the_same_are_one(sdata):
    for element in (sdata["slide_full_image"], sdata["slide"]):
        set_transformation(element, {"a": Identity(), "b": scaled(0.3)}, set_all=True)
    assert only_slide(sdata).coordinate_system == "a"


def test_several_shared_coordinate_systems_are_listed(sdata):
    set_transformation(sdata["slide_full_image"], {"a": Identity(), "b": Identity()}, set_all=True)
    set_transformation(
        sdata["slide"], {"a": Identity(), "b": Translation([9, 0], axes=("x", "y"))}, set_all=True
    )
    with pytest.raises(
        ValueError, match=r"share several .* coordinate_system= one of \['a', 'b'\]"
    ):
        only_slide(sdata)
    assert only_slide(sdata, coordinate_system="b").coordinate_system == "b"


def test_nothing_shared_names_both_sides(sdata):
    set_transformation(sdata["slide"], {"own": Identity()}, set_all=True)
    with pytest.raises(
        ValueError, match=r"no RGB image in any .*\['slide_full_image'\], spots are in \['own'\]"
    ):
        only_slide(sdata)
    with pytest.raises(ValueError, match="no RGB image in 'um'"):
        only_slide(sdata, coordinate_system="um")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"image_key": "x"}, r"no image 'x'; pass image_key= one of \['slide_full_image'\]"),
        ({"shapes_key": "x"}, r"no shapes or labels 'x'; pass shapes_key= one of \['slide'\]"),
    ],
    ids=["image", "shapes"],
)
def test_missing_elements_are_named(sdata, query, message):
    with pytest.raises(KeyError, match=message):
        only_slide(sdata, **query)


def test_no_image_and_no_annotation(sdata, adata):
    with pytest.raises(KeyError, match=r"annotates no spots .*stp\.io\.from_anndata"):
        find_slides(sdata, adata)
    del sdata.images["slide_full_image"]
    with pytest.raises(KeyError, match=r"no image; stp\.io\.from_anndata\(adata, image\)"):
        only_slide(sdata)


def test_an_anndata_is_no_slide(adata):
    with pytest.raises(TypeError, match=r"pass a SpatialData; stp\.io\.from_anndata makes one"):
        find_slides(adata, adata)


def only_global(sdata):
    """Remove the coordinate system in µm."""
    for element in (sdata["slide_full_image"], sdata["slide"]):
        set_transformation(element, {"global": Identity()}, set_all=True)
    return sdata


def scalefactors(sdata, **factors):
    sdata["table"].uns["spatial"] = {"slide": {"scalefactors": factors}}


def test_the_scale_from_the_lattice(sdata):
    slide = only_slide(only_global(sdata))
    assert slide.pyramid.um_per_px == pytest.approx(1.0)
    assert slide.pyramid.scale_source == "the spot lattice"


def test_the_scale_of_a_downscaled_image(sdata, image):
    # Spots in full-resolution pixels; the image has half of them.
    only_global(sdata)
    sdata.images["slide_full_image"] = image_element(image[::2, ::2], {"global": scaled(2)})
    scalefactors(sdata, microns_per_pixel=1.0)
    slide = only_slide(sdata)
    assert slide.pyramid.um_per_px == pytest.approx(2.0)
    assert slide.pyramid.scale_source == "microns_per_pixel of the scalefactors"
    np.testing.assert_allclose(
        slide.pyramid.to_pixels(slide.centers), sdata["table"].obsm["spatial"] / 2
    )


def test_the_scale_from_the_spot_diameter_comes_last(sdata):
    only_global(sdata)
    table = sdata["table"]
    scalefactors(sdata, spot_diameter_fullres=130.0)
    table.obs = table.obs.drop(columns=["array_row", "array_col"])
    with pytest.warns(UserWarning, match="spot diameter"):
        assert only_slide(sdata).pyramid.um_per_px == pytest.approx(0.5)


@pytest.mark.parametrize(
    "factors", [{"microns_per_pixel": 0.5}, {"spot_diameter_fullres": 130.0}], ids=lambda f: [*f][0]
)
@pytest.mark.filterwarnings("ignore:µm per pixel taken from the spot diameter")
def test_scale_factors_are_in_full_pixels_whatever_the_coordinate_system(sdata, factors):
    # Spots are in full-resolution pixels of 0.5 µm, and the image has half of them. Both are in a
    # third unit.
    set_transformation(sdata["slide"], {"aligned": scaled(0.1)}, set_all=True)
    set_transformation(sdata["slide_full_image"], {"aligned": scaled(0.2)}, set_all=True)
    sdata["table"].obs = sdata["table"].obs.drop(columns=["array_row", "array_col"])
    scalefactors(sdata, **factors)
    assert only_slide(sdata).pyramid.um_per_px == pytest.approx(1.0)


def test_no_scale(sdata):
    only_global(sdata)
    sdata["table"].obs = sdata["table"].obs.drop(columns=["array_row", "array_col"])
    with pytest.raises(ValueError, match="no physical scale: pass um_per_px="):
        only_slide(sdata)
    assert only_slide(sdata, um_per_px=0.25).pyramid.um_per_px == 0.25


def test_sources_that_contradict_each_other_are_refused_with_both_names(sdata):
    scalefactors(sdata, microns_per_pixel=0.5)
    del sdata.attrs["stp_scale"]  # as if the file had given the scale
    with pytest.raises(ValueError, match=r"coordinate system um gives 1 .*factors gives 0\.5"):
        only_slide(sdata)


def test_the_users_scale_wins_with_a_warning_and_the_others_are_kept(sdata):
    with pytest.warns(UserWarning, match=r"um_per_px=0\.5 is used although") as caught:
        slide = only_slide(sdata, um_per_px=0.5)
    assert len(caught) == 1
    assert "the coordinate system um gives 1 and the spot lattice gives 1 " in str(
        caught[0].message
    )
    assert (slide.pyramid.um_per_px, slide.pyramid.scale_source) == (0.5, "um_per_px")
    assert slide.other_scales == pytest.approx(
        {"the coordinate system um": 1.0, "the spot lattice": 1.0}
    )


def test_a_contradiction_is_decided_once(adata, image, tmp_path):
    with pytest.warns(UserWarning, match=r"um_per_px=0\.5 is used although the spot lattice") as w:
        sdata = from_anndata(adata, image, um_per_px=0.5)
    assert len(w) == 1
    sdata.write(tmp_path / "a.zarr")
    for data in (sdata, spatialdata.read_zarr(tmp_path / "a.zarr")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            slide = only_slide(data)
        assert slide.pyramid.um_per_px == 0.5
        assert slide.other_scales == pytest.approx({"the spot lattice": 1.0})


def test_a_decision_about_another_image_does_not_count(adata, image):
    with pytest.warns(UserWarning, match="is used although"):
        sdata = from_anndata(adata, image, um_per_px=0.5)
    # The same slide with half of the pixels, and with a scale that says so.
    smaller = image_element(image[::2, ::2], {"global": scaled(2), "um": scaled(1.0)})
    sdata.images["slide_full_image"] = smaller
    with pytest.raises(ValueError, match=r"coordinate system um gives 1 .*spot lattice gives 2"):
        only_slide(sdata)


def test_a_square_grid_needs_its_pitch_or_a_scale(sdata):
    only_global(sdata)
    table = sdata["table"]
    row, col = np.divmod(np.arange(table.n_obs), 10)
    table.obs["array_row"], table.obs["array_col"] = row, col
    sdata.shapes["slide"] = ShapesModel.parse(
        np.column_stack([col, row]) * 60.0 + 30,
        geometry=0,
        radius=5,
        transformations={"global": Identity()},
    )
    with pytest.raises(ValueError, match=r"no physical scale: .* square grid.* spot_pitch_um="):
        only_slide(sdata)
    slide = only_slide(sdata, spot_pitch_um=120)
    assert slide.pyramid.um_per_px == pytest.approx(2.0)
    assert slide.pyramid.scale_source == "spot_pitch_um"
    assert only_slide(sdata, um_per_px=0.5).pyramid.um_per_px == 0.5
