"""Choose the tokens that pretraining hides and predicts; arrays in, arrays out."""

import numpy as np


def mask_tokens(
    tokens: np.ndarray,
    rng: np.random.Generator,
    *,
    fraction: float,
    mask_id: int,
    gene_ids: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Choose tokens to predict: of those 80 % are masked, 10 % replaced by a random gene, 10 % kept (paper, A.3.1).

    Parameters
    ----------
    tokens
        (length,) tokens of one spot, without padding.
    rng
        Source of the choice.
    fraction
        Share of tokens to predict; at least one.
    mask_id
        Token that hides a gene.
    gene_ids
        First gene token and the one after the last: the range of random genes.

    Returns
    -------
    Inputs (length,) and the chosen positions (length,) as bool.
    """
    inputs, chosen = tokens.copy(), np.zeros(len(tokens), dtype=bool)
    if not len(tokens):
        return inputs, chosen
    positions = rng.permutation(len(tokens))[: max(1, round(fraction * len(tokens)))]
    chosen[positions] = True
    fate = rng.random(len(positions))
    inputs[positions[fate < 0.8]] = mask_id
    replaced = positions[(fate >= 0.8) & (fate < 0.9)]
    inputs[replaced] = rng.integers(*gene_ids, size=len(replaced))
    return inputs, chosen
