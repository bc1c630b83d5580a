"""Bins are summed to squares and cells as a slow loop sums them, and nothing is lost unseen."""

import anndata
import geopandas
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import shapely
import spatialdata
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale

from stp import io, tl
from stp.images.slides import find_slides
from stp.tables.sums import sum_rows

UM_PER_PX = 0.5
N_ROWS, N_COLS = 13, 10
REGION = "mine_square_008um"
TABLE = "square_008um"
ANGLE = 0.1  # of the slide against its image


def make_slide(dtype=np.float32, highest=9):
    """Make bins of 8 µm, some of which are missing, on a lattice that is turned by some degrees."""
    rng = np.random.default_rng(0)
    row, col = (axis.ravel() for axis in np.mgrid[:N_ROWS, :N_COLS])
    is_there = rng.random(len(row)) < 0.9
    row, col = row[is_there], col[is_there]
    turn = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
    pitch = 8 / UM_PER_PX
    centers = (np.column_stack([col, row]) + 0.5) @ turn.T * pitch + 100
    counts = rng.integers(0, highest + 1, (len(row), 5)) * (rng.random((len(row), 5)) < 0.5)
    obs = pd.DataFrame({"array_row": row, "array_col": col, "in_tissue": (col > 4).astype(int)})
    obs["region"] = pd.Categorical([REGION] * len(row))
    obs["location_id"] = np.arange(len(row))[::-1]
    obs.index = [f"s_008um_{r:05}_{c:05}-1" for r, c in zip(row, col, strict=True)]
    adata = anndata.AnnData(scipy.sparse.csr_matrix(counts.astype(dtype)), obs=obs)
    adata.var["gene_ids"] = [f"ENSG{number:011}" for number in range(5)]
    factors = {"spot_diameter_fullres": pitch, "bin_size_um": 8.0, "microns_per_pixel": UM_PER_PX}
    adata.uns["spatial"] = {REGION: {"scalefactors": factors}}
    systems = {"mine": Identity(), "um": Scale([UM_PER_PX, UM_PER_PX], axes=("x", "y"))}
    frame = geopandas.GeoDataFrame(geometry=shapely.points(centers)).buffer(pitch / 2)
    shapes = ShapesModel.parse(frame.to_frame("geometry"), transformations=systems)
    shapes.index = np.arange(len(row))[::-1]
    table = TableModel.parse(adata, REGION, "region", "location_id")
    return spatialdata.SpatialData(shapes={REGION: shapes}, tables={TABLE: table})


def sum_slowly(table, size, stride):
    """Return the sums of all squares with a bin, by row and column, and the bins of each."""
    sums, n_bins = {}, {}
    row, col = table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy()
    for i in range(N_ROWS):
        for j in range(N_COLS):
            inside = (row >= i * stride) & (row < i * stride + size)
            inside &= (col >= j * stride) & (col < j * stride + size)
            if inside.any():
                sums[i, j] = table.X[inside].toarray().astype(int).sum(axis=0)
                n_bins[i, j] = inside.sum()
    return sums, n_bins


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 3), (3, 1), (5, 2), (20, 20)])
def test_squares_have_the_counts_of_their_bins(size, stride):
    sdata = make_slide()
    table = sdata[TABLE]
    tl.aggregate_bins(sdata, size_um=8 * size, stride_um=8 * stride, table_key=TABLE)
    new = sdata["bins"]
    sums, n_bins = sum_slowly(table, size, stride)
    places = list(zip(new.obs["array_row"], new.obs["array_col"], strict=True))
    assert places == sorted(sums)
    np.testing.assert_array_equal(new.X.toarray(), [sums[place] for place in places])
    assert new.obs["n_bins"].tolist() == [n_bins[place] for place in places]
    assert new.X.dtype == table.X.dtype
    assert new.var.equals(table.var)
    record = new.uns["stp_bins"]
    assert record["n_bins_outside"] == record["n_counts_outside"] == 0
    assert record["n_counts"] == table.X.sum()
    assert record["n_counts_summed"] == new.X.sum() == sum(map(np.sum, sums.values()))
    if stride == size:
        assert new.X.sum() == table.X.sum()


