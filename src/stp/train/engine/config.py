"""The settings of every training run."""

from dataclasses import dataclass

from stp._config import require_not_negative, require_positive

PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Settings that all kinds of training share.

    Parameters
    ----------
    learning_rate
        Learning rate at the end of the warm-up, which is linear and takes at most a tenth of all
        steps.
    min_learning_rate
        Learning rate at the end of the cosine that follows the warm-up. With None the learning
        rate stays constant instead.
    warmup_steps
        Number of steps of the warm-up.
    weight_decay
        Weight decay of AdamW; only matrices decay.
    clip_norm
        Largest norm of the gradient. Infinity turns clipping off.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    n_workers
        Number of worker processes that read batches ahead.
    log_every
        Number of steps between lines of metrics.jsonl. The end of an epoch is logged, too.
    checkpoint_every
        Number of steps between checkpoints. An epoch ends with a checkpoint, too.
    seed
        Random seed for the weights, the order of spots, masks, neighborhoods and region cells.
    """

    learning_rate: float = 1e-4
    min_learning_rate: float | None = 1e-5
    warmup_steps: int = 5000
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    precision: str = "auto"
    device: str | None = None
    n_workers: int = 0
    log_every: int = 10
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate", "clip_norm", "log_every", "checkpoint_every")
        require_not_negative(self, "warmup_steps", "weight_decay", "n_workers", "seed")
        lowest = self.min_learning_rate
        if lowest is not None and not 0 <= lowest <= self.learning_rate:
            raise ValueError(
                f"min_learning_rate {lowest:g} must be between 0 and learning_rate "
                f"{self.learning_rate:g}, where the schedule begins"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be 'auto', 'bf16' or 'fp32', not {self.precision!r}")
