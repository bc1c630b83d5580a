"""Spots whose x and y are exchanged are noticed by their lattice."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.slides import make_slide

import stp
from stp.images.lattice import warn_if_mirrored
from stp.images.slides import find_slides

TURNS = {
    0: [[1, 0], [0, 1]],
    90: [[0, -1], [1, 0]],
    180: [[-1, 0], [0, -1]],
    270: [[0, 1], [-1, 0]],
    20: [[0.94, -0.342], [0.342, 0.94]],
}


def warnings_of(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(item.message) for item in caught if "mirror image" in str(item.message)]


def lattice(n_rows=6, n_columns=5):
    row, column = (index.ravel() for index in np.indices((n_rows, n_columns)))
    obs = pd.DataFrame({"array_row": row, "array_col": column})
    return obs, np.column_stack([column, row]) * 100.0


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_rotated_lattice_is_not_mirrored_and_exchanged_axes_are(turn):
    obs, pixels = lattice()
    rotated = pixels @ np.transpose(turn)
    assert not warnings_of(lambda: warn_if_mirrored(obs, rotated, "a"))
    (text,) = warnings_of(lambda: warn_if_mirrored(obs, rotated[:, ::-1], "a"))
    assert text.startswith("spots of a are a mirror image of array_row and array_col: x and y may")


def test_a_lattice_that_does_not_fit_or_is_missing_says_nothing():
    obs, pixels = lattice()
    mirrored = pixels[:, ::-1]
    shuffled = np.random.default_rng(0).permutation(mirrored)
    assert not warnings_of(lambda: warn_if_mirrored(obs, shuffled, "a"))
    assert not warnings_of(lambda: warn_if_mirrored(obs[["array_row"]], mirrored, "a"))
    assert not warnings_of(lambda: warn_if_mirrored(obs[:15], mirrored[:15], "a"))


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
    assert "spots of slide are a mirror image" in embedded[0]


@pytest.mark.parametrize("section", ["C2", "C6"])
def test_a_real_section_with_exchanged_axes_is_noticed(section, real):
    adata = anndata.read_h5ad(real("her2st", f"{section}.h5ad"))
    places = adata.obsm["spatial"]
    assert not warnings_of(lambda: warn_if_mirrored(adata.obs, places, section))
    assert len(warnings_of(lambda: warn_if_mirrored(adata.obs, places[:, ::-1], section))) == 1
