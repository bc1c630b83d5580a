import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from stp.images.coordinates import um_system
from stp.images.scale import (
    bin_um,
    resolve_scale,
    scale_factors,
    um_per_unit_from_lattice,
    um_per_unit_from_places,
)


def hexagonal(um_per_px, jitter_um=0.0, angle=0.0, keep=1.0, shape=(30, 20)):
    """Make a Visium lattice, in pixels."""
    rng = np.random.default_rng(0)
    row, half = (x.ravel() for x in np.meshgrid(*map(np.arange, shape), indexing="ij"))
    obs = pd.DataFrame({"array_row": row, "array_col": 2 * half + row % 2})
    um = np.column_stack([obs["array_col"] * 50.0, obs["array_row"] * 50 * np.sqrt(3)])
    um += rng.normal(0, jitter_um, um.shape)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    is_kept = rng.random(len(um)) < keep
    return obs[is_kept], ((um @ turn.T + 300) / um_per_px)[is_kept]


@pytest.mark.parametrize(
    "section",
    [f"{p}{i}" for p, n in (("C", 6), ("D", 6), ("E", 3), ("F", 3)) for i in range(1, n + 1)],
)
def test_lattice_of_real_spatial_transcriptomics(section, real):
    adata = anndata.read_h5ad(real("her2st", f"{section}.h5ad"))
    pitch = (
        200 * adata.uns["um_per_px"] / um_per_unit_from_lattice(adata.obs, adata.obsm["spatial"])
    )
    assert 198 <= pitch <= 202


def test_lattices_of_real_visium(real):
    samples = pd.read_csv(real("dlpfc", "dlpfc_spots_labels.tsv.gz"), sep="\t").groupby("sample")
    fitted = {
        name: um_per_unit_from_lattice(spots, spots[["px_col", "px_row"]])
        for name, spots in samples
    }
    assert len(fitted) == 12
    # 151673 from its nearest neighbors: 0.730, because these are whole pixels: 137 of 138.03.
    assert fitted[151673] == pytest.approx(0.7245, abs=5e-4)
    assert all(0.718 < value < 0.725 for value in fitted.values())
    for value in fitted.values():
        assert (
            resolve_scale({"um_per_px": 0.73, "the spot lattice": value})[0] == 0.73
        )  # no contradiction


@pytest.mark.parametrize(
    "lattice",
    [
        {},
        {"jitter_um": 10},
        {"angle": 0.7},
        {"keep": 0.3},
        {"jitter_um": 10, "angle": 3.0, "keep": 0.5},
    ],
    ids=["exact", "jitter", "turned", "holes", "all"],
)
def test_lattice_of_synthetic_visium(lattice):
    obs, centers = hexagonal(0.37, **lattice)
    tolerance = 0.005 if "jitter_um" in lattice else 1e-9
    assert um_per_unit_from_lattice(obs, centers) == pytest.approx(0.37, rel=tolerance)


