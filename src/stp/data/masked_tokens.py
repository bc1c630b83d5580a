"""Batches of masked tokens for pretraining."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from stp.data.masking import mask_tokens
from stp.data.samplers import SpotIndex
from stp.data.spot_file import SpotFile
from stp.data.store import SpotStore
from stp.genes.special_tokens import MASK_ID, PAD_ID
from stp.genes.vocabulary import Vocabulary
from stp.tables.counts import BLOCK_ROWS


class TokenDataset(Dataset):
    """Read batches of masked tokens. Masks depend only on seed, store, spot and epoch.

    Parameters
    ----------
    stores
        Stores of the spots.
    vocabulary
        Vocabulary of the tokens.
    tokens
        Tokens of all spots of the stores.
    fraction
        Share of the tokens of a spot that are predicted.
    seed
        Random seed for the masks.
    """

    def __init__(
        self,
        stores: Sequence[SpotStore],
        vocabulary: Vocabulary,
        tokens: SpotFile,
        *,
        fraction: float,
        seed: int,
    ) -> None:
        self.stores = stores
        self.vocabulary = vocabulary
        self.tokens = tokens
        self.fraction = fraction
        self.seed = seed

    @property
    def names(self) -> list[str]:
        """Paths of the stores."""
        return [store.source for store in self.stores]

    def __getitem__(self, index: SpotIndex) -> dict[str, torch.Tensor]:
        """Return tokens to read, tokens to predict, and the positions to predict.

        The names are "inputs", "targets" and "chosen". Each is (m, length of the longest spot),
        padded with `PAD_ID`.
        """
        inputs: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        is_target: list[np.ndarray] = []
        for store, row in index.spots:
            tokens = self.tokens[store][row].astype(np.int64)
            tokens = tokens[tokens > 0]
            rng = np.random.default_rng((self.seed, store, row, index.epoch))
            masked, is_masked = mask_tokens(
                tokens,
                rng,
                fraction=self.fraction,
                mask_id=MASK_ID,
                gene_tokens=range(self.vocabulary.n_special, self.vocabulary.n_tokens),
            )
            inputs.append(masked)
            targets.append(tokens)
            is_target.append(is_masked)
        return {
            "inputs": _stack(inputs, PAD_ID),
            "targets": _stack(targets, PAD_ID),
            "chosen": _stack(is_target, 0).bool(),
        }

    def log_frequency(self, *, block_rows: int = BLOCK_ROWS) -> torch.Tensor:
        """Return the log share of each token (n_tokens,) over all spots.

        Each count starts at one. `block_rows` spots are counted at a time.
        """
        counts = np.ones(self.vocabulary.n_tokens)
        for start in range(0, len(self.tokens.array), block_rows):
            block = self.tokens.array[start : start + block_rows]
            counts += np.bincount(block.ravel(), minlength=len(counts))
        counts[: self.vocabulary.n_special] = 1  # padding is never predicted
        return torch.from_numpy(np.log(counts / counts.sum())).float()


def _stack(rows: Sequence[np.ndarray], fill: int) -> torch.Tensor:
    """Pad rows to the longest one and stack them: int64 (m, longest)."""
    stacked = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(stacked)
