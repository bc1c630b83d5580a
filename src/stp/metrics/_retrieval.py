"""How often images find their own genes."""

import numpy as np

BLOCK = 4096  # queries ranked at a time


def recall_at_k(
    queries: np.ndarray, references: np.ndarray, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[int, float]:
    """Share of queries whose own reference (same row) is among the k of highest inner product.

    Parameters
    ----------
    queries, references
        (n, d) unit vectors of the same spots. Chance is k / n.
    ks
        Depths.

    Returns
    -------
    k to recall in [0, 1]. References that tie with the query's own one count as ranked before it.

    Examples
    --------
    >>> import numpy as np
    >>> stp.metrics.recall_at_k(np.eye(4), np.eye(4), ks=(1,))
    {1: 1.0}
    """
    queries, references = np.asarray(queries), np.asarray(references)
    rank = np.empty(len(queries), dtype=int)
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ references.T
        own = scores[np.arange(len(scores)), start + np.arange(len(scores)), None]
        rank[start : start + BLOCK] = (~(scores < own)).sum(
            axis=1
        ) - 1  # so that a query of NaN comes last
    return {k: float((rank < k).mean()) for k in ks}
