import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from matplotlib.collections import PathCollection
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation
from tests.slides import add_prediction, make_slide

from stp import pl, tl
from stp.data.store import SpotStore
from stp.images.slides import find_slides
from stp.io import from_anndata, read_wsi, write_store


@pytest.fixture
def slides():
    """Three slides: table and image, the second at 0.5 µm per pixel, the third without image."""
    slides = {"Slide A": make_slide(0), "b/2": make_slide(1), "c": make_slide(2)}
    fine, image = slides["b/2"]
    fine.obsm["spatial"] = 2 * fine.obsm["spatial"]
    slides["b/2"] = (fine, image.repeat(2, axis=0).repeat(2, axis=1))
    return slides


@pytest.fixture
def table(slides):
    """The three slides in one table, their rows mixed."""
    tables = {name: adata for name, (adata, _) in slides.items()}
    adata = anndata.concat(tables, label="sample", index_unique="-")
    return adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()


@pytest.fixture
def images(slides):
    return {"Slide A": slides["Slide A"][1], "b/2": slides["b/2"][1], "c": None}


def centers_of(sdata, name):
    geometry = sdata[name].geometry
    return np.column_stack([geometry.x, geometry.y])


@pytest.mark.filterwarnings("ignore:names of slides")
def test_each_library_is_a_region_with_its_image(table, images):
    sdata = from_anndata(table, images, library_key="sample")
    assert sorted(sdata.shapes) == ["Slide_A", "b_2", "c"]
    assert sorted(sdata.images) == ["Slide_A_full_image", "b_2_full_image"]
    joined = sdata["table"]
    assert joined.obs_names.tolist() == table.obs_names.tolist()
    assert (joined.X != table.X).nnz == 0
    assert joined.obs["sample"].tolist() == table.obs["sample"].tolist()
    for label, region, um_per_px in (("Slide A", "Slide_A", 1.0), ("b/2", "b_2", 0.5)):
        rows = (table.obs["sample"] == label).to_numpy()
        assert (joined.obs["stp_region"] == region).tolist() == rows.tolist()
        np.testing.assert_allclose(centers_of(sdata, region), table.obsm["spatial"][rows])
        np.testing.assert_array_equal(
            np.moveaxis(np.asarray(sdata[f"{region}_full_image"].data), 0, -1), images[label]
        )
        one = sdata.filter_by_coordinate_system(f"um-{region}")
        (slide,) = find_slides(one, one["table"])
        assert (slide.region, slide.image_key) == (region, f"{region}_full_image")
        assert slide.pyramid.um_per_px == pytest.approx(um_per_px)
        pixels = slide.pyramid.to_pixels(slide.centers)
        np.testing.assert_allclose(pixels, table.obsm["spatial"][rows])


