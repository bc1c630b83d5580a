"""The settings of training on the features of frozen encoders (paper, A.3.3)."""

from dataclasses import dataclass

from stp._config import require_positive
from stp.train.engine.config import LoopConfig


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(LoopConfig):
    """Settings for adapters on frozen encoders (paper, A.3.3).

    Parameters
    ----------
    epochs
        Number of passes over the spots.
    batch_size
        Number of spots per batch and process.
    accumulate
        Number of batches per optimizer step.
    patience
        Number of epochs without a better validation score after which training stops.
    reduction
        Width of the features divided by the width of the adapter. 4 gives the number of parameters
        in the paper's table, 2 is what its text says.

    Examples
    --------
    >>> config = stp.train.AdaptConfig(epochs=5)
    """

    epochs: int = 20
    batch_size: int = 256
    accumulate: int = 1
    patience: int = 5
    reduction: int = 4
    learning_rate: float = 1e-3
    min_learning_rate: float | None = None
    warmup_steps: int = 0
    weight_decay: float = 1e-2
    clip_norm: float = float("inf")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "batch_size", "accumulate", "patience", "reduction")


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(LoopConfig):
    """Settings for a head that predicts expression from features (paper, A.3.3).

    Parameters
    ----------
    epochs
        Number of passes over the spots.
    batch_size
        Number of spots per batch and process.
    accumulate
        Number of batches per optimizer step.
    patience
        Number of epochs without a better validation score after which training stops.

    Examples
    --------
    >>> config = stp.train.RegressionConfig(epochs=5)
    """

    epochs: int = 100
    batch_size: int = 256
    accumulate: int = 1
    patience: int = 3
    learning_rate: float = 1e-4
    min_learning_rate: float | None = None
    warmup_steps: int = 0
    weight_decay: float = 0.0  # AdamW without decay is Adam
    clip_norm: float = float("inf")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "batch_size", "accumulate", "patience")
