"""The training step of a slide model, written by hand: what PyTorch needs at least for it."""

import torch


class HandwrittenStep:
    """All products and pointwise functions of a training step on one bag, most of them in place.

    Gradients are written out, so that nothing is saved for them or computed twice. There is no
    dropout, no bias, no loss and no optimizer, so that a real step takes longer.

    Parameters
    ----------
    features
        Features of the tiles (n_tiles, width).
    hidden
        Width of the hidden vectors.
    attention
        Width of the gated attention.
    """

    def __init__(self, features: torch.Tensor, hidden: int, attention: int) -> None:
        width = features.shape[1]
        device = features.device
        self.features = features
        self.first = torch.randn(width, hidden, device=device) / width**0.5
        self.gated = torch.randn(hidden, 2 * attention, device=device) / hidden**0.5
        self.score = torch.randn(attention, 1, device=device)

    @torch.no_grad()
    def __call__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of both layers, for a gradient of one in each pooled value."""
        tiles = self.features.float()
        hidden = torch.mm(tiles, self.first).relu_()
        values, gates = torch.mm(hidden, self.gated).chunk(2, dim=1)
        values = values.tanh()
        gates = gates.sigmoid()
        weights = torch.softmax((values * gates) @ self.score, dim=0)
        score_gradient = hidden.sum(1, keepdim=True)
        score_gradient -= (weights * score_gradient).sum()
        product_gradient = (weights * score_gradient) @ self.score.T
        gated_gradient = torch.empty(len(tiles), self.gated.shape[1], device=tiles.device)
        of_values, of_gates = gated_gradient.chunk(2, dim=1)
        torch.mul(product_gradient, gates, out=of_values)
        torch.mul(product_gradient, values, out=of_gates)
        of_values *= values.square_().neg_().add_(1)
        of_gates *= gates * (1 - gates)
        hidden_gradient = torch.mm(gated_gradient, self.gated.T).add_(weights)
        hidden_gradient *= hidden > 0
        return tiles.T @ hidden_gradient, hidden.T @ gated_gradient


def step_flops(n_tiles: int, width: int, hidden: int, attention: int) -> float:
    """Return the operations of a training step: forward, and gradients of all weights.

    The tiles are no weights, so the first layer has no gradient of its input.
    """
    first = 2 * n_tiles * width * hidden
    gated = 2 * 2 * n_tiles * hidden * attention
    return 2 * first + 3 * gated
