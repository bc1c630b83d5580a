import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from stp import pl
from stp.data.neighborhoods import neighborhoods


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("kind", ["adata", "sdata"])
def test_groups_and_spots_without_a_group_are_drawn(kind, request):
    data = request.getfixturevalue(kind)
    table = data.tables["table"] if kind == "sdata" else data
    groups = neighborhoods(table.obsm["spatial"], np.random.default_rng(3))
    (ax,) = pl.neighborhoods(data, seed=3).axes
    lines = [artist for artist in ax.collections if isinstance(artist, LineCollection)]
    assert [len(artist.get_segments()) for artist in lines] == [8] * len(groups)
    np.testing.assert_allclose(lines[0].get_segments()[0][0], table.obsm["spatial"][groups[0, 0]])
    assert ax.get_title() == f"{len(groups)} groups of 9, {groups.size}% of 100 spots"
    (circles,) = [artist for artist in ax.collections if artist.get_label() == "left out"]
    assert len(circles.get_offsets()) == 100 - groups.size
    assert ax.yaxis_inverted()


def test_missing_coordinates_are_an_error(adata):
    del adata.obsm["spatial"]
    with pytest.raises(KeyError, match="spatial"):
        pl.neighborhoods(adata)


def test_a_real_section_is_drawn(real):
    import anndata

    figure = pl.neighborhoods(anndata.read_h5ad(real("her2st", "C4.h5ad")))
    assert "of 184 spots" in figure.axes[0].get_title()