def test_squares_lie_on_their_bins_and_have_their_scale():
    sdata = make_slide()
    tl.aggregate_bins(sdata, size_um=16, table_key=TABLE, key_added="square_016um")
    new = sdata["square_016um"]
    squares = sdata["square_016um_square_016um"]
    assert squares.area.to_numpy() == pytest.approx((16 / UM_PER_PX) ** 2)
    # A bin of 8 µm around each center lies in the square of 16 µm with half its row and column.
    bins = sdata[REGION].centroid.loc[sdata[TABLE].obs["location_id"]]
    half = sdata[TABLE].obs[["array_row", "array_col"]].to_numpy() // 2
    position = {place: number for number, place in enumerate(zip(*half.T, strict=True))}
    own = [squares.geometry[new.obs["location_id"].iloc[number]] for number in range(new.n_obs)]
    by_place = dict(
        zip(zip(new.obs["array_row"], new.obs["array_col"], strict=True), own, strict=True)
    )
    assert set(by_place) == set(position)
    for center, place in zip(bins, map(tuple, half), strict=True):
        assert by_place[place].contains(center)
    assert shapely.union_all(own).area == pytest.approx(sum(square.area for square in own))
    centroids = shapely.get_coordinates(shapely.centroid(own))
    np.testing.assert_allclose(new.obsm["spatial"], centroids)
    factors = new.uns["spatial"]["square_016um_square_016um"]["scalefactors"]
    assert factors == {
        "spot_diameter_fullres": 16 / UM_PER_PX,
        "bin_size_um": 16.0,
        "microns_per_pixel": UM_PER_PX,
    }
    assert new.obs_names[0] == "s_016um_00000_00000-1"


