"""Slides of different sizes, scales, lattices and gene panels in one alignment."""

import dataclasses

import numpy as np
import PIL.Image
import pytest

from stp import Vocabulary
from stp.data.store import SpotStore
from stp.io import from_anndata, write_store
from stp.models import Stamp
from stp.train import AlignConfig, align


@pytest.fixture
def mixed(slide_of, tmp_path):
    """Three stores: one with symbols, a smaller and finer one with Ensembl ids, a small panel."""
    default = Vocabulary.default()
    paths = [tmp_path / f"{name}.zarr" for name in ("visium", "small", "panel")]
    for seed, path in enumerate(paths):
        adata, image = slide_of(seed, n_rows=10 - 3 * seed)
        um_per_px = (1.0, 0.7, 1.3)[seed]
        size = np.round(np.array(image.shape[1::-1]) / um_per_px).astype(int)
        image = np.asarray(PIL.Image.fromarray(image).resize(tuple(size)))
        adata.obsm["spatial"] = adata.obsm["spatial"] / um_per_px
        if seed == 1:
            adata.var_names = default.gene_ids[default.encode(adata.var_names)]
        if seed == 2:
            adata = adata[:, 4:20].copy()
        write_store(
            from_anndata(adata, image, um_per_px=um_per_px, name=path.stem),
            path,
            patch_um_per_px=4.0,
        )
    return paths


def test_slides_of_different_kinds_train_together(mixed, stamp, tiny_config, tmp_path):
    shapes = [SpotStore(path).pyramid.levels[0].shape for path in mixed]
    assert len(set(shapes)) == 3
    config = AlignConfig(
        epochs=1,
        batch_size=12,
        accumulate=1,
        spots_per_slide=2,
        min_genes=5,
        rotate=True,
        stain_jitter=0.1,
    )
    encoders = {"gene_encoder": stamp.gene_encoder, "image_encoder": tiny_config.image}
    assert isinstance(align(mixed, tmp_path / "out", config=config, **encoders), Stamp)
    lines = (tmp_path / "out" / "metrics.jsonl").read_text()
    assert '"loss"' in lines
    with pytest.raises(ValueError, match="spots_per_slide 20 does not fit batch_size 12"):
        dataclasses.replace(config, spots_per_slide=20)
