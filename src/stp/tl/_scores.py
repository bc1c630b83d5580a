"""Scores of clusters, predicted expression and retrieval, kept beside what they are scores of."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp import metrics
from stp.tables import keys
from stp.tables.counts import log_normalized_blocks
from stp.tables.profiles import LOG_COUNTS, check_unique
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
    """Compare the clusters of one slide with labels, and score how far they lie apart (paper, table 1).

    Parameters
    ----------
    adata
        Table with labels, clusters and the embedding that was clustered.
    label_key, cluster_key
        Columns of `obs`; spots that lack either (missing or "") are not scored.
    use_rep
        The embedding in `obsm`.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
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
        A column or the embedding is missing.
    ValueError
        No spot has label and cluster, or all labels are the same.

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
    embedding = np.asarray(require(adata, "obsm", use_rep, keys.maker_call(use_rep)))
    columns = [
        require_column(adata, label_key, "label_key"),
        require(adata, "obs", cluster_key, "sc.tl.leiden(adata)"),
    ]
    known = np.isfinite(embedding).all(axis=1)
    for column in columns:
        known &= has_value(column)
    labels, clusters = (column[known].astype(str).to_numpy() for column in columns)
    if len(np.unique(labels)) < 2:
        what = (
            f"all labels are {labels[0]!r}" if len(labels) else "no spot has a label and a cluster"
        )
        raise ValueError(f"{what} in obs[{label_key!r}]; a comparison needs two classes")
    scores = metrics.clustering_scores(labels, clusters) | metrics.separation_scores(
        embedding[known], clusters
    )
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
    """Score predicted expression of one slide beside what was measured there (paper, table 2).

    Parameters
    ----------
    adata
        Table with raw counts and a prediction in log1p of counts per 10,000.
    reference
        Training slides with raw counts: the genes that are scored are the most variable and the most expressed there.
        A table, a SpatialData, the path of one on disk, or several of these.
    key
        Name of the prediction.
    n_genes
        How many of each kind.
    layer
        Layer of the raw counts of both; X by default.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `adata.uns['stp_expression_scores' | key_added]` : dict
        `params`; `n_spots`; `scores`: "PCC-V", "PCC-E" and "MSE" of :func:`stp.metrics.expression_scores`; `genes`, a
        row per predicted gene with its correlation and whether it is one of the variable or expressed.

    Raises
    ------
    KeyError
        There is no prediction, or a predicted gene is not measured in both tables.
    ValueError
        No spot has a prediction, it is in other units, counts are not raw, or names of genes are not unique.

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

    adata, references = (
        table_to_annotate(adata, table_key, copy),
        open_references(reference, table_key),
    )
    predicted = np.asarray(
        require(adata, "obsm", key, "stp.tl.predict_expression(adata, reference)")
    )
    details = require(adata, "uns", key, "stp.tl.predict_expression(adata, reference)")
    genes = [str(name) for name in details["genes"]]
    if (units := details.get("units", LOG_COUNTS)) != LOG_COUNTS:
        raise ValueError(
            f"predicted is {units}, scores are of {LOG_COUNTS}; predict from raw counts of the reference"
        )
    known = np.isfinite(predicted).all(axis=1)
    if not known.any():
        raise ValueError(f"no spot has a prediction in obsm[{key!r}], all are NaN")
    measured, *training = (
        _log_normalized(*one, genes, layer) for one in [("adata", adata), *references.items()]
    )
    chosen = metrics.scored_genes(np.concatenate(training), n_genes)
    table = pd.DataFrame(
        {"pearson": metrics.gene_pearson(measured[known], predicted[known])}, index=genes
    )
    for name, columns in chosen._asdict().items():
        table[name] = np.isin(np.arange(len(genes)), columns)
    scores = metrics.expression_scores(measured[known], predicted[known], chosen)
    params = {"key": key, "n_genes": n_genes, "layer": layer}
    record(adata, key_added, params, n_spots=int(known.sum()), scores=scores, genes=table)
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
    """Tell how often a spot's image finds its own genes among those of its slide: recall at 1, 5 and 10.

    Parameters
    ----------
    adata
        Table of one slide with aligned images and genes.
    use_rep, reference_rep
        Unit vectors in `obsm` that ask and that are found.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following field:

    `adata.uns['stp_retrieval_scores' | key_added]` : dict
        `params`; `n_spots`; `scores`: "recall@1", "recall@5", "recall@10" and the chance of each.

    Raises
    ------
    KeyError
        An embedding is missing.
    ValueError
        No spot has both.

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
    pair = [
        np.asarray(require(adata, "obsm", rep, keys.maker_call(rep)))
        for rep in (use_rep, reference_rep)
    ]
    known = np.isfinite(pair[0]).all(axis=1) & np.isfinite(pair[1]).all(axis=1)
    if not (n := int(known.sum())):
        raise ValueError(f"no spot has both obsm[{use_rep!r}] and obsm[{reference_rep!r}]")
    recall = metrics.recall_at_k(pair[0][known], pair[1][known])
    scores = {f"recall@{k}": value for k, value in recall.items()} | {
        f"chance@{k}": min(1, k / n) for k in recall
    }
    record(
        adata,
        key_added,
        {"use_rep": use_rep, "reference_rep": reference_rep},
        n_spots=n,
        scores=scores,
    )
    return adata if copy else None


def _log_normalized(
    label: str, table: "AnnData", genes: list[str], layer: str | None
) -> np.ndarray:
    check_unique(table, label)
    columns = table.var_names.get_indexer(genes)
    if (columns < 0).any():
        missing = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
        raise KeyError(
            f"{len(missing)} predicted genes are not measured in {label}, e.g. {missing[:3]}; choose from its genes"
        )
    return np.concatenate(
        [block[:, columns].toarray() for block in log_normalized_blocks(table, layer)]
    )
