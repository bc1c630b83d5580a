"""Predict expression from image features by regression."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stp._log import count, logger
from stp._progress import track
from stp.genes.gene_choice import choose_genes, ids_of_names
from stp.models.device import inference
from stp.models.head import ExpressionHead
from stp.tables import keys
from stp.tables.embeddings import read_embedding, require_finite
from stp.tables.own_slides import warn_of_own_slide
from stp.tables.profiles import one_unit, profiles
from stp.tables.provenance import model_of
from stp.tables.references import blocks, open_embeddings, open_references
from stp.tables.table import record, table_to_annotate

if TYPE_CHECKING:
    from anndata import AnnData
    from sklearn.pipeline import Pipeline
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
    """Predict expression by ridge regression on principal components (as HEST-Benchmark does).

    Features are standardized and reduced to principal components, both fitted on the references
    alone. One ridge regression then predicts all genes.

    Parameters
    ----------
    adata
        Table with image features of the spots to predict; it needs no counts.
    reference
        Measured spots with the same image features and raw counts, never from the slide that is
        predicted: a table, a SpatialData, the path of one on disk, or a list of these.
    genes
        Symbols or Ensembl ids of the genes to predict, which all references must measure; by
        default those that `var["highly_variable"]` of any reference marks.
    alpha
        Strength of the ridge penalty.
    n_components
        Number of principal components, at most the number of features or of references.
    use_rep
        Name of the features in `obsm`.
    layer
        Layer of the references; by default `X`. Raw counts become log1p of counts per 10,000, other
        values are used as they are.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['stp_expression' | key_added]` : (n, n_genes) float32
        Prediction; NaN for spots without features.
    `adata.uns['stp_expression' | key_added]` : dict
        `params`; `genes`, the names of the columns: symbols if they are known; `gene_ids`, their
        Ensembl ids, "" if unknown; `units`; `model` that made the features; `version` of stp.

    Raises
    ------
    KeyError
        Features or a gene are missing, or `genes` is left out and no gene is marked as highly
        variable.
    ValueError
        The features are of different models, or `uns` does not record of which; no spot has
        features; the references share no gene; or their counts are not raw.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> for slide in (reference, sdata):
    ...     stp.tl.embed_images(slide, model)
    >>> stp.tl.regress_expression(sdata, reference, genes=adata.var_names[:5])
    >>> sdata.tables["table"].obsm["stp_expression"].shape[1]
    5
    """
    adata = table_to_annotate(adata, table_key, copy)
    tables = open_references(reference, table_key)
    features, stored_features, model = open_embeddings(adata, use_rep, tables, use_rep)
    reference_features = np.concatenate(list(blocks(stored_features)))
    warn_of_own_slide(adata, tables, (use_rep,))
    genes_to_predict = choose_genes(tables, genes)
    units = one_unit(tables, layer)
    has_features = np.isfinite(features).all(axis=1)
    is_usable = np.isfinite(reference_features).all(axis=1)
    if not has_features.any():
        raise ValueError(f"no spot of the table has obsm[{use_rep!r}]")
    if not is_usable.any():
        raise ValueError(f"no spot of the references has obsm[{use_rep!r}]")
    expression = np.concatenate(
        [
            block
            for label, table in track(tables.items(), "read references", "slide")
            for block in profiles(table, layer, genes_to_predict.columns[label])
        ]
    )
    ridge = _ridge(alpha, min(n_components, is_usable.sum(), features.shape[1]))
    logger.info(
        f"Fitting a ridge regression of {count(len(genes_to_predict), 'gene')} on "
        f"{count(is_usable.sum(), 'reference spot')}"
    )
    ridge.fit(reference_features[is_usable], expression[is_usable])
    predicted = np.full((adata.n_obs, len(genes_to_predict)), np.nan, dtype=np.float32)
    # For a single gene the prediction has one dimension.
    predicted[has_features] = ridge.predict(features[has_features]).reshape(
        -1, len(genes_to_predict)
    )
    _write(adata, key_added, predicted)
    params = {"alpha": alpha, "n_components": n_components, "use_rep": use_rep, "layer": layer}
    record(
        adata,
        key_added,
        params,
        genes=genes_to_predict.names,
        gene_ids=genes_to_predict.ids,
        units=units,
        model=model,
    )
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
    """Predict expression by a head of :func:`stp.train.fit_expression_head` (paper, A.3.3).

    Parameters
    ----------
    adata
        Table with features of the model that the head was fitted for.
    head
        Head that predicts expression from these features.
    use_rep
        Name of the features in `obsm`.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['stp_expression' | key_added]` : (n, n_genes) float32
        Prediction; NaN for spots without features.
    `adata.uns['stp_expression' | key_added]` : dict
        `params`, with the digest of the head; `genes`; `gene_ids`; `units`; `model` that
        made the features; `version` of stp.

    Raises
    ------
    KeyError
        There are no features.
    ValueError
        The features are of another model than the features that the head was fitted on, or
        predictions are NaN or infinite.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> config = stp.train.RegressionConfig(epochs=1, batch_size=8)
    >>> genes = list(adata.var_names[:3])
    >>> head = stp.train.fit_expression_head(
    ...     sdata, "runs/head", genes=genes, config=config, resume=False
    ... )
    >>> stp.tl.apply_expression_head(sdata, head)  # here on the slide that it was fitted on
    >>> sdata.tables["table"].obsm["stp_expression"].shape[1]
    3
    """
    adata = table_to_annotate(adata, table_key, copy)
    features = read_embedding(adata, use_rep).astype(np.float32, copy=False)
    config = head.config
    model = model_of(adata, use_rep)
    is_other_model = model is not None and model["digest"] != config.features_of
    if config.width != features.shape[1] or is_other_model:
        raise ValueError(
            f"obsm[{use_rep!r}] was not made by the model whose features the head was fitted on; "
            "embed the spots with that model, or fit a head on features of this one"
        )
    has_features = np.isfinite(features).all(axis=1)
    predicted = np.full((adata.n_obs, len(config.genes)), np.nan, dtype=np.float32)
    with inference(head, device, "fp32") as torch_device:
        batch = torch.from_numpy(features[has_features]).to(torch_device)
        predicted[has_features] = head(batch).cpu().numpy()
    require_finite(
        predicted[has_features],
        np.flatnonzero(has_features),
        f"predictions that {head.name or type(head).__name__} computed in fp32",
        "check the weights of the head, or fit it again",
    )
    _write(adata, key_added, predicted)
    record(
        adata,
        key_added,
        {"use_rep": use_rep, "head": head.digest},
        genes=np.asarray(config.genes, dtype=object),
        gene_ids=ids_of_names(config.genes),
        units=config.units,
        model=model,
    )
    return adata if copy else None


def _write(adata: "AnnData", key: str, predicted: np.ndarray) -> None:
    """Write a prediction, and delete what an earlier retrieval stored under the same name."""
    for name in (keys.uncertainty, keys.neighbors, keys.similarity):
        adata.obsm.pop(name(key), None)
    for name in (keys.uniform, keys.far):
        if name(key) in adata.obs:
            del adata.obs[name(key)]
    adata.obsm[key] = predicted


def _ridge(alpha: float, n_components: int) -> "Pipeline":
    """Return an unfitted ridge regression on principal components of standardized features."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pca = PCA(n_components, svd_solver="randomized", random_state=0)
    return make_pipeline(StandardScaler(), pca, Ridge(alpha))