def test_a_square_is_in_tissue_if_half_of_its_bins_are():
    sdata = make_slide()
    tl.aggregate_bins(sdata, size_um=16, table_key=TABLE)
    new, old = sdata["bins"].obs, sdata[TABLE].obs
    by_square = old.groupby([old["array_row"] // 2, old["array_col"] // 2])["in_tissue"].mean()
    assert new["in_tissue"].tolist() == (by_square >= 0.5).astype(int).tolist()
    assert set(new["in_tissue"]) == {0, 1}


@pytest.mark.parametrize("stride_um", [16, 8])
def test_squares_are_found_on_the_image_at_the_scale_of_the_bins(stride_um):
    from spatialdata.models import Image2DModel

    sdata = make_slide()
    systems = {"mine": Identity(), "um": Scale([UM_PER_PX, UM_PER_PX], axes=("x", "y"))}
    pixels = np.full((400, 400, 3), 128, np.uint8)
    sdata.images["image"] = Image2DModel.parse(
        pixels, dims=("y", "x", "c"), c_coords=["r", "g", "b"], transformations=systems
    )
    tl.aggregate_bins(sdata, size_um=16, stride_um=stride_um, table_key=TABLE)
    (slide,) = find_slides(sdata, sdata["bins"])
    assert slide.pyramid.um_per_px == pytest.approx(UM_PER_PX)
    np.testing.assert_allclose(
        slide.pyramid.to_pixels(slide.centers), sdata["bins"].obsm["spatial"]
    )


@pytest.mark.parametrize(
    ("dtype", "highest", "expected"),
    [
        (np.uint8, 9, np.uint8),
        (np.uint8, 255, np.int64),
        (np.int32, 9, np.int32),
        (np.float32, 9, np.float32),
        (np.float32, 2**23 + 1, np.float64),
    ],
)
def test_sums_are_exact_in_every_type_of_counts(dtype, highest, expected):
    sdata = make_slide(dtype, highest)
    table = sdata[TABLE]
    tl.aggregate_bins(sdata, size_um=40, table_key=TABLE)
    new = sdata["bins"].X
    assert new.dtype == expected
    sums, _ = sum_slowly(table, 5, 5)
    np.testing.assert_array_equal(new.toarray().astype(np.int64), list(sums.values()))


@pytest.mark.parametrize("kind", ["csc", "dense", "dask", "layer"])
def test_every_kind_of_matrix_gives_the_same_sums(kind):
    sdata = make_slide()
    tl.aggregate_bins(sdata, size_um=16, table_key=TABLE, key_added="expected")
    table = sdata[TABLE]
    options = {}
    if kind == "csc":
        table.X = table.X.tocsc()
    elif kind == "dense":
        table.X = table.X.toarray()
    elif kind == "dask":
        dask_array = pytest.importorskip("dask.array")
        table.X = dask_array.from_array(table.X.toarray(), chunks=(7, 2))
    else:
        table.layers["raw"] = table.X
        table.X = table.X.log1p()
        options = {"layer": "raw"}
    tl.aggregate_bins(sdata, size_um=16, table_key=TABLE, **options)
    assert (sdata["bins"].X != sdata["expected"].X).nnz == 0


def test_the_number_of_groups_in_memory_does_not_change_sums():
    table = make_slide()[TABLE]
    membership = scipy.sparse.random(37, table.n_obs, 0.1, format="csr", random_state=0)
    membership.data[:] = 1
    expected = membership.toarray().astype(int) @ table.X.toarray().astype(int)
    for block_groups in (1, 10, 1000):
        sums = sum_rows(table, membership.astype(np.int8), block_groups=block_groups)
        np.testing.assert_array_equal(sums.counts.toarray(), expected)
        assert sums.n_counts == expected.sum()


def add_cells(sdata, system="um"):
    """Add a cell of each kind: far off, two that overlap, and a circle; coordinates are µm."""
    side = 8 * np.array([[-0.1, -0.1], [3.1, -0.1], [3.1, 3.1], [-0.1, 3.1]]) + 50
    outlines = [side + 10_000, side, side + [16, 0], side + [0, 40]]
    cells = geopandas.GeoDataFrame(geometry=[shapely.Polygon(outline) for outline in outlines])
    cells.index = ["far", "a", "b", "c"]
    to_system = Identity()
    if system == "mine":  # the unit of the outlines stays µm
        to_system = Scale([1 / UM_PER_PX, 1 / UM_PER_PX], axes=("x", "y"))
    sdata.shapes["cells"] = ShapesModel.parse(cells, transformations={system: to_system})
    return cells


@pytest.mark.parametrize("system", ["um", "mine"])
def test_a_bin_belongs_to_the_cell_around_its_center(system, capsys):
    sdata = make_slide()
    cells = add_cells(sdata, system)
    capsys.readouterr()
    tl.aggregate_bins(sdata, cells_key="cells", table_key=TABLE)
    table, new = sdata[TABLE], sdata["bins"]
    places = sdata[REGION].centroid.loc[table.obs["location_id"]]
    centers = np.column_stack([places.x, places.y]) * UM_PER_PX
    owner = []
    n_shared = 0
    for x, y in centers:
        names = [name for name in cells.index if cells.geometry[name].covers(shapely.Point(x, y))]
        n_shared += len(names) > 1
        distances = [cells.geometry[name].centroid.distance(shapely.Point(x, y)) for name in names]
        owner.append(names[int(np.argmin(distances))] if names else "")
    owner = np.array(owner)
    assert n_shared > 0 and (owner == "").any()
    assert new.obs_names.tolist() == ["a", "b", "c"]
    for name in new.obs_names:
        expected = table.X[owner == name].sum(axis=0)
        np.testing.assert_array_equal(new[name].X.toarray(), expected)
        assert new.obs.loc[name, "n_bins"] == (owner == name).sum()
    assert new.obs["location_id"].tolist() == ["a", "b", "c"]
    record = new.uns["stp_bins"]
    outside = int(table.X[owner == ""].sum())
    assert record["n_bins_outside"] == (owner == "").sum()
    assert record["n_counts_outside"] == outside
    assert record["n_counts"] == table.X.sum() == new.X.sum() + outside
    assert (record["n_bins_shared"], record["n_cells_without_bins"]) == (n_shared, 1)
    share = outside / table.X.sum()
    assert (
        f"Summed {table.n_obs} bins to 3 cells; {(owner == '').sum()} bins with {share:.1%} of the "
        f"counts are in no cell; 1 cell without a bin left out; {n_shared} bins in several cells."
        in capsys.readouterr().err
    )
    in_um = spatialdata.transform(sdata["cells"], to_coordinate_system="um")
    assert in_um.area.to_numpy() == pytest.approx(cells.area.to_numpy())


def test_a_cell_may_be_a_circle():
    sdata = make_slide()
    center = sdata[REGION].centroid.iloc[40]
    circles = ShapesModel.parse(
        np.array([[center.x, center.y]]),
        geometry=0,
        radius=17,
        transformations={"mine": Identity()},
    )
    sdata.shapes["nuclei"] = circles
    tl.aggregate_bins(sdata, cells_key="nuclei", table_key=TABLE)
    distance = sdata[REGION].centroid.distance(center).loc[sdata[TABLE].obs["location_id"]]
    expected = sdata[TABLE].X[distance.to_numpy() <= 17].sum(axis=0)
    np.testing.assert_array_equal(sdata["bins"].X.toarray(), expected)
    assert sdata["bins"].obs["n_bins"].tolist() == [(distance <= 17).sum()]


def test_a_copy_leaves_the_slide_as_it_is_and_a_second_call_replaces_its_result():
    sdata = make_slide()
    new = tl.aggregate_bins(sdata, size_um=16, table_key=TABLE, copy=True)
    assert (list(sdata.tables), list(sdata.shapes)) == ([TABLE], [REGION])
    assert "spatialdata_attrs" not in new.uns
    tl.aggregate_bins(sdata, size_um=16, table_key=TABLE)
    assert (sdata["bins"].X != new.X).nnz == 0
    tl.aggregate_bins(sdata, size_um=24, table_key=TABLE)
    assert sdata["bins"].n_obs < new.n_obs


def test_squares_are_summed_again_unless_they_overlap():
    sdata = make_slide()
    tl.aggregate_bins(sdata, size_um=16, table_key=TABLE)
    tl.aggregate_bins(sdata, size_um=32, table_key="bins", key_added="twice")
    tl.aggregate_bins(sdata, size_um=32, table_key=TABLE, key_added="once")
    assert (sdata["twice"].X != sdata["once"].X).nnz == 0
    tl.aggregate_bins(sdata, size_um=16, stride_um=8, table_key=TABLE, key_added="overlap")
    with pytest.raises(ValueError, match="the squares of table 'overlap' overlap"):
        tl.aggregate_bins(sdata, size_um=32, table_key="overlap")


def test_a_store_of_bins_is_summed_and_written_again(tmp_path):
    sdata = make_slide()
    tl.aggregate_bins(sdata, size_um=16, table_key=TABLE)
    sdata.write(tmp_path / "slide.zarr")
    read = spatialdata.read_zarr(tmp_path / "slide.zarr")
    assert (read["bins"].X != sdata["bins"].X).nnz == 0
    assert read["bins"].uns["stp_bins"]["params"]["size_um"] == 16


def drop_scale(sdata):
    sdata[TABLE].uns.pop("spatial")
    spatialdata.transformations.remove_transformation(sdata[REGION], "um")
    sdata.shapes["plain"] = sdata.shapes[REGION]
    sdata[TABLE].obs["region"] = pd.Categorical(["plain"] * sdata[TABLE].n_obs)
    sdata[TABLE].uns["spatialdata_attrs"]["region"] = "plain"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "size_um=None and cells_key=None: pass exactly one"),
        ({"size_um": 16, "cells_key": "cells"}, "pass exactly one"),
        ({"size_um": 20}, r"size_um=20 is no multiple of the bins of 8 µm.*size_um= 16 or 24"),
        ({"size_um": 8}, r"size_um=8 .*pass size_um= 16 or 24"),
        ({"size_um": 16, "stride_um": 12}, r"stride_um=12 .*pass stride_um= 8 or 16"),
        ({"size_um": 16, "stride_um": 24}, "bins between the squares would be lost"),
        ({"cells_key": "cells", "stride_um": 8}, "stride_um=8 is for squares"),
        ({"size_um": 16, "key_added": REGION}, "is another element of the SpatialData"),
        ({"cells_key": "far"}, "no bin has its center in a shape of 'far'"),
        ({"cells_key": "elsewhere"}, "share no coordinate system with the bins"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options, message):
    sdata = make_slide()
    outlines = geopandas.GeoDataFrame(geometry=add_cells(sdata).geometry.to_numpy())
    far = outlines[:1].copy()
    sdata.shapes["far"] = ShapesModel.parse(far, transformations={"um": Identity()})
    sdata.shapes["elsewhere"] = ShapesModel.parse(outlines, transformations={"x": Identity()})
    with pytest.raises(ValueError, match=message):
        tl.aggregate_bins(sdata, table_key=TABLE, **options)
    assert list(sdata.tables) == [TABLE]


def test_bins_without_a_lattice_or_a_scale_or_cells_are_refused():
    sdata = make_slide()
    with pytest.raises(TypeError, match="AnnData has none: pass a SpatialData"):
        tl.aggregate_bins(sdata[TABLE], size_um=16)
    with pytest.raises(KeyError, match="no shapes 'nothing'; pass cells_key= one of"):
        tl.aggregate_bins(sdata, cells_key="nothing", table_key=TABLE)
    drop_scale(sdata)
    with pytest.raises(ValueError, match="have no scale in µm"):
        tl.aggregate_bins(sdata, size_um=16, table_key=TABLE)
    sdata = make_slide()
    del sdata[TABLE].obs["array_row"]
    with pytest.raises(ValueError, match="is no square lattice of bins"):
        tl.aggregate_bins(sdata, size_um=16, table_key=TABLE)


def test_cells_may_be_turned_against_the_bins():
    sdata = make_slide()
    add_cells(sdata)
    tl.aggregate_bins(sdata, cells_key="cells", table_key=TABLE, key_added="expected")
    cells = sdata["cells"]
    matrix = np.array([[0.6, -0.8, 5], [0.8, 0.6, -3], [0, 0, 1]])
    turned = cells.affine_transform(
        [*np.linalg.inv(matrix)[:2, :2].ravel(), *np.linalg.inv(matrix)[:2, 2]]
    )
    sdata.shapes["turned"] = ShapesModel.parse(
        turned.to_frame("geometry"),
        transformations={"um": Affine(matrix, ("x", "y"), ("x", "y"))},
    )
    tl.aggregate_bins(sdata, cells_key="turned", table_key=TABLE)
    assert (sdata["bins"].X != sdata["expected"].X).nnz == 0


def test_bins_of_a_square_lattice_without_a_name_take_the_scale_of_the_slide():
    row, col = (axis.ravel() for axis in np.mgrid[:6, :6])
    obs = pd.DataFrame({"array_row": row, "array_col": col}, index=[f"bin{i}" for i in range(36)])
    adata = anndata.AnnData(
        scipy.sparse.csr_matrix(np.ones((36, 2), np.float32)),
        obs=obs,
        obsm={"spatial": np.column_stack([col, row]) * 10.0 + 20},
    )
    sdata = io.from_anndata(adata, np.full((100, 100, 3), 128, np.uint8), spot_pitch_um=5)
    tl.aggregate_bins(sdata, size_um=10)
    assert sdata["bins"].X.toarray().tolist() == [[4, 4]] * 9
