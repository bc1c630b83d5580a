"""What a training run is told: small frozen dataclasses with the paper's values (tables 3 and 4)."""

from dataclasses import dataclass

from stp._config import require_not_negative, require_positive

LOSSES = ("patch_target", "region_target", "patch_region", "localization")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What both stages share.

    Parameters
    ----------
    learning_rate, min_learning_rate, warmup_steps
        Linear warm-up, then a cosine from the first to the second; without a second the first stays. Warm-up is at
        most a tenth of all steps.
    weight_decay
        Of AdamW, on matrices only.
    clip_norm
        Largest norm of the gradient; infinite where the paper names none: for adapters and heads.
    min_genes
        Spots that detect fewer genes are not trained on.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    device
        A torch device; by default a GPU if there is one.
    n_workers
        Processes that read batches ahead.
    log_every, checkpoint_every
        Steps between lines of metrics.jsonl and between checkpoints; an epoch ends with both.
    seed
        Of weights, order, masks, neighborhoods and region cells.
    """

    learning_rate: float = 1e-4
    min_learning_rate: float | None = 1e-5
    warmup_steps: int = 5000
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    min_genes: int = 100
    precision: str = "auto"
    device: str | None = None
    n_workers: int = 0
    log_every: int = 10
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate", "clip_norm", "log_every", "checkpoint_every")
        require_not_negative(self, "warmup_steps", "weight_decay", "min_genes", "n_workers", "seed")
        if (
            self.min_learning_rate is not None
            and not 0 <= self.min_learning_rate <= self.learning_rate
        ):
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate:g} must be between 0 and learning_rate "
                f"{self.learning_rate:g}, where the schedule begins"
            )
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision must be 'auto', 'bf16' or 'fp32', not {self.precision!r}")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One pass of pretraining: `masked` genes alone, or `neighborhood` training besides.

    Parameters
    ----------
    objective
        "masked" or "neighborhood".
    epochs, batch_size, accumulate
        Passes over the spots, spots per batch of one process, batches per step; of neighborhoods, groups of nine.

    Examples
    --------
    >>> stp.train.Phase(objective="neighborhood", batch_size=216).epochs
    1
    """

    objective: str = "masked"
    epochs: int = 1
    batch_size: int = 256
    accumulate: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "epochs", "batch_size", "accumulate")
        if self.objective not in ("masked", "neighborhood"):
            raise ValueError(
                f"objective must be 'masked' or 'neighborhood', not {self.objective!r}"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(LoopConfig):
    """Stage one (paper, table 3).

    Parameters
    ----------
    phases
        Run in turn, each with its own schedule.
    mask_fraction
        Share of a spot's tokens to predict.
    context
        "pooled" (paper, eq. 5) or "positionwise" (the reference): what a neighborhood is averaged to.
    targets
        "masked" (paper) or "all" (the reference): which genes of the center are predicted from it.
    log_frequency_start
        Start the bias of the heads at the log frequency of tokens, so that the first loss is that of guessing by
        frequency. Not in the paper.

    Examples
    --------
    >>> config = stp.train.PretrainConfig(learning_rate=1e-3)
    >>> [phase.objective for phase in config.phases]
    ['masked', 'neighborhood']
    """

    phases: tuple[Phase, ...] = (Phase(), Phase(objective="neighborhood", batch_size=216))
    mask_fraction: float = 0.15
    context: str = "pooled"
    targets: str = "masked"
    log_frequency_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phases or not 0 < self.mask_fraction <= 1:
            raise ValueError(
                "phases must not be empty, mask_fraction must be above 0 and at most 1"
            )
        if self.context not in ("pooled", "positionwise") or self.targets not in ("masked", "all"):
            raise ValueError(
                "context must be 'pooled' or 'positionwise', targets 'masked' or 'all'"
            )


@dataclass(frozen=True, kw_only=True)
class AlignConfig(LoopConfig):
    """Stage two (paper, table 4).

    Parameters
    ----------
    targets
        What images are aligned with: "genes" (the paper), "pathways", which need no gene encoder, or "both".
    gene_sets
        GMT file of the pathways, read once: sets and genes are then part of the model.
    epochs, batch_size, accumulate
        Passes over the spots, pairs per batch of one process, batches per step. Negatives come from the batch.
    negatives
        "global": of the batches of all processes; "local": of its own, as in the reference.
    micro_batch
        Pairs encoded at a time, if not the whole batch: its memory at the price of encoding each pair once more.
        Gradients are those of the whole batch.
    losses
        Which of the four are summed: "patch_target" and "region_target" contrast images with genes or pathways,
        "patch_region" patches with regions, "localization" finds the patch in its region. The paper sums all; its
        table 6 leaves some out.
    trained
        "all" (the paper), "images": not the gene encoder, whose features are then computed once, "lora": nor the
        backbone, but low-rank adapters on it, or "projections" alone.
    lora_rank
        Rank of those adapters; what is saved has them merged.
    spots_per_slide
        Spots of one slide that enter a batch together; 2 as in the reference. More make negatives harder.
    rotate
        Flip and turn patch and region by quarters, alike, and the region cell with them. Not in the paper.
    stain_jitter
        Standard deviation of the log factor on each channel's optical density. Not in the paper.
    projection_width
        Width of the space in which genes and images meet.

    Examples
    --------
    >>> stp.train.AlignConfig(epochs=10, micro_batch=32).batch_size
    256
    """

    targets: str = "genes"
    gene_sets: str | None = None
    epochs: int = 30
    batch_size: int = 256
    accumulate: int = 2
    negatives: str = "global"
    micro_batch: int | None = None
    losses: tuple[str, ...] = LOSSES
    trained: str = "all"
    lora_rank: int = 16
    spots_per_slide: int = 1
    rotate: bool = False
    stain_jitter: float = 0.0
    projection_width: int = 512
    warmup_steps: int = 500
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self,
            "epochs",
            "batch_size",
            "accumulate",
            "spots_per_slide",
            "projection_width",
            "lora_rank",
        )
        require_positive(self, *([] if self.micro_batch is None else ["micro_batch"]))
        require_not_negative(self, "stain_jitter")
        if self.targets not in ("genes", "pathways", "both"):
            raise ValueError(f"targets must be 'genes', 'pathways' or 'both', not {self.targets!r}")
        if (self.gene_sets is None) != (self.targets == "genes"):
            raise ValueError(
                "targets 'pathways' and 'both' need gene_sets, a GMT file; targets 'genes' take none"
            )
        if not self.losses or not set(self.losses) <= set(LOSSES):
            raise ValueError(f"losses must be some of {list(LOSSES)}, not {list(self.losses)}")
        if self.trained not in ("all", "images", "lora", "projections"):
            raise ValueError(
                f"trained must be 'all', 'images', 'lora' or 'projections', not {self.trained!r}"
            )
        if self.negatives not in ("global", "local"):
            raise ValueError(f"negatives must be 'global' or 'local', not {self.negatives!r}")
        if self.spots_per_slide > self.batch_size:
            raise ValueError(
                f"spots_per_slide {self.spots_per_slide} does not fit batch_size {self.batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(LoopConfig):
    """Adapters on frozen encoders (paper, A.3.3). All spots with features are trained on: `min_genes` does nothing.

    Parameters
    ----------
    epochs, batch_size, accumulate
        Passes over the spots, spots per batch of one process, batches per step.
    patience
        Epochs without a better validation score after which training ends.
    reduction
        Features over the width of the adapter: 4 gives the count of parameters in the paper's table, 2 is its text.

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
    """A head that predicts expression from features (paper, A.3.3). `min_genes` does nothing.

    Parameters
    ----------
    epochs, batch_size, accumulate
        Passes over the spots, spots per batch of one process, batches per step.
    patience
        Epochs without a better validation score after which training ends.

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
    weight_decay: float = 0.0  # Adam, that is
    clip_norm: float = float("inf")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "batch_size", "accumulate", "patience")