@pytest.mark.filterwarnings("ignore:names of slides")
def test_embeddings_are_those_of_each_slide_alone(table, images, slides, stamp, tmp_path):
    with_image = table[table.obs["sample"] != "c"].copy()
    del images["c"]
    sdata = from_anndata(with_image, images, library_key="sample")
    tl.embed_images(sdata, stamp, progress=False)
    embedding = pd.DataFrame(sdata["table"].obsm["X_stp_images"], index=with_image.obs_names)
    for label, region in (("Slide A", "Slide_A"), ("b/2", "b_2")):
        adata, image = slides[label]
        alone = from_anndata(adata, image, name=region)
        tl.embed_images(alone, stamp, progress=False)
        rows = [f"{name}-{label}" for name in adata.obs_names]
        np.testing.assert_allclose(
            embedding.loc[rows], alone["table"].obsm["X_stp_images"], rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ValueError, match="one slide is needed"):
        write_store(sdata, tmp_path / "a.zarr", patch_um_per_px=4.0)
    one = sdata.filter_by_coordinate_system("um-b_2")
    write_store(one, tmp_path / "a.zarr", patch_um_per_px=4.0)
    rows = (with_image.obs["sample"] == "b/2").to_numpy()
    np.testing.assert_allclose(
        SpotStore(tmp_path / "a.zarr").coordinates, with_image.obsm["spatial"][rows] / 2, rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore:names of slides")
def test_scales_of_the_libraries(table, images):
    bare = table.copy()
    bare.obs = bare.obs[["sample"]]

    def um_per_px(sdata):
        return {
            name: get_transformation(sdata[name], f"um-{name}").to_affine_matrix("xy", "xy")[0, 0]
            for name in sdata.shapes
        }

    sdata = from_anndata(bare, images, library_key="sample", um_per_px=0.7)
    assert um_per_px(sdata) == {"Slide_A": 0.7, "b_2": 0.7, "c": 0.7}
    assert sdata["b_2"]["radius"].unique() == pytest.approx(27.5 / 0.7)
    scales = {"Slide A": 1.0, "b/2": 0.5, "c": 2.0}
    sdata = from_anndata(bare, images, library_key="sample", um_per_px=scales)
    assert um_per_px(sdata) == {"Slide_A": 1.0, "b_2": 0.5, "c": 2.0}
    bare.uns["spatial"] = {
        name: {"scalefactors": {"microns_per_pixel": value}} for name, value in scales.items()
    }
    sdata = from_anndata(bare, images, library_key="sample")
    assert um_per_px(sdata) == {"Slide_A": 1.0, "b_2": 0.5, "c": 2.0}
    with pytest.raises(ValueError, match=r"keys of um_per_px= are \['b'\], the libraries in obs"):
        from_anndata(bare, images, library_key="sample", um_per_px={"b": 1.0})
    with pytest.raises(ValueError, match="um_per_px= is a mapping.*pass library_key="):
        from_anndata(bare[bare.obs["sample"] == "c"], None, um_per_px={"c": 1.0})


def test_a_part_of_a_table_has_the_scale_of_its_library(table):
    bare = table.copy()
    bare.obs = bare.obs[["sample"]]
    bare.uns["spatial"] = {
        "c": {"scalefactors": {"microns_per_pixel": 2.0}},
        "b/2": {"scalefactors": {"microns_per_pixel": 0.5}},
    }
    sdata = from_anndata(bare[bare.obs["sample"] == "b/2"], None)
    to_um = get_transformation(sdata["slide"], "um").to_affine_matrix("xy", "xy")
    assert to_um[0, 0] == 0.5


def test_libraries_may_be_numbers_and_have_no_images(table):
    table.obs["sample"] = table.obs["sample"].cat.codes.astype(int)
    sdata = from_anndata(table, None, library_key="sample")
    assert sorted(sdata.shapes) == ["0", "1", "2"]
    sdata = from_anndata(table, {0: None, 1: None, 2: None}, library_key="sample")
    assert sorted(sdata.shapes) == ["0", "1", "2"]


def test_names_of_libraries_that_become_equal_get_numbers(table, images, tmp_path):
    new_names = {"Slide A": "a", "b/2": "A", "c": "a_full_image"}
    table.obs["sample"] = table.obs["sample"].astype(str).map(new_names)
    images = {new_names[name]: image for name, image in images.items()}
    with pytest.warns(UserWarning, match="'A' to 'A_1', 'a_full_image' to 'a_full_image_1'"):
        sdata = from_anndata(table, images, library_key="sample")
    assert sorted(sdata.images) == ["A_1_full_image", "a_full_image"]
    sdata.write(tmp_path / "a.zarr")
    back = spatialdata.read_zarr(tmp_path / "a.zarr")
    rows = (table.obs["sample"] == "A").to_numpy()
    np.testing.assert_allclose(centers_of(back, "A_1"), table.obsm["spatial"][rows])


@pytest.mark.parametrize("labels", [["a", "a_full"], ["a_full", "a"]])
def test_a_library_may_be_named_like_an_image_of_another(labels, table, images):
    table = table[table.obs["sample"] != "c"].copy()
    new_names = dict(zip(["Slide A", "b/2"], labels, strict=True))
    table.obs["sample"] = table.obs["sample"].astype(str).map(new_names)
    images = {new: images[old] for old, new in new_names.items()}
    sdata = from_anndata(table, images, library_key="sample")
    found = {slide.region: slide.image_key for slide in find_slides(sdata, sdata["table"])}
    assert found == {"a": "a_full_image", "a_full": "a_full_full_image"}


def test_library_errors(table, images):
    with pytest.raises(KeyError, match="'slide'.*library_key= one of.*'sample'"):
        from_anndata(table, images, library_key="slide")
    with pytest.raises(
        ValueError, match=r"keys of image= are \['c'\], the libraries in obs\['sample'\] are \["
    ):
        from_anndata(table, {"c": None}, library_key="sample")
    with pytest.raises(ValueError, match="mapping with the keys.*pass library_key="):
        from_anndata(table, images)
    with pytest.raises(ValueError, match="pass image= as a mapping from each of"):
        from_anndata(table, images["b/2"], library_key="sample")
    with pytest.raises(ValueError, match="name='mine' is the name of one slide"):
        from_anndata(table, images, library_key="sample", name="mine")
    unnamed = table.copy()
    unnamed.obs["sample"] = unnamed.obs["sample"].astype(object)
    unnamed.obs.loc[unnamed.obs_names[4], "sample"] = None
    with pytest.raises(ValueError, match=f"1 of 300 spots have no library.*{table.obs_names[4]}"):
        from_anndata(unnamed, images, library_key="sample")
    table.obs["sample"] = table.obs["sample"].astype(str).replace("c", "b/2")
    del images["c"]
    with pytest.warns(UserWarning, match="'b/2' to 'b_2'"):
        with pytest.raises(ValueError, match="share the lattice position"):
            from_anndata(table, images, library_key="sample")


@pytest.fixture
def with_gaps(adata):
    adata.obsm["spatial"][[3, 50]] = np.nan
    adata.obsm["spatial"][70, 1] = np.nan
    return adata


def test_spots_without_coordinates_are_refused_by_name(with_gaps, image, tmp_path):
    add_prediction(with_gaps)
    message = r"3 of 100 spots have no coordinates \(spot3, spot50, spot70\)"
    for call in (
        lambda: from_anndata(with_gaps, image),
        lambda: write_store(with_gaps, tmp_path / "a.zarr"),
        lambda: pl.neighborhoods(with_gaps),
        lambda: pl.expression(with_gaps, ["EPCAM"]),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert list(tmp_path.iterdir()) == []


def test_spots_without_coordinates_are_left_out(with_gaps, image, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("stp"), "propagate", True)
    with caplog.at_level(logging.INFO, "stp"):
        sdata = from_anndata(with_gaps, image, missing="drop")
    assert "Left out 3 of 100 spots, which have no coordinates: spot3, spot50" in caplog.text
    rows = np.setdiff1d(np.arange(100), [3, 50, 70])
    assert sdata["table"].obs_names.tolist() == [f"spot{row}" for row in rows]
    (slide,) = find_slides(sdata, sdata["table"])
    np.testing.assert_allclose(slide.centers, with_gaps.obsm["spatial"][rows])
    assert with_gaps.n_obs == 100


def test_missing_has_two_values(adata, image):
    with pytest.raises(ValueError, match='missing= is "raise" or "drop", not \'ignore\''):
        from_anndata(adata, image, missing="ignore")
    adata.obsm["spatial"][:] = np.nan
    with pytest.raises(ValueError, match="100 of 100 spots have no coordinates"):
        from_anndata(adata, image, missing="drop")


@pytest.mark.parametrize("has_image", [True, False])
def test_shapes_without_coordinates_are_refused_by_name(sdata, stamp, tmp_path, has_image):
    centers = centers_of(sdata, "slide")
    centers[[3, 50]] = np.nan
    systems = get_transformation(sdata["slide"], get_all=True)
    sdata.shapes["slide"] = ShapesModel.parse(
        centers, geometry=0, radius=1.0, transformations=systems
    )
    # A second image, so that the one under the spots is looked for.
    sdata.images["copy"] = sdata.images["slide_full_image"]
    calls = [
        lambda: write_store(
            sdata, tmp_path / "a.zarr", patch_um_per_px=4.0, image_key="slide_full_image"
        )
    ]
    if has_image:
        calls.append(lambda: tl.embed_images(sdata, stamp, image_key="slide_full_image"))
    else:
        sdata.images.clear()
    for call in calls:
        with pytest.raises(ValueError, match=r"2 of 100 spots have .* \(spot3, spot50\)"):
            call()
    rest = sdata["table"][np.setdiff1d(np.arange(100), [3, 50])].copy()
    sdata.tables["table"] = rest
    write_store(
        sdata,
        tmp_path / "a.zarr",
        patch_um_per_px=4.0,
        image_key="slide_full_image" if has_image else None,
    )
    np.testing.assert_allclose(SpotStore(tmp_path / "a.zarr").coordinates, rest.obsm["spatial"])


def test_repeated_ids_of_shapes_and_rows_are_named(sdata):
    shapes = sdata.shapes["slide"]
    sdata.shapes["slide"] = pd.concat([shapes, shapes.iloc[[7]]])
    with pytest.raises(ValueError, match="1 of the spots of 'slide' repeat an id, e.g. 7"):
        find_slides(sdata, sdata["table"])
    sdata.shapes["slide"] = shapes
    sdata["table"].obs["stp_spot"] = [5, 5, *range(2, 100)]
    with pytest.raises(ValueError, match="rows of the table that annotate 'slide' repeat an id"):
        find_slides(sdata, sdata["table"])


def test_coordinates_of_seurat_are_read_by_name(adata, image):
    xy = adata.obsm["spatial"]
    adata.obsm["spatial"] = pd.DataFrame(
        xy[:, ::-1], columns=["imagerow", "imagecol"], index=adata.obs_names
    )
    np.testing.assert_allclose(centers_of(from_anndata(adata, image), "slide"), xy)
    (ax,) = pl.neighborhoods(adata).axes
    points = [artist for artist in ax.collections if isinstance(artist, PathCollection)]
    drawn = np.concatenate([artist.get_offsets() for artist in points])
    assert {tuple(place) for place in drawn.round(3)} == {tuple(place) for place in xy.round(3)}


@pytest.mark.parametrize(
    ("name", "expected"), [("Sample 1", "Sample_1"), ("a/b", "a_b"), ("table", "table_1")]
)
def test_the_name_of_a_slide_becomes_valid(name, expected, adata, image):
    with pytest.warns(UserWarning, match=f"{name!r} to {expected!r}"):
        sdata = from_anndata(adata, image, name=name)
    assert (list(sdata.images), list(sdata.shapes)) == ([f"{expected}_full_image"], [expected])


def test_the_name_of_a_scan_becomes_valid(image, tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    with pytest.warns(UserWarning, match="'scan 1' to 'scan_1'"):
        sdata = read_wsi(tmp_path / "a.tif", um_per_px=1.0, name="scan 1")
    assert list(sdata.images) == ["scan_1_full_image"]


@pytest.mark.parametrize("column", ["a/b", "Cell type (%)", "_index", "Array_row", ""])
def test_columns_are_renamed_in_the_result_only(column, adata, image, tmp_path):
    adata.obs[column] = np.arange(100)
    names = list(adata.obs)
    with pytest.warns(UserWarning, match="names that SpatialData cannot store were changed: obs"):
        sdata = from_anndata(adata, image)
    assert list(adata.obs) == names
    sdata.write(tmp_path / "a.zarr")
    obs = spatialdata.read_zarr(tmp_path / "a.zarr")["table"].obs
    assert obs.iloc[:, 2].tolist() == list(range(100))
    np.testing.assert_array_equal(obs[["array_row", "array_col"]], adata.obs.iloc[:, :2])
    with pytest.warns(UserWarning, match="names that SpatialData cannot store"):
        write_store(adata, tmp_path / "store.zarr")
    assert list(adata.obs) == names
    store = spatialdata.read_zarr(tmp_path / "store.zarr")["table"].obs
    assert store.iloc[:, 2].tolist() == list(range(100))


def test_lists_and_missing_labels_survive_a_store(adata, tmp_path):
    adata.obs["markers"] = [["CD3D", "CD3E"]] + [None] * 99
    adata.obs["label"] = ["tumor", None] * 50
    with pytest.warns(UserWarning, match=r"written as text: obs\['markers'\]"):
        write_store(adata, tmp_path / "a.zarr")
    obs = spatialdata.read_zarr(tmp_path / "a.zarr")["table"].obs
    assert obs["markers"].iloc[0] == "CD3D, CD3E"
    assert obs["markers"].isna().sum() == 99
    assert obs["label"].isna().tolist() == [False, True] * 50
