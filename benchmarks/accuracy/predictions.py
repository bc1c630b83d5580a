"""Expression of a slide predicted from its image: by STAMP as in the paper, and by baselines."""

import tempfile
from collections.abc import Iterator, Sequence

import anndata
import numpy as np
import torch

import stp
from benchmarks.accuracy.expression import normalize, ridge
from benchmarks.accuracy.slides import GENES, IMAGES, RAW, Embedder, Model, Section
from stp.images.color_texture import color_and_texture
from stp.models import Stamp
from stp.retrieval.position import copy_by_position

CON = "STAMP_Con, no adapter"
CON_ADAPTED = "STAMP_Con"
REG = "STAMP_Reg"
RIDGES = {"ridge on STAMP_V": IMAGES, "ridge on raw backbone": RAW}
PIXELS = "ridge on color and texture"
POSITION = "position"
MEAN = "mean profile"
METHODS = [CON_ADAPTED, CON, REG, *RIDGES, PIXELS, POSITION, MEAN]
EXPRESSION = "stp_expression"
PATCH_PIXELS = 96
PATCH_UM = 112.0


def predict_all(
    train: Sequence[Section], section: Section, embed: Embedder, genes: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each method and what it predicts (n_obs, n_genes).

    Position copies spots of other slides of the same patient, if there are any.
    """
    query = embed(section, section)
    references = [embed(other, section) for other in train]
    if RAW not in query.obsm:
        raise ValueError(f"{embed.path(section)} reads no images; give a Stamp or an image encoder")
    yield from _predict_by_stamp(query, references, embed.model(section), list(genes))
    for name, key in RIDGES.items():
        table = stp.tl.regress_expression(
            query, references, genes=list(genes), use_rep=key, copy=True
        )
        yield name, table.obsm[EXPRESSION]
    expression = [normalize(other.table, genes) for other in train]
    pooled = np.concatenate(expression)
    pixels = np.concatenate([color_and_texture(_patches(other)) for other in train])
    yield PIXELS, ridge(pixels, pooled, color_and_texture(_patches(section)))
    sisters = []
    for other, values in zip(train, expression, strict=True):
        if other.patient == section.patient:
            sisters.append((other.centers, values))
    if sisters:
        yield POSITION, copy_by_position(sisters, section.centers)
    yield MEAN, np.broadcast_to(pooled.mean(axis=0), (section.table.n_obs, len(genes)))


def _predict_by_stamp(
    query: anndata.AnnData, references: list[anndata.AnnData], model: Model, genes: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Predict by retrieval, with and without adapters, and by three linear layers (paper, A.3.3).

    If there are several training slides, adapters and layers stop by their loss on the last one.
    """
    train = references
    validation: list[anndata.AnnData] = []
    if len(references) > 1:
        train = references[:-1]
        validation = references[-1:]
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(model, Stamp) and model.gene_encoder is not None:
            adapted = stp.train.adapt(
                train, f"{folder}/adapted", model=model, validation=validation
            )
            yield CON, _retrieve(query, references, genes)
            adapted_references = [_adapt(table, adapted) for table in references]
            yield CON_ADAPTED, _retrieve(_adapt(query, adapted), adapted_references, genes)
        head = stp.train.fit_expression_head(
            train, f"{folder}/head", genes=genes, validation=validation
        )
        yield REG, stp.tl.apply_expression_head(query, head, copy=True).obsm[EXPRESSION]


def _retrieve(
    query: anndata.AnnData, references: list[anndata.AnnData], genes: list[str]
) -> np.ndarray:
    table = stp.tl.predict_expression(query, references, genes=genes, copy=True)
    return table.obsm[EXPRESSION]


@torch.no_grad()
def _adapt(table: anndata.AnnData, adapted: Stamp) -> anndata.AnnData:
    """Return a table whose aligned vectors are those of the adapted model."""
    table = table.copy()
    _, images = adapted.encode_images(torch.from_numpy(table.obsm[IMAGES]))
    _, genes = adapted.encode_genes(torch.from_numpy(table.obsm[GENES]))
    table.obsm[f"{IMAGES}_aligned"] = images.numpy()
    table.obsm[f"{GENES}_aligned"] = genes.numpy()
    return table


def _patches(section: Section) -> np.ndarray:
    return section.slide.pyramid.read(
        section.slide.centers,
        size=PATCH_PIXELS,
        um_per_px=PATCH_UM / PATCH_PIXELS,
        allow_upsampling=True,
    )
