"""Select the tokens that pretraining hides and predicts."""

import numpy as np


def mask_tokens(
    tokens: np.ndarray,
    rng: np.random.Generator,
    *,
    fraction: float,
    mask_id: int,
    gene_tokens: range,
) -> tuple[np.ndarray, np.ndarray]:
    """Select tokens to predict, and hide most of them (paper, section A.3.1).

    Of the selected tokens, 80 % become `mask_id`, 10 % a random gene, and 10 % do not change.

    Parameters
    ----------
    tokens
        Tokens of one spot (length,), without padding.
    rng
        Random generator.
    fraction
        Share of tokens to predict; at least one token is selected.
    mask_id
        Token that hides a gene.
    gene_tokens
        Range of the tokens that stand for genes.

    Returns
    -------
    Tokens to read (length,), and whether each position is to be predicted (length,).
    """
    inputs = tokens.copy()
    is_selected = np.zeros(len(tokens), dtype=bool)
    if len(tokens) == 0:
        return inputs, is_selected
    n_selected = max(1, round(fraction * len(tokens)))
    positions = rng.permutation(len(tokens))[:n_selected]
    is_selected[positions] = True
    fate = rng.random(len(positions))
    inputs[positions[fate < 0.8]] = mask_id
    gene_positions = positions[(fate >= 0.8) & (fate < 0.9)]
    genes = rng.integers(gene_tokens.start, gene_tokens.stop, size=len(gene_positions))
    inputs[gene_positions] = genes
    return inputs, is_selected
