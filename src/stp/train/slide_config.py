"""The settings for training slide models."""

from dataclasses import dataclass

from stp._config import require_positive
from stp.models.slide_config import POOLINGS
from stp.train.engine.config import LoopConfig


@dataclass(frozen=True, kw_only=True)
class SlideConfig(LoopConfig):
    """Settings for a slide model, with the values of the paper for classes (sections 4.4, A.3.3).

    The paper trains survival with `learning_rate=5e-5` and `epochs=30`. It does not state the
    widths, the gating, the dropout and the batch size; these values are common ones.

    Parameters
    ----------
    epochs
        Number of passes over the patients.
    batch_size
        Number of patients per batch and process.
    patience
        Number of epochs without a better validation score after which training stops.
    max_tiles
        Number of tiles of a patient that are drawn anew in each epoch; None trains on all tiles.
        Validation and prediction always read all tiles.
    pooling
        How the tiles of a patient become one vector: by "attention", by their "mean", or by a
        "transformer" of two layers, which has no contributions of tiles.
    hidden
        Width of a tile after the first layer.
    attention
        Width of each attention branch.
    gated
        Whether the attention is gated (Ilse et al. 2018, eq. 9) or plain (eq. 8).
    dropout
        Share of the hidden features that are dropped during training.
    balanced
        Whether all classes weigh the same in the loss, however many patients they have.
    standardize
        Whether features are standardized by mean and spread of the training tiles.

    Examples
    --------
    >>> stp.train.SlideConfig(max_tiles=512).learning_rate
    0.0005
    """

    epochs: int = 50
    batch_size: int = 1
    patience: int = 5
    max_tiles: int | None = None
    pooling: str = "attention"
    hidden: int = 512
    attention: int = 256
    gated: bool = True
    dropout: float = 0.25
    balanced: bool = False
    standardize: bool = False
    learning_rate: float = 5e-4
    min_learning_rate: float | None = None
    warmup_steps: int = 0
    weight_decay: float = 0.0  # AdamW without decay is Adam
    clip_norm: float = float("inf")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "batch_size", "patience", "hidden", "attention")
        if self.max_tiles is not None:
            require_positive(self, "max_tiles")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {list(POOLINGS)}, not {self.pooling!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}")
