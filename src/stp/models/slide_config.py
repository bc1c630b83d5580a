"""The configuration of a slide model: its size, its targets, and what its training fixed."""

import math
from dataclasses import dataclass

POOLINGS = ("attention", "mean", "transformer")
N_HEADS = 8  # of each layer of the transformer
KINDS = ("classes", "value", "survival")


@dataclass(frozen=True)
class SlideTarget:
    """What a slide model predicts.

    Parameters
    ----------
    kind
        "classes", "value" or "survival".
    name
        Column of the cohort with the classes, the values or the times.
    classes
        Names of the classes, in the order of the outputs.
    positive
        The class whose probability is compared with the threshold.
    event
        Column of the cohort that says if the event was observed, for survival.
    edges
        Times that separate the intervals, for survival.
    value_mean
        Mean of the values in the training patients.
    value_sd
        Standard deviation of the values in the training patients.
    temperature
        Number that the logits are divided by before they become probabilities.
    threshold
        Probability from which on the positive class is predicted.
    median_risk
        Median risk of the training patients, above which a risk is high; None if it is unknown.

    Examples
    --------
    >>> target = stp.models.SlideTarget("classes", "EGFR", ("mutated", "wild type"), "mutated")
    >>> target.n_outputs
    2
    """

    kind: str
    name: str
    classes: tuple[str, ...] = ()
    positive: str | None = None
    event: str | None = None
    edges: tuple[float, ...] = ()
    value_mean: float = 0.0
    value_sd: float = 1.0
    temperature: float = 1.0
    threshold: float = 0.5
    median_risk: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {list(KINDS)}, not {self.kind!r}")
        if self.kind == "classes" and len(self.classes) < 2:
            raise ValueError(f"target {self.name!r} has classes {self.classes}; it needs two")
        if self.kind == "survival" and (not self.edges or self.event is None):
            raise ValueError(f"target {self.name!r} needs event, and edges of two intervals")
        numbers = (*self.edges, self.value_mean, self.value_sd, self.temperature, self.threshold)
        if self.median_risk is not None:
            numbers = (*numbers, self.median_risk)
        if not all(map(math.isfinite, numbers)) or self.value_sd <= 0 or self.temperature <= 0:
            raise ValueError(
                f"target {self.name!r} has {numbers}: numbers must be finite, value_sd and "
                "temperature positive"
            )

    @property
    def n_outputs(self) -> int:
        """Number of logits: one per class or interval, and one for a value."""
        if self.kind == "classes":
            return len(self.classes)
        return len(self.edges) + 1 if self.kind == "survival" else 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the predictions: a probability per class, a value or a risk."""
        if self.kind == "classes":
            return tuple(f"{self.name}_{name}" for name in self.classes)
        return (f"{self.name}_risk",) if self.kind == "survival" else (self.name,)


@dataclass(frozen=True)
class SlideFeatures:
    """The features that a slide model was trained on.

    Parameters
    ----------
    width
        Number of features of a tile.
    model_name
        Name of the model that made the features, if it is known.
    model_class
        Class of that model.
    model_digest
        Digest of that model; None if it is not recorded.
    tile_um
        Edge length of a tile in µm; None if it is not recorded.
    um_per_px
        Size of a pixel of a tile in µm; None if it is not recorded.

    Examples
    --------
    >>> stp.models.SlideFeatures(1024, tile_um=112.0).tile_um
    112.0
    """

    width: int
    model_name: str = ""
    model_class: str = ""
    model_digest: str | None = None
    tile_um: float | None = None
    um_per_px: float | None = None


@dataclass(frozen=True)
class SlideModelConfig:
    """Size of a slide model, its targets, and what its training fixed.

    Parameters
    ----------
    features
        The features that it reads.
    targets
        What it predicts.
    hidden
        Width of a tile after the first layer.
    attention
        Width of each attention branch.
    gated
        Whether the attention is gated (Ilse et al. 2018, eq. 9) or plain (eq. 8).
    pooling
        How the tiles of a patient become one vector: by "attention", by their "mean", or by a
        "transformer" of two layers, which has no contributions of tiles.
    dropout
        Share of the hidden features that are dropped during training.
    standardize
        Whether features are standardized by mean and spread of the training tiles.
    bag_sizes
        Smallest and largest number of tiles of a training patient.
    far_distance
        Distance from the training slides above which a slide counts as far.
    salt
        Salt of the hashes of patients (hexadecimal).
    patient_hashes
        Hashes of all patients that trained or validated the model; see
        :func:`stp.models.SlideModel.hash_patients`. Hashes are not anonymous.

    Examples
    --------
    >>> features = stp.models.SlideFeatures(1024)
    >>> target = stp.models.SlideTarget("value", "purity")
    >>> stp.models.SlideModelConfig(features, (target,)).hidden
    512
    """

    features: SlideFeatures
    targets: tuple[SlideTarget, ...]
    hidden: int = 512
    attention: int = 256
    gated: bool = True
    pooling: str = "attention"
    dropout: float = 0.25
    standardize: bool = False
    bag_sizes: tuple[int, ...] = ()
    far_distance: float | None = None
    salt: str = ""
    patient_hashes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {list(POOLINGS)}, not {self.pooling!r}")
        if self.pooling == "transformer" and self.hidden % N_HEADS:
            raise ValueError(f"hidden must be a multiple of {N_HEADS}, not {self.hidden}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        names = [target.name for target in self.targets]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"targets are {names}; give at least one, and each only once")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(
                f"predictions would have the names {list(self.columns)}, of which some are the "
                "same; rename targets or classes"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all predictions, in the order of the targets."""
        return tuple(column for target in self.targets for column in target.columns)
