"""The tiles of a slide lie on its tissue: by stain, or by the polygons of other tools."""

import json
import logging

import geopandas
import numpy as np
import pytest
import shapely
import tifffile

from stp._log import logger
from stp.images import mask_to_polygons
from stp.io import read_wsi

TILE_UM = 56
SIDE = 56  # of a tile in pixels; the slide has 1 µm per pixel
N = 10  # tiles along a side of the slide
TISSUE = (slice(2, 8), slice(1, 6))  # rows and columns of the tiles that are tissue
INKS = {"blue": (30, 60, 170), "green": (20, 120, 70), "black": (20, 20, 22)}


@pytest.fixture
def pixels():
    """A slide of glass with a piece of H&E: pink, with dark nuclei."""
    rng = np.random.default_rng(0)
    slide = 243 + rng.normal(0, 1.5, (N * SIDE, N * SIDE, 3))
    rows, columns = (slice(part.start * SIDE, part.stop * SIDE) for part in TISSUE)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    nuclei = rng.random((height // 4, width // 4)) < 0.35
    is_nucleus = nuclei.repeat(4, axis=0).repeat(4, axis=1)[..., None]
    tissue = np.where(is_nucleus, (80, 50, 120), (215, 130, 175))
    slide[rows, columns] = tissue + rng.normal(0, 6, tissue.shape)
    return np.clip(slide, 0, 255).round().astype(np.uint8)


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("stp"), "propagate", True)
    caplog.set_level(logging.INFO, logger.name)
    return caplog


@pytest.fixture
def read(tmp_path, pixels):
    """Return a function that reads the slide, and gives the grid (N, N) of its tiles."""

    def read_tiles(slide=pixels, **options):
        path = tmp_path / "slide.tif"
        tifffile.imwrite(path, slide, photometric="rgb", tile=(128, 128))
        sdata = read_wsi(path, um_per_px=1.0, tile_um=TILE_UM, **options)
        columns, rows = (sdata["table"].obsm["spatial"].T // SIDE).astype(int)
        tiles = np.zeros((N, N), bool)
        tiles[rows, columns] = True
        return tiles

    return read_tiles


@pytest.fixture
def on_tissue():
    tiles = np.zeros((N, N), bool)
    tiles[TISSUE] = True
    return tiles


def box(left, top, right, bottom):
    """Return the polygon of a rectangle of tiles."""
    return shapely.box(left * SIDE, top * SIDE, right * SIDE, bottom * SIDE)


def feature(polygon, **properties):
    return {"type": "Feature", "geometry": shapely.geometry.mapping(polygon)} | {
        "properties": properties
    }


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


# ---- stain and ink


def test_tissue_is_what_is_stained(read, on_tissue, log):
    np.testing.assert_array_equal(read(), on_tissue)
    assert log.messages[-1] == (
        "Kept 30 of 100 tiles of 56 µm, of which at least 50% is stained tissue; left out 0 tiles "
        "with pen marks."
    )


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("is_opaque", [True, False], ids=["opaque", "transparent"])
def test_pen_marks_are_left_out(ink, is_opaque, read, pixels, on_tissue, log):
    rows = slice(4 * SIDE, 6 * SIDE)  # a stroke through tissue and glass
    color = np.array(INKS[ink])
    stroke = pixels[rows]
    pixels[rows] = color if is_opaque else (stroke * (color / 245.0)).astype(np.uint8)
    expected = on_tissue.copy()
    expected[4:6] = False
    np.testing.assert_array_equal(read(), expected)
    assert "left out 20 tiles with pen marks." in log.messages[-1]


def test_the_rest_of_a_tile_that_a_stroke_touches_counts(read, pixels, on_tissue):
    pixels[: N * SIDE, 2 * SIDE : 2 * SIDE + 16] = INKS["blue"]
    np.testing.assert_array_equal(read(), on_tissue)
    on_tissue[TISSUE[0], 2] = False
    np.testing.assert_array_equal(read(min_tissue=0.8), on_tissue)


def test_red_ink_counts_as_tissue(read, pixels, on_tissue):
    pixels[4 * SIDE : 6 * SIDE] = (200, 30, 40)
    on_tissue[4:6] = True
    np.testing.assert_array_equal(read(), on_tissue)


@pytest.mark.parametrize(
    "color",
    [(70, 40, 110), (60, 30, 100), (120, 80, 50), (60, 38, 24), (100, 60, 140), (130, 140, 175)],
    ids=["nuclei", "dark nuclei", "DAB", "dark DAB", "hematoxylin", "pale hematoxylin"],
)
def test_dark_stains_are_tissue(color, read, pixels, on_tissue):
    rows, columns = (slice(part.start * SIDE, part.stop * SIDE) for part in TISSUE)
    noise = np.random.default_rng(1).integers(-5, 6, pixels[rows, columns].shape)
    pixels[rows, columns] = np.array(color) + noise
    np.testing.assert_array_equal(read(), on_tissue)


def test_a_slide_of_ink_is_refused(read, pixels):
    pixels[:] = 243
    pixels[: 5 * SIDE] = INKS["green"]
    with pytest.raises(ValueError, match="without the ink of pens, which covers 50 tiles, the ful"):
        read()


def test_a_real_slide_of_glass(real, log):
    sdata = read_wsi(real("wsi", "glass-1065626.svs"), tile_um=112)
    assert log.messages[-1].startswith("Kept 4 of 2385 tiles of 112 µm")
    # Cell clumps, counted on the picture; all of them lie in two groups.
    x, y = sdata["table"].obsm["spatial"].T
    assert ((x > 4700) & (x < 8600) & (y > 6100) & (y < 7700)).all()


def test_a_real_slide_with_a_stroke_of_green_ink(real, tmp_path):
    slide = tifffile.imread(real("wsi", "CMU-1-Small-Region.svs"), series=0)
    side = 224  # of a tile in pixels
    slide[4 * side : 6 * side] = 0.85 * np.array(INKS["green"]) + 0.15 * slide[4 * side : 6 * side]
    tifffile.imwrite(tmp_path / "a.tif", slide, photometric="rgb")
    tables = [
        read_wsi(path, um_per_px=0.5, tile_um=112)["table"]
        for path in (real("wsi", "CMU-1-Small-Region.svs"), tmp_path / "a.tif")
    ]
    rows = [table.obsm["spatial"][:, 1] // side for table in tables]
    is_free = ~np.isin(rows[0], (4, 5))
    assert tables[1].obs_names.tolist() == tables[0].obs_names[is_free].tolist()
    assert not is_free.all()


# ---- polygons


def test_polygons_decide_by_their_share_of_a_tile(read, on_tissue, log):
    outline = box(1.5, 2.5, 5.7, 8)
    on_tissue[2, [1, 5]] = False  # 0.25 and 0.35 of them
    np.testing.assert_array_equal(read(tissue=outline), on_tissue)
    assert log.messages[-1] == (
        "Kept 28 of 100 tiles of 56 µm, of which at least 50% lies in the 1 polygon of tissue=."
    )
    strict = read(tissue=outline, min_tissue=1.0)
    expected = np.zeros((N, N), bool)
    expected[3:8, 2:5] = True
    np.testing.assert_array_equal(strict, expected)


HOLE = shapely.difference(box(1, 2, 6, 8), box(3, 4, 5, 6))
PARTS = shapely.MultiPolygon([box(1, 2, 3, 8), box(3, 2, 6, 8)])
CLASS = {"name": "Tissue", "color": [150, 150, 200]}
FILES = {
    "QuPath": {
        "type": "FeatureCollection",
        "features": [
            feature(HOLE, objectType="annotation", classification=CLASS, isLocked=False)
            | {"id": "0f4be1c2"}
        ],
    },
    "QuPath, a list": [
        feature(HOLE, classification={"name": "Tissue", "colorRGB": -377})
        | {"id": "PathAnnotationObject"}
    ],
    "QuPath, several parts": {
        "type": "FeatureCollection",
        "features": [feature(PARTS, objectType="annotation")],
    },
    "TRIDENT": {
        "type": "FeatureCollection",
        "name": "slide",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}},
        "features": [feature(box(1, 2, 3, 8), tissue_id=0), feature(box(3, 2, 6, 8), tissue_id=1)],
    },
    "LazySlide": {
        "type": "FeatureCollection",
        "features": [feature(HOLE, tissue_id=0, objectType="annotation", classification=None)],
    },
    "a feature": feature(HOLE),
    "a feature without properties": feature(HOLE) | {"properties": None},
    "a geometry": shapely.geometry.mapping(PARTS),
    "a collection of geometries": {
        "type": "GeometryCollection",
        "geometries": [shapely.geometry.mapping(part) for part in PARTS.geoms],
    },
}


@pytest.mark.parametrize("form", FILES)
def test_geojson_of_all_forms_is_read(form, read, on_tissue, tmp_path):
    has_hole = form in ("QuPath", "QuPath, a list", "LazySlide") or form.startswith("a feature")
    on_tissue[4:6, 3:5] = not has_hole
    tiles = read(tissue=write(tmp_path / "tissue.geojson", FILES[form]))
    np.testing.assert_array_equal(tiles, on_tissue)


def test_polygons_of_shapely_and_geopandas_are_read(read, on_tissue):
    forms = [
        PARTS,
        list(PARTS.geoms),
        (part for part in PARTS.geoms),
        geopandas.GeoSeries(list(PARTS.geoms)),
        geopandas.GeoDataFrame({"tissue_id": [0, 1]}, geometry=list(PARTS.geoms)),
        shapely.GeometryCollection([PARTS, shapely.Point(3, 3)]),
    ]
    for form in forms:
        np.testing.assert_array_equal(read(tissue=form), on_tissue)


def test_a_mask_is_read_through_its_polygons(read, on_tissue):
    mask = on_tissue.repeat(7, axis=0).repeat(7, axis=1)  # of a thumbnail at 8 µm per pixel
    polygons = mask_to_polygons(mask, 8.0, slide_um_per_px=1.0)
    np.testing.assert_array_equal(read(tissue=polygons, min_tissue=1.0), on_tissue)


def test_classes_that_are_mixed_are_asked_about(read, on_tissue, tmp_path):
    features = [
        feature(box(1, 2, 6, 5), classification={"name": "Tissue"}),
        feature(box(1, 5, 6, 8), classification={"names": ["Tumor", "Ki67"]}),
        feature(box(7, 7, 9, 9), classification={"name": "Ignore*"}),
        feature(box(8, 1, 9, 3)),
    ]
    path = write(tmp_path / "a.geojson", features)
    with pytest.raises(
        ValueError,
        match=r"a\.geojson has annotations of the classes \['\(no class\)', 'Ignore\*', 'Tissue', "
        r"'Tumor: Ki67'\]; pass tissue_class=",
    ):
        read(tissue=path)
    np.testing.assert_array_equal(
        read(tissue=path, tissue_class=["Tissue", "Tumor: Ki67"]), on_tissue
    )
    on_tissue[5:] = False
    np.testing.assert_array_equal(read(tissue=path, tissue_class="Tissue"), on_tissue)
    with pytest.raises(KeyError, match=r"no annotation of the classes \['tissue'\]; pass tissue_"):
        read(tissue=path, tissue_class="tissue")
    with pytest.raises(ValueError, match="tissue_class='Tissue' chooses from a GeoJSON file"):
        read(tissue=HOLE, tissue_class="Tissue")
    with pytest.raises(ValueError, match="tissue_class= chooses from a GeoJSON file; pass its pa"):
        read(tissue_class="Tissue")


def test_cells_of_qupath_are_no_tissue(read, on_tissue, tmp_path):
    cells = [
        feature(box(8, 8, 9, 9), objectType="cell", classification={"name": "Tumor"}),
        feature(box(8, 7, 9, 8)) | {"id": "PathDetectionObject"},
    ]
    path = write(tmp_path / "a.geojson", [*cells, feature(PARTS, objectType="annotation")])
    np.testing.assert_array_equal(read(tissue=path), on_tissue)
    path = write(tmp_path / "b.geojson", cells)
    with pytest.raises(ValueError, match=r"b\.geojson has only objects of the types \['cell', 'd"):
        read(tissue=path)


def test_invalid_polygons_are_made_valid(read, on_tissue):
    # A bow tie: two triangles that meet in the middle.
    x, y = [1, 6, 1, 6], [2, 8, 8, 2]
    bow_tie = shapely.Polygon(np.column_stack([x, y]) * SIDE)
    assert not bow_tie.is_valid
    tiles = read(tissue=bow_tie)
    assert tiles[:, :6].any() and not (tiles & ~on_tissue).any()
    assert 10 < tiles.sum() < 20  # half of the 30 tiles


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "FeatureCollection", "features": []}, r"a\.geojson has no polygons; export anno"),
        ([], r"a\.geojson has no polygons"),
        (feature(shapely.Point(3, 3)), "no polygon with an area: it has 1 geometries, and points"),
        ({"features": []}, "cannot be read as GeoJSON"),
        (7, "cannot be read as GeoJSON"),
        ({"type": "Polygon", "coordinates": [[[0, 0]]]}, "cannot be read as GeoJSON"),
        ({"type": "Pixels", "coordinates": []}, "cannot be read as GeoJSON"),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [0, 9], [float("nan"), 9]]]},
            "coordinates that are NaN or infinite",
        ),
    ],
)
def test_files_without_polygons_are_refused(content, message, read, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tissue=write(tmp_path / "a.geojson", content))


