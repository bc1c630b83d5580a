"""Spots whose x and y are exchanged are noticed by their lattice."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.slides import make_slide

import stp
from stp.images.lattice import warn_if_exchanged
from stp.images.slides import find_slides

TURNS = {
    0: [[1, 0], [0, 1]],
    90: [[0, -1], [1, 0]],
    180: [[-1, 0], [0, -1]],
    270: [[0, 1], [-1, 0]],
    20: [[0.94, -0.342], [0.342, 0.94]],
}

COLUMNS = [
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
]


def warnings_of(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(item.message) for item in caught if "may be exchanged" in str(item.message)]


def lattice(n_rows=6, n_columns=5):
    row, column = (index.ravel() for index in np.indices((n_rows, n_columns)))
    obs = pd.DataFrame({"array_row": row, "array_col": column})
    return obs, np.column_stack([column, row]) * 100.0


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_rotated_lattice_is_right(turn):
    obs, pixels = lattice()
    assert not warnings_of(lambda: warn_if_exchanged(obs, pixels @ np.transpose(turn), "a"))


@pytest.mark.parametrize("signs", [(-1, 1), (1, -1)], ids=["left to right", "upside down"])
def test_a_flipped_lattice_is_right(signs):
    """Images of CytAssist are flipped."""
    obs, pixels = lattice()
    assert not warnings_of(lambda: warn_if_exchanged(obs, pixels * signs, "a"))


@pytest.mark.parametrize("degrees", [0, -25, 25])
def test_exchanged_axes_are_noticed(degrees):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    obs, pixels = lattice()
    exchanged = (pixels @ turn.T)[:, ::-1]
    (text,) = warnings_of(lambda: warn_if_exchanged(obs, exchanged, "a"))
    assert text.startswith("rows of the lattice of a (array_row) go to the right of the image")


def test_a_lattice_that_does_not_fit_or_is_missing_says_nothing():
    obs, pixels = lattice()
    exchanged = pixels[:, ::-1]
    shuffled = np.random.default_rng(0).permutation(exchanged)
    assert not warnings_of(lambda: warn_if_exchanged(obs, shuffled, "a"))
    assert not warnings_of(lambda: warn_if_exchanged(obs[["array_row"]], exchanged, "a"))
    assert not warnings_of(lambda: warn_if_exchanged(obs[:15], exchanged[:15], "a"))


def test_exchanged_axes_are_noticed_when_a_slide_is_read_and_when_it_is_embedded():
    adata, image = make_slide(0, 6, 6)
    assert not warnings_of(lambda: stp.io.from_anndata(adata, image, um_per_px=1.0))
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    read = []
    found = warnings_of(lambda: read.append(stp.io.from_anndata(adata, image, um_per_px=1.0)))
    assert len(found) == 1
    assert "exchange the columns" in found[0]
    assert not warnings_of(lambda: stp.io.from_anndata(adata, None, um_per_px=1.0))
    (slide,) = read
    embedded = warnings_of(lambda: find_slides(slide, slide.tables["table"]))
    assert len(embedded) == 1
    assert "rows of the lattice of slide (array_row)" in embedded[0]


@pytest.mark.parametrize("section", ["C2", "C6"])
def test_a_real_section_with_exchanged_axes_is_noticed(section, real):
    adata = anndata.read_h5ad(real("her2st", f"{section}.h5ad"))
    places = adata.obsm["spatial"]
    assert not warnings_of(lambda: warn_if_exchanged(adata.obs, places, section))
    assert len(warnings_of(lambda: warn_if_exchanged(adata.obs, places[:, ::-1], section))) == 1


POSITIONS = {
    "Visium": "scanpy_visium_data/1.0.0/spatial/tissue_positions_list.csv",
    "Visium of Space Ranger 1": "Spaniel_sr1/outs/spatial/tissue_positions_list.csv",
    "Visium HD": ("seurat_visium_hd/binned_outputs/square_016um/spatial/tissue_positions.parquet"),
}


@pytest.mark.parametrize("file", POSITIONS.values(), ids=POSITIONS)
def test_positions_of_space_ranger_are_right(file, real):
    path = real("space_ranger", file)
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
    else:
        table = pd.read_csv(path, header=None, names=COLUMNS)
    pixels = table[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(float)
    assert not warnings_of(lambda: warn_if_exchanged(table, pixels, "a"))
    if path.suffix == ".csv":
        assert len(warnings_of(lambda: warn_if_exchanged(table, pixels[:, ::-1], "a"))) == 1


def test_a_real_section_with_other_names_of_its_lattice_is_noticed(real):
    adata = anndata.read_h5ad(real("mob_st", "mob_rep04.h5ad"))
    assert {"array_x", "array_y"} <= set(adata.obs)
    places = adata.obsm["spatial"]
    assert not warnings_of(lambda: warn_if_exchanged(adata.obs, places, "a"))
    (text,) = warnings_of(lambda: warn_if_exchanged(adata.obs, places[:, ::-1], "a"))
    assert "(array_y) go to the right of the image and its columns (array_x) go down" in text
