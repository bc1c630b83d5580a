"""The lattice of the spots: its fit, its kind, and the scale that it gives."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

from stp.images.lattice import bin_um, lattice_scale, um_per_unit_from_lattice
from stp.images.scale import resolve_scale

SECTIONS = [f"{p}{i}" for p, n in (("C", 6), ("D", 6), ("E", 3), ("F", 3)) for i in range(1, n + 1)]


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


def square(pitch, shape=(14, 14)):
    """Make a square grid whose spots are `pitch` apart."""
    row, col = (x.ravel() for x in np.meshgrid(*map(np.arange, shape), indexing="ij"))
    obs = pd.DataFrame({"array_row": row, "array_col": col})
    return obs, np.column_stack([col, row]) * float(pitch)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_real_section_of_spatial_transcriptomics_needs_its_pitch(section, real):
    adata = anndata.read_h5ad(real("her2st", f"{section}.h5ad"))
    centers = adata.obsm["spatial"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its jittered spots fit the lattice
        assert um_per_unit_from_lattice(adata.obs, centers) is None
        pitch = 200 * adata.uns["um_per_px"] / um_per_unit_from_lattice(adata.obs, centers, 200)
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
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in fitted.values():
            resolve_scale({"um_per_px": 0.73, "the spot lattice": value})  # no contradiction


@pytest.mark.parametrize(
    "lattice",
    [
        {},
        {"jitter_um": 5},
        {"angle": 0.7},
        {"keep": 0.3},
        {"jitter_um": 5, "angle": 3.0, "keep": 0.5},
    ],
    ids=["exact", "jitter", "turned", "holes", "all"],
)
def test_lattice_of_synthetic_visium(lattice):
    obs, centers = hexagonal(0.37, **lattice)
    tolerance = 0.005 if "jitter_um" in lattice else 1e-9
    assert um_per_unit_from_lattice(obs, centers) == pytest.approx(0.37, rel=tolerance)
    # Swapped or mirrored axes of the image do not change a distance.
    mirrored = centers[:, ::-1] * [-1, 1]
    assert um_per_unit_from_lattice(obs, mirrored) == pytest.approx(0.37, rel=tolerance)


def test_a_fit_is_not_the_median_of_nearest_neighbors():
    obs, centers = hexagonal(1.0, jitter_um=6)
    apart = np.linalg.norm(centers[:, None] - centers, axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert 100 / np.median(apart.min(axis=1)) > 1.06
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


def test_spots_without_place_are_left_out_of_the_fit():
    obs, centers = hexagonal(0.37)
    obs = obs.astype({"array_row": float, "array_col": "Int64"})
    obs.iloc[0, 0], obs.iloc[1, 1], centers[2] = np.nan, pd.NA, np.nan
    assert um_per_unit_from_lattice(obs, centers) == pytest.approx(0.37)
    assert um_per_unit_from_lattice(obs * np.nan, centers) is None


def test_bins_of_visium_hd_are_a_lattice_of_known_pitch():
    obs, centers = square(29.3, (300, 200))
    assert um_per_unit_from_lattice(obs, centers) is None
    hd = um_per_unit_from_lattice(obs, centers, bin_um("sample_square_008um"))
    assert hd == pytest.approx(8 / 29.3)


@pytest.mark.parametrize(
    ("region", "um"),
    [
        ("square_002um", 2),
        ("my_slide_square_016um", 16),
        ("bins_square_016um_every_008um", 8),
        ("square", None),
        ("square_008um_old", None),
    ],
)
def test_bins_are_known_by_the_name_of_their_region(region, um):
    assert bin_um(region) == um


# ---- indices that do not belong to the coordinates


def shuffled(obs, centers):
    return obs, np.random.default_rng(0).permutation(centers)


def exchange_a_few(obs, centers):
    centers = centers.copy()
    centers[-20:] = centers[-20:][::-1]
    return obs, centers


def number_anew(obs, centers):
    """Number pooled squares anew after empty ones were left out, as HEST does."""
    in_circle = np.linalg.norm(centers - centers.mean(axis=0), axis=1) < np.ptp(centers[:, 0]) / 2.2
    number = np.arange(in_circle.sum())
    width = 1 + obs["array_col"].max()
    anew = pd.DataFrame({"array_row": number // width, "array_col": number % width})
    return anew, centers[in_circle]


def halve_columns(obs, centers):
    """Number the columns within each row, so that every second row is half a spot off."""
    return obs.assign(array_col=obs["array_col"] // 2), centers


@pytest.mark.parametrize(
    ("spots", "change"),
    [
        (hexagonal(0.5), shuffled),
        (square(100), shuffled),
        (hexagonal(0.5, shape=(8, 8)), exchange_a_few),
        (square(256, (30, 30)), number_anew),
        (hexagonal(0.5), halve_columns),
    ],
    ids=["shuffled", "shuffled squares", "20 of 64 exchanged", "numbered anew", "columns halved"],
)
@pytest.mark.parametrize("pitch_um", [None, 200])
def test_a_lattice_that_does_not_fit_gives_no_scale(spots, change, pitch_um):
    obs, centers = change(*spots)
    with pytest.warns(UserWarning, match="array_row and array_col do not belong to the spot coord"):
        assert um_per_unit_from_lattice(obs, centers, pitch_um) is None


def test_the_residual_may_be_up_to_ten_percent_of_the_pitch():
    obs, centers = square(100, (100, 100))
    noise = np.random.default_rng(0).normal(0, 1, centers.shape)
    noise /= np.sqrt((noise**2).sum(axis=1).mean())
    assert um_per_unit_from_lattice(obs, centers + 9.8 * noise, 50) == pytest.approx(0.5, rel=1e-3)
    with pytest.warns(UserWarning, match=r"is 10% of the distance between spots \(limit 10%\)"):
        assert um_per_unit_from_lattice(obs, centers + 10.3 * noise, 50) is None


def test_exchanged_rows_and_columns_are_no_visium_lattice():
    obs, centers = hexagonal(0.5)
    obs = obs.rename(columns={"array_row": "array_col", "array_col": "array_row"})
    with pytest.warns(UserWarning, match=r"seem to be exchanged: columns are 1\.73 times"):
        assert um_per_unit_from_lattice(obs, centers) is None


@pytest.mark.parametrize(
    ("stretch", "counts"), [(1.0, True), (1.09, True), (1.12, False), (0.88, False)]
)
def test_rows_of_visium_are_about_the_square_root_of_three_columns_apart(stretch, counts):
    obs, centers = hexagonal(0.5)
    value = um_per_unit_from_lattice(obs, centers * [1, stretch])
    assert (value is not None) == counts


def test_a_square_grid_of_which_every_second_spot_is_left_is_no_visium_lattice():
    obs, centers = square(100)
    has_one_parity = (obs.sum(axis=1) % 2 == 0).to_numpy()
    assert um_per_unit_from_lattice(obs[has_one_parity], centers[has_one_parity]) is None


def test_rows_and_columns_of_different_distance_are_no_square_grid():
    obs, centers = square(100)
    assert um_per_unit_from_lattice(obs, centers * [1, 2], 50) is None


# ---- the pitch that the caller gives


@pytest.mark.parametrize("pitch_um", [50, 100, 200])
def test_a_square_grid_gives_a_scale_only_with_its_pitch(pitch_um):
    obs, centers = square(pitch_um / 0.5)
    scale = lattice_scale(obs, centers)
    assert scale.is_square
    assert set(scale.um_per_unit.values()) == {None}
    given = lattice_scale(obs, centers, spot_pitch_um=pitch_um)
    assert given.um_per_unit["spot_pitch_um"] == pytest.approx(0.5)


def test_a_pitch_that_is_not_that_of_visium_is_a_contradiction():
    obs, centers = hexagonal(0.5)
    scale = lattice_scale(obs, centers, spot_pitch_um=100)
    assert scale.um_per_unit == pytest.approx({"the spot lattice": 0.5, "spot_pitch_um": 0.5})
    diameter = lattice_scale(obs, centers, spot_pitch_um=55)  # of a spot, not the distance
    assert diameter.um_per_unit["spot_pitch_um"] == pytest.approx(0.275)
    with pytest.raises(ValueError, match=r"lattice gives 0\.5 .* spot_pitch_um gives 0\.275"):
        resolve_scale(diameter.um_per_unit)


@pytest.mark.parametrize("pitch_um", [0, -200, np.nan, np.inf])
def test_a_pitch_is_a_positive_distance(pitch_um):
    with pytest.raises(ValueError, match=r"spot_pitch_um=.* is no distance in µm between spots"):
        lattice_scale(*square(100), spot_pitch_um=pitch_um)


def test_a_pitch_needs_a_lattice():
    obs, centers = square(100)
    with pytest.raises(ValueError, match=r"spot_pitch_um=200 needs array_row and array_col in obs"):
        lattice_scale(obs[["array_row"]], centers, spot_pitch_um=200)
    with pytest.raises(ValueError, match=r"spot_pitch_um=200 needs array_row and array_col in obs"):
        lattice_scale(obs, centers * [1, 2], spot_pitch_um=200)
