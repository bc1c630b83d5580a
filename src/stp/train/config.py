"""The settings of both stages: those of the paper (tables 3 and 4), and others for few slides."""

from dataclasses import dataclass

from stp._config import require_not_negative, require_positive
from stp.train.engine.config import LoopConfig

LOSSES = ("patch_target", "region_target", "patch_region", "localization")
MIN_TEMPERATURE = 0.01  # a Stamp multiplies cosines by at most 100


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of pretraining.

    In neighborhood training a batch is made of whole groups of nine spots.

    Parameters
    ----------
    objective
        "masked" predicts masked genes from the other genes of a spot. "neighborhood" predicts them
        from the eight neighbors of the spot, too.
    epochs
        Number of passes over the spots.
    batch_size
        Number of spots per batch and process.
    accumulate
        Number of batches per optimizer step.

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
    """Settings of stage one (paper, table 3).

    Parameters
    ----------
    phases
        Phases of the training, in order; each has its own schedule.
    min_genes
        Number of genes that a spot must detect to be trained on.
    mask_fraction
        Share of a spot's tokens to predict.
    context
        How a neighborhood is averaged: "pooled" (paper, eq. 5) to one vector, or "positionwise"
        (the authors' release) to one vector per position.
    targets
        Genes of the center that its neighborhood predicts: "masked" ones (paper) or "all" (the
        authors' release).
    radius_um
        Draw the eight neighbors of a spot at random from the spots within this many µm, as for
        small bins; by default they are the eight nearest (paper).
    log_frequency_start
        Start the bias of the heads at the log frequency of the tokens. The first loss is then that
        of guessing by frequency. This is not in the paper.

    Examples
    --------
    >>> config = stp.train.PretrainConfig(learning_rate=1e-3)
    >>> [phase.objective for phase in config.phases]
    ['masked', 'neighborhood']
    """

    phases: tuple[Phase, ...] = (Phase(), Phase(objective="neighborhood", batch_size=216))
    min_genes: int = 100
    mask_fraction: float = 0.15
    context: str = "pooled"
    targets: str = "masked"
    radius_um: float | None = None
    log_frequency_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "min_genes")
        if self.radius_um is not None:
            require_positive(self, "radius_um")
            if not any(phase.objective == "neighborhood" for phase in self.phases):
                raise ValueError(
                    f"radius_um={self.radius_um:g} is for neighborhood training, and no phase has "
                    "the objective 'neighborhood'; leave radius_um out, or add such a phase"
                )
        if not self.phases or not 0 < self.mask_fraction <= 1:
            raise ValueError(
                "phases must not be empty, mask_fraction must be above 0 and at most 1"
            )
        if self.context not in ("pooled", "positionwise") or self.targets not in ("masked", "all"):
            raise ValueError(
                "context must be 'pooled' or 'positionwise', targets 'masked' or 'all'"
            )

    @classmethod
    def small(cls, epochs: int = 160) -> "PretrainConfig":
        """Return settings for a small gene encoder and three to ten slides.

        They were searched for on sections of two tissues; the benchmark `small_settings` has the
        scores.

        Parameters
        ----------
        epochs
            Number of passes over the spots. About 1,600 batches are enough: 160 passes over 500
            spots, 16 over 5,000.

        Examples
        --------
        >>> stp.train.PretrainConfig.small(epochs=16).phases[0].epochs
        16
        """
        return cls(
            phases=(Phase(epochs=epochs, batch_size=54),),
            learning_rate=3e-3,
            min_learning_rate=1e-4,
        )


@dataclass(frozen=True, kw_only=True)
class AlignConfig(LoopConfig):
    """Settings of stage two (paper, table 4).

    Parameters
    ----------
    targets
        What images are aligned with: "genes" (the paper), "pathways", which need no gene encoder,
        or "both".
    gene_sets
        Path of the file with the pathways: GMT, or a table with the columns set and gene. Sets and
        genes become part of the model, so the file is read only once.
    min_genes
        Number of genes that a spot must detect to be trained on.
    epochs
        Number of passes over the spots.
    batch_size
        Number of spots per batch and process.
    accumulate
        Number of batches per optimizer step.
    negatives
        Pairs that an image is contrasted with: "global" takes the batches of all processes, "local"
        (the authors' release) only the batch of the same process.
    micro_batch
        Encode this many pairs at a time to save memory; each pair is then encoded twice. Gradients
        stay those of the whole batch.
    losses
        Losses that are summed. "patch_target" and "region_target" contrast images with genes or
        pathways, "patch_region" contrasts patches with regions, and "localization" finds the patch
        in its region. The paper sums all four; its table 6 leaves some out.
    trained
        Parts that are trained: "all" (the paper), "images" (all but the gene encoder), "lora"
        (like "images", but with low-rank adapters in place of the backbone's own weights) or
        "projections" alone. The features of a frozen gene encoder are computed only once.
    lora_rank
        Rank of the low-rank adapters. They are merged into the weights that are saved.
    spots_per_slide
        Number of spots of one slide that enter a batch together; 2 in the authors' release. Larger
        numbers make the negatives harder.
    rotate
        Rotate by quarter turns and flip patch and region alike, and the region cell with them. This
        is not in the paper.
    stain_jitter
        Standard deviation of the log factor on the optical density of each channel. This is not in
        the paper.
    projection_width
        Width of the aligned vectors.
    temperature
        Temperature of the contrastive losses at the start; it is learned. Cosines are divided by
        it, so that a lower one sets the most similar negatives farther apart.

    Examples
    --------
    >>> stp.train.AlignConfig(epochs=10, micro_batch=32).batch_size
    256
    """

    targets: str = "genes"
    gene_sets: str | None = None
    min_genes: int = 100
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
    temperature: float = 0.07
    warmup_steps: int = 500
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "epochs", "batch_size", "accumulate", "spots_per_slide")
        require_positive(self, "projection_width", "lora_rank")
        if self.micro_batch is not None:
            require_positive(self, "micro_batch")
        if not MIN_TEMPERATURE <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature must be at least {MIN_TEMPERATURE:g}, not {self.temperature:g}"
            )
        require_not_negative(self, "min_genes", "stain_jitter")
        if self.targets not in ("genes", "pathways", "both"):
            raise ValueError(f"targets must be 'genes', 'pathways' or 'both', not {self.targets!r}")
        if (self.gene_sets is None) != (self.targets == "genes"):
            raise ValueError(
                "targets 'pathways' and 'both' need gene_sets, a GMT file or a table; "
                "targets 'genes' take none"
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

    @classmethod
    def small(cls, epochs: int = 30) -> "AlignConfig":
        """Return settings for a small image encoder and three to ten slides.

        The gene encoder is frozen. The settings were searched for on sections of two tissues; the
        benchmark `small_settings` has the scores.

        Parameters
        ----------
        epochs
            Number of passes over the spots. About 300 batches are enough: 30 passes over 500 spots,
            3 over 5,000.

        Examples
        --------
        >>> stp.train.AlignConfig.small().trained
        'images'
        """
        return cls(
            epochs=epochs,
            batch_size=48,
            accumulate=1,
            learning_rate=1e-3,
            min_learning_rate=2e-5,
            rotate=True,
            projection_width=64,
            trained="images",
        )