def test_a_file_that_is_missing_or_no_json_is_refused(read, tmp_path):
    with pytest.raises(FileNotFoundError, match="no GeoJSON file at"):
        read(tissue=tmp_path / "b.geojson")
    (tmp_path / "a.geojson").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="cannot be read as GeoJSON"):
        read(tissue=str(tmp_path / "a.geojson"))


@pytest.mark.parametrize("thing", [7, {"type": "Polygon"}, [1, 2], np.eye(3, dtype=bool)])
def test_other_types_are_refused(thing, read):
    with pytest.raises(TypeError, match="tissue= accepts the path of a GeoJSON file, shapely pol"):
        read(tissue=thing)


def test_polygons_outside_the_image_are_refused(read, on_tissue):
    with pytest.raises(
        ValueError,
        match=r"20% of the area of the polygons of tissue= lies on the image of 560 x 560 pixels: "
        r"they reach from x = 56 to 2576 and from y = 0 to 560; coordinates are .* not µm",
    ):
        read(tissue=box(1, 0, 46, 10))
    with pytest.warns(UserWarning, match="90% of the area .* the rest is ignored"):
        read(tissue=box(1, 2, 11, 8))
    read(tissue=box(0, 0, 10, 10))


def test_polygons_on_glass_are_warned_about(read):
    thumbnail = shapely.affinity.scale(box(1, 2, 6, 8), 0.25, 0.25, origin=(0, 0))
    with pytest.warns(UserWarning, match="only 0% of the pixels of the tiles in tissue= are stain"):
        assert read(tissue=thumbnail).sum() == 2
    with pytest.raises(ValueError, match="no tile of 56 µm lies 90% in the polygons of tissue=, t"):
        read(tissue=box(1.5, 2.5, 2.6, 3.6), min_tissue=0.9)


def test_tissue_needs_tiles(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    with pytest.raises(ValueError, match="tissue= chooses tiles, and there are none; pass tile_um"):
        read_wsi(tmp_path / "a.tif", um_per_px=1.0, tissue=HOLE)
    with pytest.raises(ValueError, match="tile_um must be positive, not 0"):
        read_wsi(tmp_path / "a.tif", um_per_px=1.0, tile_um=0)
