"""Score the gene sets of a Stamp in spots, and align them."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from stp._log import logger
from stp.genes.pathways import membership, set_scores
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.counts import count_blocks
from stp.tables.table import gene_names, record, table_to_annotate
from stp.tl._embed_shared import EmbeddingBuffer, model_record

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def embed_pathways(
    adata: "AnnData | SpatialData",
    model: Stamp,
    *,
    layer: str | None = None,
    gene_ids_key: str | None = None,
    table_key: str = "table",
    key_added: str = keys.PATHWAYS,
    copy: bool = False,
) -> "AnnData | None":
    """Embed spots by the activity of gene sets: mean log1p expression, standardized as in training.

    Parameters
    ----------
    adata
        Table with raw counts.
    model
        A Stamp that was aligned with pathways.
    layer
        Layer with the raw counts; X by default.
    gene_ids_key
        Column of `var` with the gene names; by default `gene_ids` where it holds Ensembl ids, else `var_names`.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['X_stp_pathways' | key_added]` : (n_obs, n_sets) float32
        Activity of each set in standard deviations from the mean of the training spots: over the genes of the set
        that the table has; 0 where it has none. NaN for spots without counts.
    `adata.obsm['X_stp_pathways_aligned' | key_added + '_aligned']` : (n_obs, projection width) float32
        Unit vectors after projection: for retrieval.
    `adata.uns['X_stp_pathways' | key_added]` : dict
        `params`; `sets`, the names of the columns; `measured`, the share of each set's genes that the table has;
        `model`: its name, class, digest and the digest of its vocabulary; `version` of stp.

    Raises
    ------
    ValueError
        The model knows no pathways, X is not raw counts, or its genes are of another species.

    Examples
    --------
    >>> stp.tl.embed_pathways(adata, model)  # that of the demo was aligned with genes alone
    Traceback (most recent call last):
    ValueError: ...
    """
    adata = table_to_annotate(adata, table_key, copy)
    sets = _sets(model)
    index = model.vocabulary.recognize(gene_names(adata, gene_ids_key)).index
    measured = np.array([np.isin(genes, index).mean() for genes in sets.values()])
    if not measured.all():
        logger.warning(
            f"{(measured == 0).sum()} of {len(sets)} gene sets have no gene in the table and count as average"
        )
    average, results, start = (
        membership(index, list(sets.values())),
        EmbeddingBuffer(adata.n_obs),
        0,
    )
    with torch.inference_mode():
        for counts in count_blocks(adata, layer):
            filled = np.flatnonzero(np.diff(counts.indptr))
            scores = torch.from_numpy(set_scores(counts, index, average)[filled]).to(
                model.logit_scale.device
            )
            results.add(start + filled, model.encode_pathways(scores))
            start += counts.shape[0]
    results.write(adata, key_added)
    params = {"layer": layer, "gene_ids_key": gene_ids_key}
    record(
        adata,
        key_added,
        params,
        sets=np.array(list(sets), dtype=object),
        measured=measured,
        model=model_record(model),
    )
    return adata if copy else None


def _sets(model: Stamp) -> dict[str, np.ndarray]:
    encoder = getattr(model, "pathway_encoder", None)
    if encoder is None:
        raise ValueError(
            f"this {type(model).__name__} knows no pathways; align a Stamp with "
            "AlignConfig(targets='pathways' or 'both', gene_sets=...)"
        )
    return encoder.sets
