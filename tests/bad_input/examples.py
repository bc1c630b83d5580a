"""The values of a case's parameters. Each case gets new ones, so cases do not affect each other."""

from functools import cache
from pathlib import Path

import pandas as pd
import spatialdata
from anndata import AnnData
from tests.cohorts import write_cohort
from tests.predictions import binary_cohort
from tests.visium_hd import write_visium_hd

import stp

GENE = stp.models.GeneEncoderConfig(context_length=32, width=32, depth=1, n_heads=2, ffn_width=32)
IMAGE = stp.models.ImageEncoderConfig(
    "vit_tiny_patch16_224",
    {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
    image_size=32,
    um_per_px=4.0,
)


@cache
def _slide(name: str) -> spatialdata.SpatialData:
    return stp.datasets.synthetic_visium(seed=1, n_rows=6, n_cols=6, um_per_px=4, name=name)


def slide(name: str = "slide") -> spatialdata.SpatialData:
    original = _slide(name)
    return spatialdata.SpatialData(
        images=dict(original.images),
        shapes=dict(original.shapes),
        tables={"table": original["table"].copy()},
    )


def table() -> AnnData:
    return slide()["table"]


def bins() -> spatialdata.SpatialData:
    """Write a slide of Visium HD to the current folder, and return its bins."""
    write_visium_hd(Path("visium_hd"), 10, 10, um_per_px=2.0)
    return stp.io.read_visium_hd("visium_hd", bin_um=8)


@cache
def vocabulary() -> stp.Vocabulary:
    return stp.Vocabulary.default().fit([table()])


def stamp() -> stp.models.Stamp:
    return stp.models.Stamp(stp.models.StampConfig(GENE, IMAGE, projection_width=32), vocabulary())


@cache
def _embedded() -> AnnData:
    sdata = slide()
    model = stamp()
    stp.tl.tokenize(sdata, model)
    stp.tl.embed_genes(sdata, model, progress=False)
    stp.tl.embed_images(sdata, model, progress=False)
    return sdata["table"]


def embedded() -> spatialdata.SpatialData:
    sdata = slide()
    sdata.tables["table"] = _embedded().copy()
    return sdata


def reference() -> AnnData:
    """Return another slide, with gene vectors of the same model."""
    other = _embedded().copy()
    other.obs_names = "reference_" + other.obs_names
    return other


def slides() -> pd.DataFrame:
    """Write features of slides to the current folder, and return their table."""
    return pd.read_csv(write_cohort(Path("features")) / "slides.csv")


def cohort() -> AnnData:
    return stp.io.read_cohort(slides(), root="features")


def predicted() -> AnnData:
    return binary_cohort()[0]


EXAMPLES = {
    "sdata": slide,
    "adata": table,
    "bins": bins,
    "vocabulary": vocabulary,
    "model": stamp,
    "embedded": embedded,
    "reference": reference,
    "slides": slides,
    "cohort": cohort,
    "predicted": predicted,
}
