"""Maps of attention and contributions: at the true place, in a stated unit, on visible tissue."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata
from matplotlib.collections import PolyCollection
from matplotlib_scalebar.scalebar import ScaleBar
from tests.features import example_features, katherlab_25, write_clam, write_katherlab
from tests.scored_tiles import ALL_KINDS, TILE_UM, log_odds, make_model, score_slide

from stp import io, pl, tl


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scored")
    score_slide(path)
    return path


@pytest.fixture
def tiles(folder):
    """The tile store of a slide, scored for one target of two classes."""
    return spatialdata.read_zarr(folder / "tiles.zarr")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def squares(ax):
    (collection,) = [item for item in ax.collections if isinstance(item, PolyCollection)]
    return collection


def color_bar(ax):
    (inset,) = ax.child_axes
    return inset


def test_tiles_are_squares_at_their_place_on_the_thumbnail(tiles):
    tissue, attention, contribution = pl.attention(tiles).axes
    titles = [ax.get_title() for ax in (tissue, attention, contribution)]
    assert titles == ["H&E", "attention", "EGFR: mutated"]
    centers = tiles["table"].obsm["spatial"] * 0.5
    for ax in (attention, contribution):
        corners = np.array([path.vertices[:4] for path in squares(ax).get_paths()])
        np.testing.assert_allclose(corners.mean(axis=1), centers, atol=0.01)
        np.testing.assert_allclose(np.ptp(corners, axis=1), TILE_UM, atol=1e-6)
        assert ax.images[0].get_extent() == pytest.approx([0, 280, 280, 0])
        assert ax.get_ylim()[0] > ax.get_ylim()[1]
        assert any(isinstance(artist, ScaleBar) for artist in ax.artists)


def test_colors_have_a_stated_unit_and_diverge_at_zero(tiles):
    _, attention, contribution = pl.attention(tiles).axes
    drawn = squares(contribution)
    np.testing.assert_allclose(drawn.get_array(), log_odds(tiles["table"]), atol=1e-7)
    assert drawn.norm.vmin == -drawn.norm.vmax < 0
    assert color_bar(contribution).get_ylabel() == "contribution per tile, log-odds of mutated"
    shares = squares(attention)
    np.testing.assert_allclose(shares.get_array().sum(), 100, rtol=1e-5)
    assert shares.norm.vmin == 0
    assert color_bar(attention).get_ylabel() == "% of the patient's attention, per tile"


def test_weak_values_let_the_tissue_through(tiles):
    _, _, contribution = pl.attention(tiles).axes
    opacity = squares(contribution).get_cmap()([0.0, 0.5, 1.0])[:, 3]
    assert opacity[1] < 0.15 < 0.7 < min(opacity[0], opacity[2])
    pixels = np.asarray(contribution.images[0].get_array())
    assert (np.ptp(pixels, axis=2) == 0).all()
    assert np.ptp(pixels) > 50


def test_the_slide_itself_gives_the_same_map(tiles, folder):
    sdata = io.read_wsi(folder / "slide.tif", tile_um=TILE_UM)
    sdata["table"].obs = tiles["table"].obs.set_axis(sdata["table"].obs_names)
    for key in ("stp_attention_contribution",):
        sdata["table"].obsm[key] = tiles["table"].obsm[key]
    sdata["table"].uns["stp_attention"] = tiles["table"].uns["stp_attention"]
    maps = [squares(pl.attention(data).axes[2]) for data in (sdata, tiles)]
    corners = [np.array([path.vertices[:4] for path in m.get_paths()]) for m in maps]
    np.testing.assert_allclose(corners[0], corners[1], atol=0.01)


def test_every_kind_of_target_has_a_unit_in_which_tiles_add_up(tmp_path):
    sdata = score_slide(tmp_path, ALL_KINDS)
    table = sdata["table"]
    model = make_model(table, ALL_KINDS)
    axes = pl.attention(sdata).axes[1:]
    titles = [ax.get_title().replace("\n", " ") for ax in axes]
    assert titles == [
        "grade: attention",
        "grade: low",
        "grade: middle",
        "grade: high",
        "purity: attention",
        "purity",
        "days: attention",
        "days: before 100",
        "days: 100 to 300",
        "days: from 300",
    ]
    sums = {title: squares(ax).get_array().sum() for title, ax in zip(titles, axes, strict=True)}
    classes = [sums[f"grade: {name}"] for name in ("low", "middle", "high")]
    np.testing.assert_allclose(sum(classes), 0, atol=1e-5)
    outputs = table.uns["stp_attention"]["outputs"]
    logits = (outputs["logit"] - outputs["bias"]).to_numpy()
    np.testing.assert_allclose(classes, logits[:3] - logits[:3].mean(), atol=1e-5)
    predicted = table.uns["stp_attention"]["predictions"].loc["purity", "value"]
    bias = 50 + 10 * float(model.heads[1].bias.detach())
    np.testing.assert_allclose(sums["purity"] + bias, predicted, rtol=1e-5)
    assert color_bar(axes[5]).get_ylabel() == "contribution per tile, in units of purity"
    assert color_bar(axes[7]).get_ylabel() == "contribution per tile, log-odds of the event"


def test_one_panel_is_drawn_into_own_axes_and_saved(tiles, tmp_path):
    figure, ax = plt.subplots()
    path = tmp_path / "map.svg"
    assert pl.attention(tiles, color="EGFR_wild type", ax=ax, cmap="PuOr", save=path) is None
    np.testing.assert_allclose(squares(ax).get_array(), -log_odds(tiles["table"]), atol=1e-7)
    assert "log-odds of wild type" in color_bar(ax).get_ylabel()
    assert path.read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="ax is one panel, but color has 2 names"):
        pl.attention(tiles, ax=ax)


def test_values_beyond_the_scale_are_announced(tmp_path):
    corners = [(56 * (n % 20), 56 * (n // 20)) for n in range(300)]
    features = example_features(300)
    path = write_katherlab(tmp_path / "a.h5", features, corners, **katherlab_25(TILE_UM, 16))
    sdata = score_features(path)
    values = sdata["table"].obsm["stp_attention_contribution"]
    values[:] = np.linspace(-1, 1, 300)[:, None] * [1, 0]
    assert squares(pl.attention(sdata).axes[1]).norm.vmax == pytest.approx(0.495, rel=0.01)
    values[0, 0] = -50
    drawn = squares(pl.attention(sdata).axes[1])
    assert drawn.norm.vmax == pytest.approx(0.495, rel=0.01)
    assert drawn.colorbar.extend == "both"
    values[:] = np.linspace(0, 1, 300)[:, None] * [1, 0]
    values[0, 0] = -50
    assert squares(pl.attention(sdata).axes[1]).colorbar.extend == "both"


def test_a_slide_of_one_tile_is_seen_with_its_surroundings(tiles):
    table = tiles["table"]
    tiles.tables["table"] = table[:1].copy()
    _, attention, _ = pl.attention(tiles).axes
    assert np.ptp(attention.get_xlim()) >= 3 * TILE_UM


def test_measured_spots_are_circles(embedded):
    model = make_model_of_spots(embedded["table"])
    tl.score_tiles(embedded, model, use_rep="X_stp_genes_aligned")
    axes = pl.attention(embedded, color="stp_attention").axes
    assert [ax.get_title() for ax in axes] == ["H&E", "attention"]
    (circles,) = axes[1].collections
    assert len(circles.get_offsets()) == embedded["table"].n_obs


def make_model_of_spots(table):
    from stp.models import SlideFeatures, SlideModel, SlideModelConfig
    from stp.models.slide_config import SlideTarget

    values = table.obsm["X_stp_genes_aligned"]
    digest = table.uns["X_stp_genes"]["model"]["digest"]
    features = SlideFeatures(values.shape[1], "Stamp", "Stamp", digest)
    target = SlideTarget("value", "purity")
    return SlideModel(SlideModelConfig(features, (target,), hidden=16, attention=8)).eval()


@pytest.mark.parametrize(("color", "listed"), [("EFGR", "stp_attention"), ("obs", "EGFR_mutated")])
def test_unknown_names_are_refused(tiles, color, listed):
    with pytest.raises(KeyError, match=f"neither attention nor an output.*{listed}"):
        pl.attention(tiles, color=color)


def test_a_table_alone_has_no_places(tiles):
    with pytest.raises(TypeError, match="AnnData has none: pass the SpatialData of the tiles"):
        pl.attention(tiles["table"])


def test_tiles_without_scores_name_the_call(folder):
    sdata = io.read_wsi(folder / "slide.tif", tile_um=TILE_UM)
    with pytest.raises(KeyError, match="run stp.tl.score_tiles"):
        pl.attention(sdata)


def score_features(path):
    sdata = io.read_features(path)
    table = sdata["table"]
    table.obsm["X_stp_images"] = table.obsm["X_features"]
    table.uns["X_stp_images"] = table.uns["X_features"]
    tl.score_tiles(sdata, make_model(table), use_rep="X_features")
    return sdata


@pytest.mark.filterwarnings("ignore:the .*not recorded")
def test_features_without_places_are_refused_with_the_remedy(tmp_path):
    corners = np.arange(12).reshape(6, 2) * 224
    sdata = score_features(write_clam(tmp_path / "a.h5", example_features(), corners))
    with pytest.raises(ValueError, match="the tiles have no places; features of TRIDENT and CLAM"):
        pl.attention(sdata)


def test_features_of_other_tools_are_drawn_without_tissue(tmp_path):
    corners = [(56 * (n % 3), 56 * (n // 3)) for n in range(6)]
    path = write_katherlab(
        tmp_path / "a.h5", example_features(), corners, **katherlab_25(TILE_UM, 16)
    )
    axes = pl.attention(score_features(path)).axes
    assert [ax.get_title() for ax in axes] == ["attention", "EGFR: mutated"]
    assert not axes[0].images
    assert any(isinstance(artist, ScaleBar) for artist in axes[0].artists)
    assert len(squares(axes[0]).get_paths()) == 6
