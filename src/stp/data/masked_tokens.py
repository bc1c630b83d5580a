"""The batches of masked tokens that pretraining reads."""

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
    """Batches of masked tokens for pretraining; masks depend on seed, store, spot and epoch alone."""

    def __init__(
        self,
        stores: Sequence[SpotStore],
        vocabulary: Vocabulary,
        tokens: SpotFile,
        *,
        fraction: float,
        seed: int,
    ) -> None:
        self.stores, self.vocabulary, self.tokens = stores, vocabulary, tokens
        self.fraction, self.seed = fraction, seed

    @property
    def names(self) -> list[str]:
        """Paths of the stores."""
        return [str(store.path) for store in self.stores]

    def __getitem__(self, picks: SpotIndex) -> dict[str, torch.Tensor]:
        """Return ids to read, ids to predict and which to predict, each (m, longest); padded with the model's 1."""
        rows = [self._masked(store, row, picks.epoch) for store, row in picks.spots]
        inputs, targets, chosen = (
            _stack(part, fill)
            for part, fill in zip(zip(*rows, strict=True), (PAD_ID, PAD_ID, 0), strict=True)
        )
        return {"inputs": inputs.long(), "targets": targets.long(), "chosen": chosen.bool()}

    def _masked(
        self, store: int, row: int, epoch: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens = self.tokens[store][row].astype(np.int64)
        tokens = tokens[tokens > 0]
        rng = np.random.default_rng((self.seed, store, row, epoch))
        genes = (self.vocabulary.n_special, self.vocabulary.n_tokens)
        inputs, chosen = mask_tokens(
            tokens, rng, fraction=self.fraction, mask_id=MASK_ID, gene_ids=genes
        )
        return inputs, tokens, chosen

    def log_frequency(self) -> torch.Tensor:
        """Return the log share of each token (n_tokens,) over all spots, smoothed by one."""
        counts = np.ones(self.vocabulary.n_tokens)
        for start in range(0, len(self.tokens.array), BLOCK_ROWS):
            counts += np.bincount(
                self.tokens.array[start : start + BLOCK_ROWS].ravel(), minlength=len(counts)
            )
        counts[: self.vocabulary.n_special] = 1  # padding is never predicted
        return torch.from_numpy(np.log(counts / counts.sum())).float()


def _stack(rows: Sequence[np.ndarray], fill: int) -> torch.Tensor:
    """Pad rows to the longest and stack them (m, longest)."""
    stacked = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int64)
    for row, values in zip(stacked, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(stacked)
