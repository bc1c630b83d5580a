import matplotlib.pyplot as plt
import numpy as np
import pytest

from stp import io, pl, tl


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def slides(adata, image, record_model):
    """Make three slides with vectors. One spot of each reference is near spot3, and no other is."""
    slides = []
    for seed, picture in enumerate([image, 255 - image, image // 2]):
        sdata = io.from_anndata(adata[:16].copy(), picture, um_per_px=1.0, name=f"slide{seed}")
        table = sdata.tables["table"]
        vectors = np.zeros((16, 4), np.float32)
        vectors[:, 1] = 1
        vectors[5 + seed] = (1, 0, seed / 4, 0)
        table.obsm["X_stp_images_aligned"] = table.obsm["X_stp_genes_aligned"] = vectors
        record_model(table, "X_stp_images", "X_stp_genes")
        slides.append((sdata, picture))
    query = slides[0][0].tables["table"]
    query.obsm["X_stp_images_aligned"] = np.tile(np.eye(1, 4, dtype=np.float32), (16, 1))
    return slides


def test_patches_are_those_of_the_references(slides):
    (query, _), *others = slides
    references = [sdata for sdata, _ in others]
    tl.predict_expression(query, references, genes=["LUM"], n_neighbors=3)
    axes = pl.retrieval(query, references, "spot3", n_shown=2, patch_um=112.0).axes
    names = [ax.get_title().split("\n") for ax in axes]
    assert [name[0] for name in names] == ["spot3", "spot6", "spot7"]
    region = [references[i].tables["table"].obs["stp_region"].iloc[0] for i in (0, 1)]
    assert [name[1] for name in names[1:]] == region
    cosines = 1 / np.sqrt(1 + 1 / 16), 1 / np.sqrt(1 + 1 / 4)
    shares = np.array(cosines) / sum(cosines)
    expected = [f"cosine {c:.2f}, {s:.1%}" for c, s in zip(cosines, shares, strict=True)]
    assert [name[2] for name in names[1:]] == expected
    for ax, (sdata, picture), spot in zip(axes, slides, ("spot3", "spot6", "spot7"), strict=True):
        x, y = sdata.tables["table"][spot].obsm["spatial"][0].astype(int)
        drawn = ax.images[0].get_array()[112, 112].astype(float)
        assert np.abs(drawn[:2] - picture[y, x, :2]).max() < 8  # blue is noise


def test_what_cannot_be_drawn_is_an_error(slides):
    (query, _), *others = slides
    references = [sdata for sdata, _ in others]
    with pytest.raises(KeyError, match=r"run stp\.tl\.predict_expression"):
        pl.retrieval(query, references, "spot3")
    query.tables["table"].obsm["X_stp_images_aligned"][4] = np.nan
    tl.predict_expression(query, references, genes=["LUM"], n_neighbors=2)
    with pytest.raises(KeyError, match="no spot 'nowhere'"):
        pl.retrieval(query, references, "nowhere")
    with pytest.raises(ValueError, match="spot 'spot4' has no prediction"):
        pl.retrieval(query, references, "spot4")
    with pytest.raises(ValueError, match="give the references of the prediction"):
        pl.retrieval(query, references[0], "spot3")
