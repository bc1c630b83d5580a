import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from stp._scale import lattice_um_per_unit, resolve


def hexagonal(um_per_px, jitter_um=0.0, angle=0.0, keep=1.0, shape=(30, 20)):
    """Make a Visium lattice, in pixels."""
    rng = np.random.default_rng(0)
    row, half = (x.ravel() for x in np.meshgrid(*map(np.arange, shape), indexing="ij"))
    obs = pd.DataFrame({"array_row": row, "array_col": 2 * half + row % 2})
    um = np.column_stack([obs["array_col"] * 50.0, obs["array_row"] * 50 * np.sqrt(3)])
    um += rng.normal(0, jitter_um, um.shape)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    kept = rng.random(len(um)) < keep
    return obs[kept], ((um @ turn.T + 300) / um_per_px)[kept]


@pytest.mark.parametrize("section", ["C2", "C3", "C4", "C5", "C6"])
def test_lattice_of_real_spatial_transcriptomics(section, real):
    adata = anndata.read_h5ad(real("her2st", f"{section}.h5ad"))
    fitted = lattice_um_per_unit(adata.obs, adata.obsm["spatial"])
    assert fitted == pytest.approx(adata.uns["um_per_px"], rel=0.01)


def test_lattice_of_real_visium(real):
    spots = pd.read_csv(real("dlpfc", "dlpfc_spots_labels.tsv.gz"), sep="\t").groupby("sample").get_group(151673)
    fitted = lattice_um_per_unit(spots, spots[["px_col", "px_row"]])
    assert fitted == pytest.approx(0.7245, abs=5e-4)  # nearest neighbors on whole pixels: 0.730


@pytest.mark.parametrize(
    "how",
    [{}, {"jitter_um": 10}, {"angle": 0.7}, {"keep": 0.3}, {"jitter_um": 10, "angle": 3.0, "keep": 0.5}],
    ids=["exact", "jitter", "turned", "holes", "all"],
)
def test_lattice_of_synthetic_visium(how):
    obs, centers = hexagonal(0.37, **how)
    tolerance = 0.005 if "jitter_um" in how else 1e-9
    assert lattice_um_per_unit(obs, centers) == pytest.approx(0.37, rel=tolerance)


def test_a_fit_is_not_the_median_of_nearest_neighbors():
    obs, centers = hexagonal(1.0, jitter_um=12)
    apart = np.linalg.norm(centers[:, None] - centers, axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert 100 / np.median(apart.min(axis=1)) > 1.1
    assert lattice_um_per_unit(obs, centers) == pytest.approx(1.0, rel=0.005)


@pytest.mark.parametrize(
    ("obs", "why"),
    [
        ({"array_row": [0, 1, 2]}, "no columns"),
        ({"array_row": [0, 1, 2], "array_col": [0, 1, 2]}, "on a line"),
        ({"array_row": [5, 5, 5], "array_col": [1, 1, 1]}, "one place"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_lattice_where_indices_do_not_span_a_plane(obs, why):
    assert lattice_um_per_unit(pd.DataFrame(obs), np.array([[0, 0], [0, 1], [1, 0]])) is None


def test_the_first_known_source_wins():
    assert resolve({"a": None, "b": 0.5, "c": 0.51}) == (0.5, "b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no warning while anything better is known
        assert resolve({"a": 0.5}, spot_diameter=10.0) == (0.5, "a")


@pytest.mark.parametrize(("other", "agrees"), [(0.524, True), (0.477, True), (0.526, False), (0.475, False)])
def test_sources_may_differ_by_five_percent(other, agrees):
    sources = {"um_per_px": 0.5, "the file": None, "the spot lattice": other}
    if agrees:
        assert resolve(sources) == (0.5, "um_per_px")
        return
    with pytest.raises(ValueError, match="contradict") as error:
        resolve(sources)
    message = str(error.value)
    assert f"um_per_px gives 0.5 um per pixel, the spot lattice gives {other}" in message
    assert "pass the right one as um_per_px=" in message


def test_the_spot_diameter_comes_last_with_a_warning():
    with pytest.warns(UserWarning, match=r"taken from the spot diameter \(65 um\): pass um_per_px="):
        assert resolve({"a": None}, spot_diameter=130.0) == (0.5, "spot diameter")


@pytest.mark.parametrize("spot_diameter", [None, 0.0])
def test_nothing_known_is_an_error_with_the_remedy(spot_diameter):
    with pytest.raises(ValueError, match=r"no physical scale: pass um_per_px= .* array_row and array_col"):
        resolve({"a": None}, spot_diameter)


@pytest.mark.parametrize("value", [0, -0.5, np.nan, np.inf])
def test_a_scale_must_be_positive(value):
    with pytest.raises(ValueError, match="um_per_px gives .* no scale"):
        resolve({"um_per_px": value, "the spot lattice": 0.5})