def test_a_fit_is_not_the_median_of_nearest_neighbors():
    obs, centers = hexagonal(1.0, jitter_um=12)
    apart = np.linalg.norm(centers[:, None] - centers, axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert 100 / np.median(apart.min(axis=1)) > 1.1
    assert um_per_unit_from_lattice(obs, centers) == pytest.approx(1.0, rel=0.005)


@pytest.mark.parametrize(
    ("obs", "reason"),
    [
        ({"array_row": [0, 1, 2]}, "no columns"),
        ({"array_row": [0, 1, 2], "array_col": [0, 1, 2]}, "on a line"),
        ({"array_row": [5, 5, 5], "array_col": [1, 1, 1]}, "one place"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_lattice_if_indices_do_not_span_a_plane(obs, reason):
    assert um_per_unit_from_lattice(pd.DataFrame(obs), np.array([[0, 0], [0, 1], [1, 0]])) is None


def test_the_coordinate_system_in_um():
    assert um_system(["global", "um"]) == um_system(["um-a", "um"]) == "um"
    assert um_system(["global-a", "um-a"]) == "um-a"
    assert um_system(["um-a", "um-b"]) is um_system(["global", "umbra"]) is um_system([]) is None


def test_spots_without_place_are_left_out_of_the_fit():
    obs, centers = hexagonal(0.37)
    obs = obs.astype({"array_row": float, "array_col": "Int64"})
    obs.iloc[0, 0], obs.iloc[1, 1], centers[2] = np.nan, pd.NA, np.nan
    assert um_per_unit_from_lattice(obs, centers) == pytest.approx(0.37)
    assert um_per_unit_from_lattice(obs * np.nan, centers) is None


def test_the_first_known_source_wins():
    assert resolve_scale({"a": None, "b": 0.5, "c": 0.51}) == (0.5, "b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no warning while anything better is known
        assert resolve_scale({"a": 0.5}, spot_diameter=10.0) == (0.5, "a")


@pytest.mark.parametrize(
    ("other", "agrees"), [(0.524, True), (0.477, True), (0.526, False), (0.475, False)]
)
def test_sources_may_differ_by_five_percent(other, agrees):
    sources = {"um_per_px": 0.5, "the file": None, "the spot lattice": other}
    if agrees:
        assert resolve_scale(sources) == (0.5, "um_per_px")
        return
    with pytest.raises(ValueError, match="contradict") as error:
        resolve_scale(sources)
    message = str(error.value)
    assert f"um_per_px gives 0.5 µm per pixel, the spot lattice gives {other}" in message
    assert "pass the right one as um_per_px=" in message


def test_the_spot_diameter_comes_last_with_a_warning():
    with pytest.warns(
        UserWarning, match=r"taken from the spot diameter \(65 µm\): pass um_per_px="
    ):
        assert resolve_scale({"a": None}, spot_diameter=130.0) == (0.5, "spot diameter")


@pytest.mark.parametrize("spot_diameter", [None, 0.0])
def test_nothing_known_is_an_error_with_the_remedy(spot_diameter):
    with pytest.raises(
        ValueError, match=r"no physical scale: pass um_per_px= .* array_row and array_col"
    ):
        resolve_scale({"a": None}, spot_diameter)


@pytest.mark.parametrize("value", [0, -0.5, np.nan, np.inf])
def test_a_scale_must_be_positive(value):
    with pytest.raises(ValueError, match="um_per_px gives .* no scale"):
        resolve_scale({"um_per_px": value, "the spot lattice": 0.5})


def test_bins_of_visium_hd_are_a_lattice_of_known_pitch():
    row, col = (x.ravel() for x in np.meshgrid(np.arange(300), np.arange(200), indexing="ij"))
    obs = pd.DataFrame({"array_row": row, "array_col": col})
    centers = np.column_stack([col, row]) * 29.3
    assert (
        um_per_unit_from_lattice(obs, centers) is None
    )  # a large square lattice is of an unknown technology
    assert um_per_unit_from_lattice(obs, centers, bin_um("sample_square_008um")) == pytest.approx(
        8 / 29.3
    )


@pytest.mark.parametrize(
    ("region", "um"),
    [
        ("square_002um", 2),
        ("my_slide_square_016um", 16),
        ("square", None),
        ("square_008um_old", None),
    ],
)
def test_bins_are_known_by_the_name_of_their_region(region, um):
    assert bin_um(region) == um


def test_places_known_in_um():
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, 5000, (50, 2))
    um = centers[:, ::-1] * [0.2125, -0.2125] + [7, 9]  # turned, mirrored and moved
    assert um_per_unit_from_places(um, centers) == pytest.approx(0.2125)
    um[3] = np.nan
    assert um_per_unit_from_places(um, centers) == pytest.approx(0.2125)
    assert um_per_unit_from_places(rng.permutation(um), centers) is None
    assert um_per_unit_from_places(um[:2], centers[:2]) is None


def test_scale_factors_are_those_of_the_region_or_of_the_only_library():
    libraries = {
        name: {"scalefactors": {"microns_per_pixel": value}}
        for name, value in (("a", 0.2), ("b", 0.3))
    }
    assert scale_factors({"spatial": libraries}, "b") == {"microns_per_pixel": 0.3}
    assert (
        scale_factors({"spatial": libraries})
        == scale_factors({})
        == scale_factors({"spatial": np.ones(3)})
        == {}
    )
    assert scale_factors({"spatial": {"a": libraries["a"]}}, "c") == {"microns_per_pixel": 0.2}


def test_flags_of_cellxgene_are_no_libraries():
    library = {"scalefactors": {"microns_per_pixel": 0.2}}
    beside = {"spatial": {"is_single": True, "a": library}}
    assert scale_factors(beside) == {"microns_per_pixel": 0.2}
    assert scale_factors(beside, "a") == {"microns_per_pixel": 0.2}
    assert scale_factors({"spatial": {"is_single": True}}) == {}
    assert scale_factors({"spatial": {"is_single": True}}, "is_single") == {}
