"""Predict expression from image features by regression."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stp.models.device import inference
from stp.models.head import ExpressionHead
from stp.tables import keys
from stp.tables.profiles import choose_genes, one_unit, profiles
from stp.tables.provenance import model_of
from stp.tables.references import blocks, open_embeddings, open_references
from stp.tables.table import record, require, table_to_annotate

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def regress_expression(
    adata: "AnnData | SpatialData",
    reference: "AnnData | SpatialData | str | Path | Iterable[AnnData | SpatialData | str | Path]",
    *,
    genes: str | Sequence[str] | None = None,
    alpha: float = 1.0,
    n_components: int = 256,
    use_rep: str = "X_stp_images",
    layer: str | None = None,
    table_key: str = "table",
    key_added: str = keys.EXPRESSION,
    copy: bool = False,
) -> "AnnData | None":
    """Predict expression by ridge regression on principal components of features (as HEST-Benchmark does).

    Features are standardized and reduced on the references alone; then one ridge regression predicts all genes.

    Parameters
    ----------
    adata
        Spots with image features; needs no counts.
    reference
        Spots with the same features and raw counts, never from the slide that is predicted: a table, a SpatialData,
        the path of one on disk, or several of these.
    genes
        Genes to predict, which all references measure; by default those that `var["highly_variable"]` of any
        reference marks.
    alpha
        Strength of the penalty.
    n_components
        Principal components; at most as many as features or references.
    use_rep
        Features in `obsm` on both sides.
    layer
        Layer of the reference. Raw counts, in X by default, become log1p of counts per 10,000; a layer that holds
        anything else is predicted as it is.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['stp_expression' | key_added]` : (n_obs, n_genes) float32
        Prediction; NaN for spots without features.
    `adata.uns['stp_expression' | key_added]` : dict
        `params`; `genes`, the names of the columns; `units`; `model` that made the features; `version` of stp.

    Raises
    ------
    KeyError
        Features or a gene are missing, or no gene is marked as highly variable and none is asked for.
    ValueError
        The features are of different models, or nothing says of which; no spot has any, the references share no
        gene, or their counts are not raw.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> for slide in (reference, sdata):
    ...     stp.tl.embed_images(slide, model)
    >>> stp.tl.regress_expression(sdata, reference, genes=adata.var_names[:5])
    >>> sdata.tables["table"].obsm["stp_expression"].shape[1]
    5
    """
    adata, tables = table_to_annotate(adata, table_key, copy), open_references(reference, table_key)
    features, of_references, made_by = open_embeddings(adata, use_rep, tables, use_rep)
    known_features = np.concatenate(list(blocks(of_references)))
    chosen, units = choose_genes(tables, genes), one_unit(tables, layer)
    known, usable = (np.isfinite(x).all(axis=1) for x in (features, known_features))
    if not known.any() or not usable.any():
        raise ValueError(
            f"no spot of {'the references' if known.any() else 'the table'} has obsm[{use_rep!r}]"
        )
    expression = np.concatenate(
        [block for table in tables.values() for block in profiles(table, layer, chosen)]
    )
    predicted = np.full((adata.n_obs, len(chosen)), np.nan, dtype=np.float32)
    model = _ridge(alpha, min(n_components, usable.sum(), features.shape[1]))
    predicted[known] = (
        model.fit(known_features[usable], expression[usable])
        .predict(features[known])
        .reshape(-1, len(chosen))
    )
    _write(adata, key_added, predicted)
    params = {"alpha": alpha, "n_components": n_components, "use_rep": use_rep, "layer": layer}
    record(adata, key_added, params, genes=chosen, units=units, model=made_by)
    return adata if copy else None


def apply_expression_head(
    adata: "AnnData | SpatialData",
    head: ExpressionHead,
    *,
    use_rep: str = "X_stp_images",
    device: str | None = None,
    table_key: str = "table",
    key_added: str = keys.EXPRESSION,
    copy: bool = False,
) -> "AnnData | None":
    """Predict expression by a head that :func:`stp.train.fit_expression_head` fitted (paper, A.3.3).

    Parameters
    ----------
    adata
        Spots with the features that the head reads.
    head
        The head.
    use_rep
        Features in `obsm`.
    device
        A torch device; by default a GPU if there is one.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['stp_expression' | key_added]` : (n_obs, n_genes) float32
        Prediction; NaN for spots without features.
    `adata.uns['stp_expression' | key_added]` : dict
        `params`, with the digest of the head; `genes`; `units`; `model` that made the features; `version` of stp.

    Raises
    ------
    KeyError
        There are no features.
    ValueError
        The features are of another model than those the head was fitted on.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> config = stp.train.RegressionConfig(epochs=1, batch_size=8)
    >>> genes = list(adata.var_names[:3])
    >>> head = stp.train.fit_expression_head(
    ...     sdata, "runs/head", genes=genes, config=config, resume=False
    ... )
    >>> stp.tl.apply_expression_head(sdata, head)  # here on what it was fitted on
    >>> sdata.tables["table"].obsm["stp_expression"].shape[1]
    3
    """
    adata = table_to_annotate(adata, table_key, copy)
    features = np.asarray(
        require(adata, "obsm", use_rep, keys.maker_call(use_rep)), dtype=np.float32
    )
    made_by, asked = model_of(adata, use_rep), head.config
    if asked.width != features.shape[1] or (made_by and made_by["digest"] != asked.features_of):
        raise ValueError(
            f"obsm[{use_rep!r}] was not made by the model whose features the head was fitted on; embed the spots "
            "with that, or fit a head on features of this one"
        )
    known = np.isfinite(features).all(axis=1)
    predicted = np.full((adata.n_obs, len(asked.genes)), np.nan, dtype=np.float32)
    with inference(head, device, "fp32") as chosen:
        predicted[known] = head(torch.from_numpy(features[known]).to(chosen)).cpu().numpy()
    _write(adata, key_added, predicted)
    entries = {
        "genes": np.asarray(asked.genes, dtype=object),
        "units": asked.units,
        "model": made_by,
    }
    record(adata, key_added, {"use_rep": use_rep, "head": head.digest}, **entries)
    return adata if copy else None


def _write(adata: "AnnData", key: str, predicted: np.ndarray) -> None:
    """Write a prediction in place of one that was retrieved, whose references and uncertainty are not its own."""
    for name in (keys.uncertainty, keys.neighbors, keys.similarity):
        adata.obsm.pop(name(key), None)
    for name in (keys.uniform, keys.far):
        if name(key) in adata.obs:
            del adata.obs[name(key)]
    adata.obsm[key] = predicted


def _ridge(alpha: float, n_components: int):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pca = PCA(n_components, svd_solver="randomized", random_state=0)
    return make_pipeline(StandardScaler(), pca, Ridge(alpha))
