"""Score clusters, predicted expression and retrieval, and store the scores in the table."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp import metrics
from stp.genes.gene_choice import predicted_genes, require_predicted
from stp.tables import keys
from stp.tables.counts import log_normalized_blocks
from stp.tables.embeddings import check_rows, read_embedding
from stp.tables.profiles import LOG_COUNTS
from stp.tables.references import open_references
from stp.tables.table import has_value, record, require, require_column, table_to_annotate

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def score_clusters(
    adata: "AnnData | SpatialData",
    label_key: str,
    cluster_key: str,
    *,
    use_rep: str = keys.FUSED,
    table_key: str = "table",
    key_added: str = "stp_cluster_scores",
    copy: bool = False,
) -> "AnnData | None":
    """Compare the clusters of one slide with labels, and score their separation (paper, table 1).

    Parameters
    ----------
    adata
        Table with labels, clusters and the features that were clustered.
    label_key
        Column of `obs` with tissue labels. Spots without a label (missing or "") are not scored.
    cluster_key
        Column of `obs` with clusters. Spots without a cluster (missing or "") are not scored.
    use_rep
        Name of the features in `obsm`.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `adata.uns['stp_cluster_scores' | key_added]` : dict
        `params`; `n_spots`; `scores` of :func:`stp.metrics.clustering_scores` and
        :func:`stp.metrics.separation_scores`.

    Raises
    ------
    KeyError
        A column or the features are missing.
    ValueError
        No spot has a label and a cluster, or all labels are the same.

    Examples
    --------
    >>> stp.tl.tokenize(adata, model)
    >>> stp.tl.embed_genes(adata, model)
    >>> sc.pp.neighbors(adata, use_rep="X_stp_genes")
    >>> sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    >>> stp.tl.score_clusters(adata, "domain", "leiden", use_rep="X_stp_genes")
    >>> sorted(adata.uns["stp_cluster_scores"]["scores"])[:2]
    ['ari', 'calinski_harabasz']
    """
    adata = table_to_annotate(adata, table_key, copy)
    embedding = read_embedding(adata, use_rep)
    label_column = require_column(adata, label_key, "label_key")
    cluster_column = require(adata, "obs", cluster_key, "sc.tl.leiden(adata)")
    has_embedding = np.isfinite(embedding).all(axis=1)
    is_scored = has_embedding & has_value(label_column) & has_value(cluster_column)
    labels = label_column[is_scored].astype(str).to_numpy()
    clusters = cluster_column[is_scored].astype(str).to_numpy()
    if not len(labels):
        raise ValueError(
            f"no spot has a label and a cluster in obs[{label_key!r}] and obs[{cluster_key!r}]; "
            "a comparison needs two classes"
        )
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"all labels are {labels[0]!r} in obs[{label_key!r}]; a comparison needs two classes"
        )
    scores = metrics.clustering_scores(labels, clusters)
    scores |= metrics.separation_scores(embedding[is_scored], clusters)
    params = {"label_key": label_key, "cluster_key": cluster_key, "use_rep": use_rep}
    record(adata, key_added, params, n_spots=len(labels), scores=scores)
    return adata if copy else None


def score_expression(
    adata: "AnnData | SpatialData",
    reference: "AnnData | SpatialData | str | Path | Iterable[AnnData | SpatialData | str | Path]",
    *,
    key: str = keys.EXPRESSION,
    n_genes: int = 100,
    layer: str | None = None,
    table_key: str = "table",
    key_added: str = "stp_expression_scores",
    copy: bool = False,
) -> "AnnData | None":
    """Score predicted expression of one slide against measured expression (paper, table 2).

    Parameters
    ----------
    adata
        Table with raw counts and a prediction in log1p of counts per 10,000.
    reference
        Training slides with raw counts. The genes that are scored are the most variable and the
        most expressed ones in these slides. A table, a SpatialData, the path of one on disk, or a
        list of these.
    key
        Name of the prediction.
    n_genes
        Number of most variable genes, and of most expressed genes, that are scored.
    layer
        Layer with the raw counts; by default `X`.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `adata.uns['stp_expression_scores' | key_added]` : dict
        `params`; `n_spots`; `scores`: "PCC-V", "PCC-E" and "MSE" of
        :func:`stp.metrics.expression_scores`; `genes`, one row per predicted gene with its
        correlation and whether it is one of the most variable or most expressed genes.

    Raises
    ------
    KeyError
        There is no prediction, or a predicted gene is not measured in all tables.
    ValueError
        No spot has a prediction, its units are not log1p of counts per 10,000, counts are not raw,
        or gene names are not unique.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.predict_expression(sdata, reference, genes=adata.var_names)
    >>> stp.tl.score_expression(sdata, reference)
    >>> sorted(sdata.tables["table"].uns["stp_expression_scores"]["scores"])
    ['MSE', 'PCC-E', 'PCC-V']
    """
    import pandas as pd

    adata = table_to_annotate(adata, table_key, copy)
    references = open_references(reference, table_key)
    call = "stp.tl.predict_expression(adata, reference)"
    predicted = np.asarray(require(adata, "obsm", key, call))
    check_rows(predicted, f"obsm[{key!r}]")
    prediction_record = require(adata, "uns", key, call)
    genes, _ = predicted_genes(prediction_record)
    units = prediction_record.get("units", LOG_COUNTS)
    if units != LOG_COUNTS:
        raise ValueError(
            f"predicted is {units}, scores are of {LOG_COUNTS}; "
            "predict from raw counts of the reference"
        )
    is_predicted = np.isfinite(predicted).all(axis=1)
    if not is_predicted.any():
        raise ValueError(f"no spot has a prediction in obsm[{key!r}], all are NaN")
    predicted = predicted[is_predicted]
    columns = require_predicted(prediction_record, adata, "adata")
    measured = _log_normalized(adata, columns, layer)[is_predicted]
    training = [
        _log_normalized(table, require_predicted(prediction_record, table, label), layer)
        for label, table in references.items()
    ]
    scored = metrics.scored_genes(np.concatenate(training), n_genes)
    table = pd.DataFrame({"pearson": metrics.gene_pearson(measured, predicted)}, index=genes)
    for name, columns in scored._asdict().items():
        table[name] = np.isin(np.arange(len(genes)), columns)
    scores = metrics.expression_scores(measured, predicted, scored)
    params = {"key": key, "n_genes": n_genes, "layer": layer}
    record(adata, key_added, params, n_spots=int(is_predicted.sum()), scores=scores, genes=table)
    return adata if copy else None


def score_retrieval(
    adata: "AnnData | SpatialData",
    *,
    use_rep: str = keys.aligned(keys.IMAGES),
    reference_rep: str = keys.aligned(keys.GENES),
    table_key: str = "table",
    key_added: str = "stp_retrieval_scores",
    copy: bool = False,
) -> "AnnData | None":
    """Score how often the image of a spot finds its own genes on a slide: recall at 1, 5 and 10.

    Parameters
    ----------
    adata
        Table of one slide with aligned vectors of images and genes.
    use_rep
        Name of the aligned image vectors in `obsm`.
    reference_rep
        Name of the aligned gene vectors in `obsm`, among which each image searches.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `adata.uns['stp_retrieval_scores' | key_added]` : dict
        `params`; `n_spots`; `scores`: "recall@1", "recall@5", "recall@10", and "chance@1",
        "chance@5", "chance@10" for a random choice.

    Raises
    ------
    KeyError
        An embedding is missing.
    ValueError
        No spot has both embeddings.

    Examples
    --------
    >>> stp.tl.tokenize(sdata, model)
    >>> stp.tl.embed_genes(sdata, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.score_retrieval(sdata)
    >>> "stp_retrieval_scores" in sdata.tables["table"].uns
    True
    """
    adata = table_to_annotate(adata, table_key, copy)
    images = read_embedding(adata, use_rep)
    genes = read_embedding(adata, reference_rep)
    has_both = np.isfinite(images).all(axis=1) & np.isfinite(genes).all(axis=1)
    n_spots = int(has_both.sum())
    if n_spots == 0:
        raise ValueError(f"no spot has both obsm[{use_rep!r}] and obsm[{reference_rep!r}]")
    recall = metrics.recall_at_k(images[has_both], genes[has_both])
    scores = {f"recall@{k}": value for k, value in recall.items()}
    scores |= {f"chance@{k}": min(1, k / n_spots) for k in recall}
    params = {"use_rep": use_rep, "reference_rep": reference_rep}
    record(adata, key_added, params, n_spots=n_spots, scores=scores)
    return adata if copy else None


def _log_normalized(table: "AnnData", columns: np.ndarray, layer: str | None) -> np.ndarray:
    """Return log1p of counts per 10,000 of the genes in these columns, (n_obs, n_genes)."""
    blocks = log_normalized_blocks(table, layer)
    return np.concatenate([block[:, columns].toarray() for block in blocks])
