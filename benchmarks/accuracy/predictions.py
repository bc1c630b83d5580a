"""Expression of a slide predicted from its image: by STAMP as in the paper, and by every baseline."""

import tempfile
from collections.abc import Iterator, Sequence

import anndata
import numpy as np
import torch

import stp
from benchmarks.expression import color_and_texture, normalized, position, ridge
from benchmarks.slides import FEATURES, RAW, Embedder, Section
from stp.models import Stamp
from stp.tables import keys

CON, CON_ADAPTED, REG = "STAMP_Con, no adapter", "STAMP_Con", "STAMP_Reg"
RIDGES = {"ridge on STAMP_V": FEATURES["STAMP_V"], "ridge on raw backbone": RAW}
PIXELS, POSITION, MEAN = "ridge on color and texture", "position", "mean profile"
METHODS = [CON_ADAPTED, CON, REG, *RIDGES, PIXELS, POSITION, MEAN]


def predictions(
    train: Sequence[Section], section: Section, embed: Embedder, genes: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each method and what it predicts (n_obs, n_genes); position copies spots of the patient's other slides."""
    query, references = embed(section, section), [embed(one, section) for one in train]
    if RAW not in query.obsm:
        raise ValueError(f"{embed.path(section)} reads no images; give a Stamp or an image encoder")
    named = {"genes": list(genes)}
    yield from _of_stamp(query, references, embed.model(section), named)
    for name, key in RIDGES.items():
        yield (
            name,
            stp.tl.regress_expression(query, references, **named, use_rep=key, copy=True).obsm[
                keys.EXPRESSION
            ],
        )
    expressed = [normalized(one.table, genes) for one in train]
    pooled, pixels = (
        np.concatenate(expressed),
        np.concatenate([color_and_texture(_patches(one)) for one in train]),
    )
    yield PIXELS, ridge(pixels, pooled, color_and_texture(_patches(section)))
    sisters = [
        (one.centers, e)
        for one, e in zip(train, expressed, strict=True)
        if one.patient == section.patient
    ]
    if sisters:
        yield POSITION, position(sisters, section.centers)
    yield MEAN, np.broadcast_to(pooled.mean(axis=0), (section.table.n_obs, len(genes)))


def _of_stamp(query, references, model, named) -> Iterator[tuple[str, np.ndarray]]:
    """Predict by retrieval, with and without adapters, and by three linear layers (paper, A.3.3).

    Where there are several training slides, the last tells the adapters and the layers when to stop.
    """
    fitted, held = (references[:-1], references[-1:]) if len(references) > 1 else (references, ())
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(model, Stamp) and model.gene_encoder is not None:
            adapted = stp.train.adapt(fitted, f"{folder}/adapted", model=model, validation=held)
            for name, tables in {
                CON: [query, *references],
                CON_ADAPTED: [_aligned(one, adapted) for one in (query, *references)],
            }.items():
                found = stp.tl.predict_expression(tables[0], tables[1:], **named, copy=True)
                yield name, found.obsm[keys.EXPRESSION]
        head = stp.train.fit_expression_head(fitted, f"{folder}/head", **named, validation=held)
        yield REG, stp.tl.apply_expression_head(query, head, copy=True).obsm[keys.EXPRESSION]


@torch.no_grad()
def _aligned(table: anndata.AnnData, adapted: Stamp) -> anndata.AnnData:
    """Return a table whose aligned vectors are those of the adapted model."""
    table = table.copy()
    for key, encode in ((keys.IMAGES, adapted.encode_images), (keys.GENES, adapted.encode_genes)):
        table.obsm[keys.aligned(key)] = encode(torch.from_numpy(table.obsm[key]))[1].numpy()
    return table


def _patches(section: Section) -> np.ndarray:
    return section.slide.pyramid.read(
        section.slide.centers, size=96, um_per_px=112 / 96, allow_upsampling=True
    )
