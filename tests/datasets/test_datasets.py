import numpy as np
import pandas as pd
import pytest
import spatialdata
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from spatialdata.transformations import get_transformation

from stp.datasets import synthetic_visium

N_SLIDES = 4


@pytest.fixture(scope="module")
def slides():
    return [synthetic_visium(seed=seed, n_rows=18, n_cols=18) for seed in range(N_SLIDES)]


@pytest.fixture(scope="module")
def fine():
    return synthetic_visium(seed=0, n_rows=8, n_cols=9, um_per_px=0.5, name="fine")


def pixels(sdata):
    (image,) = sdata.images.values()
    return np.moveaxis(image.to_numpy(), 0, -1)


def lattice_um(obs):
    return np.column_stack([100 + 50 * obs["array_col"], 100 + 50 * np.sqrt(3) * obs["array_row"]])


def patches(sdata, size=112):
    image = np.pad(pixels(sdata), ((size // 2,) * 2, (size // 2,) * 2, (0, 0)), mode="edge")
    return [
        image[y : y + size, x : x + size] for x, y in sdata["table"].obsm["spatial"].astype(int)
    ]


def shares(sdata):
    counts = sdata["table"].to_df()
    return counts.div(counts.sum(axis=1), axis=0)


def form(patch):
    """Return texture without color.

    It is the energy of five scales relative to their mean, and how far edges agree in direction.
    """
    red = -np.log((patch[..., 0] + 1.0) / 256)
    scales = [ndimage.gaussian_filter(red, sigma) for sigma in (0, 1, 2, 4, 8, 16)]
    energy = np.log([np.std(a - b) for a, b in zip(scales, scales[1:], strict=False)])
    dy, dx = np.gradient(scales[1])
    agreement = np.hypot((dx**2 - dy**2).mean(), 2 * (dx * dy).mean()) / (dx**2 + dy**2).mean()
    return [*energy - energy.mean(), agreement]


def accuracy_across_slides(features, slides):
    """Return the mean accuracy on a slide of a model that was fitted on the others."""
    labels = [slide["table"].obs["domain"].to_numpy() for slide in slides]
    scores = []
    for test in range(len(slides)):
        train = [i for i in range(len(slides)) if i != test]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        model.fit(
            np.concatenate([features[i] for i in train]), np.concatenate([labels[i] for i in train])
        )
        scores.append(model.score(features[test], labels[test]))
    return np.mean(scores)


def test_elements_have_the_promised_form(fine):
    image = fine.images["fine_full_image"]
    circles = fine.shapes["fine"]
    table = fine.tables["table"]
    assert image.dims == ("c", "y", "x")
    assert image.dtype == np.uint8
    assert table.uns["spatialdata_attrs"] == {
        "region": "fine",
        "region_key": "region",
        "instance_key": "spot_id",
    }
    assert (table.obs["spot_id"].to_numpy() == circles.index).all()
    assert circles["radius"].eq(55).all()
    centers = np.column_stack([circles.geometry.x, circles.geometry.y])
    assert np.allclose(table.obsm["spatial"], centers)
    assert table.uns["spatial"]["fine"]["scalefactors"] == {
        "spot_diameter_fullres": 130,
        "microns_per_pixel": 0.5,
    }


def test_the_six_neighbors_of_a_spot_are_100_um_away(slides):
    obs = slides[0]["table"].obs
    assert ((obs["array_row"] + obs["array_col"]) % 2 == 0).all()
    places = zip(obs["array_row"], obs["array_col"], strict=True)
    center_of = dict(zip(places, slides[0]["table"].obsm["spatial"], strict=True))
    steps = [(0, 2), (0, -2), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    distances = [
        np.linalg.norm(xy - center_of[row + down, col + right])
        for (row, col), xy in center_of.items()
        for down, right in steps
        if (row + down, col + right) in center_of
    ]
    assert len(distances) > 4 * len(center_of)
    assert np.allclose(distances, 100, atol=1e-6, rtol=0)


def test_spots_lie_on_the_lattice_in_um(fine):
    circles = spatialdata.transform(fine.shapes["fine"], to_coordinate_system="um")
    expected = lattice_um(fine["table"].obs)
    centers = np.column_stack([circles.geometry.x, circles.geometry.y])
    assert np.allclose(centers, expected, atol=1e-6, rtol=0)
    assert np.allclose(circles["radius"], 27.5)
    assert np.allclose(fine["table"].obsm["spatial"] * 0.5, expected, atol=1e-6, rtol=0)


def test_image_and_spots_share_their_transformations(fine):
    for system, scale in {"global": 1, "um": 0.5}.items():
        for element in (fine.images["fine_full_image"], fine.shapes["fine"]):
            matrix = get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y"))
            assert np.array_equal(matrix, np.diag([scale, scale, 1]))


def test_counts_are_raw_and_of_visium_like_depth(slides):
    for slide in slides:
        counts = slide["table"].X
        assert counts.format == "csr"
        assert counts.dtype == np.float32
        assert (counts.data == counts.data.round()).all()
        assert counts.data.min() >= 0
        assert 150 < np.median(counts.getnnz(axis=1)) < 400


def test_genes_are_unique_and_contain_known_markers(slides):
    genes = slides[0]["table"].var_names
    assert 400 <= len(genes) <= 600
    assert genes.is_unique
    assert {"EPCAM", "COL1A1", "CD3D", "ADIPOQ", "CA9", "MKI67", "ACTB", "RPL3"} <= set(genes)


def test_each_marker_is_highest_in_its_domain(slides):
    expected = {
        "EPCAM": "tumor",
        "COL1A1": "stroma",
        "CD3D": "immune",
        "ADIPOQ": "adipose",
        "CA9": "necrosis",
    }
    shared = pd.concat([shares(slide)[list(expected)] for slide in slides])
    domains = pd.concat([slide["table"].obs["domain"] for slide in slides]).to_numpy()
    assert shared.groupby(domains).mean().idxmax().to_dict() == expected


def test_a_seed_repeats_image_counts_and_spots(fine):
    again = synthetic_visium(seed=0, n_rows=8, n_cols=9, um_per_px=0.5, name="fine")
    assert np.array_equal(pixels(fine), pixels(again))
    assert (fine["table"].X != again["table"].X).nnz == 0
    assert fine["table"].obs.equals(again["table"].obs)


def test_seeds_differ_in_layout_stain_and_counts(slides):
    first, second = slides[:2]
    assert not np.array_equal(
        first["table"].obs["domain"].to_numpy()[:100],
        second["table"].obs["domain"].to_numpy()[:100],
    )
    assert np.abs(pixels(first).mean(axis=(0, 1)) - pixels(second).mean(axis=(0, 1))).max() > 5
    assert not np.array_equal(first["table"].X[:100].toarray(), second["table"].X[:100].toarray())


def test_resolution_changes_the_scan_only(fine):
    coarse = synthetic_visium(seed=0, n_rows=8, n_cols=9, um_per_px=1, name="fine")
    assert (fine["table"].X != coarse["table"].X).nnz == 0
    assert fine["table"].obs.equals(coarse["table"].obs)
    height, width = (n // 2 * 2 for n in pixels(fine).shape[:2])
    squares = pixels(fine)[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    halved = squares.mean(axis=(1, 3))
    difference = halved - pixels(coarse)[: height // 2, : width // 2]
    assert np.abs(difference).mean() < 5


def test_every_spot_is_on_tissue_and_glass_surrounds_it(slides):
    for slide in slides:
        image = pixels(slide)
        border = np.concatenate([image[:15].reshape(-1, 3), image[-15:].reshape(-1, 3)])
        glass = border.mean(axis=0)
        ink = (glass - [patch.mean(axis=(0, 1)) for patch in patches(slide, size=54)]).max(axis=1)
        assert glass.min() > 220
        assert ink.min() > 4
        assert np.median(ink) > 40


def test_every_domain_is_on_every_slide(slides):
    for slide in slides:
        assert slide["table"].obs["domain"].value_counts().min() >= 10


def test_expression_predicts_domains(slides):
    table = slides[0]["table"]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    expression = np.log1p(1e4 * shares(slides[0]).to_numpy())
    accuracy = cross_val_score(model, expression, table.obs["domain"], cv=3).mean()
    assert 0.8 < accuracy < 0.995  # far above chance, and yet not trivial


def test_color_predicts_domains_much_worse_than_form_and_expression(slides):
    cut = [patches(slide) for slide in slides]
    color = accuracy_across_slides([np.mean(p, axis=(1, 2)) for p in cut], slides)
    texture = accuracy_across_slides([np.array([form(patch) for patch in p]) for p in cut], slides)
    expression = accuracy_across_slides(
        [np.log1p(1e4 * shares(slide).to_numpy()) for slide in slides], slides
    )
    assert expression > 0.85
    assert texture > color + 0.15
    assert color < 0.75 * expression


def test_activity_shows_in_image_and_expression(slides):
    programs = []
    densities = []
    for slide in slides:
        obs = slide["table"].obs
        red = ndimage.gaussian_filter(255.0 - pixels(slide)[..., 0], 1.5)
        peaks = (ndimage.maximum_filter(red, 7) == red) & (red > 0.8 * np.percentile(red, 90))
        x, y = slide["table"].obsm["spatial"].astype(int).T
        obs = obs.assign(density=ndimage.uniform_filter(peaks.astype(float), 112)[y, x])
        obs["program"] = shares(slide)[["MKI67", "TOP2A", "PCNA", "CDK1"]].sum(axis=1)
        by_domain = obs.groupby("domain", observed=True)[["activity", "density", "program"]]
        correlation = by_domain.corr()["activity"].unstack()
        programs.append(correlation["program"].mean())
        densities.append(correlation["density"].mean())
    assert np.mean(programs) > 0.5
    assert np.mean(densities) > 0.2


def test_a_slide_survives_the_disk(fine, tmp_path):
    fine.write(tmp_path / "fine.zarr")
    back = spatialdata.read_zarr(tmp_path / "fine.zarr")
    assert np.array_equal(pixels(back), pixels(fine))
    assert (back["table"].X != fine["table"].X).nnz == 0
    assert back["table"].obs["domain"].astype(str).equals(fine["table"].obs["domain"].astype(str))


@pytest.mark.parametrize(
    "wrong", [{"n_rows": 5}, {"n_cols": 0}, {"um_per_px": 0}, {"um_per_px": float("nan")}]
)
def test_wrong_sizes_are_an_error(wrong):
    with pytest.raises(ValueError, match="must be 6 or more"):
        synthetic_visium(**wrong)
