"""How often images retrieve their own genes."""

import numpy as np

BLOCK_ROWS = 4096  # queries that are ranked at a time


def recall_at_k(
    queries: np.ndarray, references: np.ndarray, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[int, float]:
    """Return the share of queries whose own reference is among the k most similar ones.

    The own reference of a query is in the same row. Chance is k / n.

    Parameters
    ----------
    queries
        Unit vectors (n, d).
    references
        Unit vectors (n, d) of the same spots.
    ks
        Numbers of references to retrieve.

    Returns
    -------
    Recall in [0, 1] for each k. References that tie with the query's own reference count as more
    similar.

    Examples
    --------
    >>> import numpy as np
    >>> stp.metrics.recall_at_k(np.eye(4), np.eye(4), ks=(1,))
    {1: 1.0}
    """
    queries = np.asarray(queries)
    references = np.asarray(references)
    rank = np.empty(len(queries), dtype=int)
    for start in range(0, len(queries), BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        scores = queries[start:stop] @ references.T
        rows = np.arange(len(scores))
        own_score = scores[rows, start + rows, None]
        # `not less` also counts NaN, so that a query of NaN comes last.
        n_not_less = (~(scores < own_score)).sum(axis=1)
        rank[start:stop] = n_not_less - 1
    return {k: float((rank < k).mean()) for k in ks}
