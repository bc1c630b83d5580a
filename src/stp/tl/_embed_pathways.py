"""Embed spots by the activity of gene sets."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from stp._log import logger
from stp.genes.coverage import check_coverage, sum_by_rule
from stp.genes.pathways import membership, set_scores
from stp.genes.table_genes import recognize_table
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.counts import count_blocks
from stp.tables.table import record, table_to_annotate
from stp.tl._embed_shared import EmbeddingBuffer, model_record

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def embed_pathways(
    adata: "AnnData | SpatialData",
    model: Stamp,
    *,
    layer: str | None = None,
    gene_ids_key: str | None = "auto",
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
        Layer with the raw counts; by default `X`.
    gene_ids_key
        Column of `var` with gene names; None for `var_names`; by default `gene_ids` if it
        holds Ensembl ids, else `var_names`.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['X_stp_pathways' | key_added]` : (n, n_sets) float32
        Activity of each gene set, in standard deviations from the mean of the training spots. Genes
        that the table lacks are ignored; the activity is 0 if it has no gene of the set. NaN for
        spots without counts.
    `adata.obsm['X_stp_pathways_aligned' | key_added + '_aligned']` : (n, projection width) float32
        Unit vectors after projection, for retrieval.
    `adata.uns['X_stp_pathways' | key_added]` : dict
        `params`; `sets`, the names of the columns; `measured`, the share of each set's genes that
        the table has; `model`: its name, class, digest and the digest of its vocabulary; `version`
        of stp.

    Raises
    ------
    ValueError
        The model was not aligned with pathways, the counts are not raw, the genes of the table are
        of another species, less than half of the UMIs are in genes of the vocabulary, or features
        are NaN or infinite.

    Examples
    --------
    >>> stp.tl.embed_pathways(adata, model)  # the demo's model was aligned with genes alone
    Traceback (most recent call last):
    ValueError: ...
    """
    adata = table_to_annotate(adata, table_key, copy)
    sets = _gene_sets(model)
    genes = recognize_table(model.vocabulary, adata, gene_ids_key)
    index = genes.matches.index
    measured = _measured_shares(sets, index)
    average = membership(index, list(sets.values()))
    embeddings = EmbeddingBuffer(adata.n_obs, model, "fp32")
    device = model.logit_scale.device
    umis = np.zeros(adata.n_vars, np.int64)
    start = 0
    with torch.inference_mode():
        for counts in count_blocks(adata, layer):
            umis += counts.sum(axis=0).A1.astype(np.int64)
            rows_with_counts = np.flatnonzero(np.diff(counts[:, genes.is_gene].indptr))
            scores = set_scores(counts, index, average, genes.is_gene)[rows_with_counts]
            outputs = model.encode_pathways(torch.from_numpy(scores).to(device))
            embeddings.add(start + rows_with_counts, outputs)
            start += counts.shape[0]
    is_unmapped = genes.is_gene & (index < 0)
    unmapped = sum_by_rule(genes.matches.rule[is_unmapped], umis[is_unmapped])
    check_coverage(
        unmapped,
        int(umis[genes.is_gene].sum()),
        n_genes=len(model.vocabulary),
        training="; ".join(model.card.trained_on),
    )
    embeddings.write(adata, key_added)
    record(
        adata,
        key_added,
        {"layer": layer, "gene_ids_key": gene_ids_key},
        sets=np.array(list(sets), dtype=object),
        measured=measured,
        model=model_record(model),
    )
    return adata if copy else None


def _gene_sets(model: Stamp) -> dict[str, np.ndarray]:
    """Return the vocabulary indices of the genes of each set, by the name of the set."""
    encoder = getattr(model, "pathway_encoder", None)
    if encoder is None:
        raise ValueError(
            f"this {type(model).__name__} knows no pathways; align a Stamp with "
            "AlignConfig(targets='pathways' or 'both', gene_sets=...)"
        )
    return encoder.sets


def _measured_shares(sets: dict[str, np.ndarray], index: np.ndarray) -> np.ndarray:
    """Return the share of each set's genes that the table has, and log how many sets have none."""
    shares = np.array([np.isin(genes, index).mean() for genes in sets.values()])
    n_empty = np.count_nonzero(shares == 0)
    if n_empty:
        logger.warning(
            f"{n_empty} of {len(sets)} gene sets have no gene in the table and count as average; "
            "check the names of its genes, or use a model whose gene sets it measures."
        )
    return shares
