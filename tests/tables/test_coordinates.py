import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from stp.tables.coordinates import read_coordinates, repeated_place, require_coordinates

XY = np.array([[1.0, 20.0], [3.0, 40.0], [5.0, 60.0]])


def table(spatial):
    adata = anndata.AnnData(np.ones((3, 1), np.float32), obs=pd.DataFrame(index=["a", "b", "c"]))
    adata.obsm["spatial"] = spatial
    return adata


def frame(x, y, **more):
    values = {x: XY[:, 0], y: XY[:, 1], **more}
    return pd.DataFrame(dict(reversed(values.items())), index=["a", "b", "c"])


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("x", "y"),
        ("X", "Y"),
        ("imagecol", "imagerow"),
        ("pxl_col_in_fullres", "pxl_row_in_fullres"),
        ("pixel_x", "pixel_y"),
    ],
)
def test_columns_are_read_by_name_in_any_order(x, y):
    more = {"cell": ["a", "b", "c"], "array_row": [0, 1, 2], "array_col": [2, 1, 0]}
    np.testing.assert_array_equal(read_coordinates(table(frame(x, y, **more))), XY)


def test_two_pairs_that_agree_are_read_and_others_are_refused():
    both = frame("x", "y", imagecol=XY[:, 0], imagerow=XY[:, 1])
    np.testing.assert_array_equal(read_coordinates(table(both)), XY)
    with pytest.raises(ValueError, match=r"two pairs of coordinates that differ, \('x', 'y'\)"):
        read_coordinates(table(both.assign(x=0.0)))


def test_missing_values_and_integers_of_pandas_are_read():
    values = frame("x", "y")
    values["x"] = pd.array([1, None, 5], dtype="Int64")
    expected = XY.copy()
    expected[1, 0] = np.nan
    np.testing.assert_array_equal(read_coordinates(table(values)), expected)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["array_col", "array_row"], "lattice indices such as array_row and array_col are no"),
        (["first", "second"], r"columns \['second', 'first'\], which do not tell x from y; name"),
        (["x", "imagerow"], "do not tell x from y"),
    ],
)
def test_names_that_tell_no_x_are_an_error_that_lists_them(columns, message):
    with pytest.raises(ValueError, match=message):
        read_coordinates(table(frame(*columns)))


def test_arrays_are_read_by_position():
    wide = np.column_stack([XY, [7, 7, 7]])
    np.testing.assert_array_equal(read_coordinates(table(wide)), XY)
    np.testing.assert_array_equal(read_coordinates(table(XY.astype(str))), XY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (XY[:, :1], r"has the shape \(3, 1\)"),
        (scipy.sparse.csr_matrix(XY), "are no numbers|has the shape"),
        (np.array([["a", "b"]] * 3), r"coordinates in obsm\['spatial'\] are no numbers"),
        (frame("x", "y").assign(x="left"), r"coordinates in obsm\['spatial'\] are no numbers"),
    ],
)
def test_other_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        read_coordinates(table(values))


def test_spots_without_coordinates_are_named():
    places = np.full((5, 2), np.nan)
    places[0] = 1
    places[1, 0] = np.inf
    with pytest.raises(ValueError, match=r"^4 of 5 spots have .* \(b, c, d and 1 more\); help$"):
        require_coordinates(places, pd.Index(list("abcde")), "help")
    require_coordinates(places[:1], pd.Index(["a"]), "help")


def test_the_first_repeated_place_is_the_one_of_a_slow_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = rng.integers(0, 6, (9, 2)).astype(float)
        places[rng.random(9) < 0.3, 1] = np.nan
        expected = None
        for second in range(9):
            for first in range(second):
                if expected is None and (places[first] == places[second]).all():
                    expected = (first, second)
        assert repeated_place(places) == expected
