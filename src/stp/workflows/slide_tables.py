"""The tables of the file of a study, each a class whose fields are the keys."""

from dataclasses import dataclass

from stp.tables import keys
from stp.tables.valid_names import is_valid_name
from stp.tl._explain_slides import check_permutations
from stp.train.slide_config import SlideConfig
from stp.train.targets import Classes, Survival, Target, Value

Label = str | int | float | bool
N_INTERVALS = Survival("", "").n_intervals


@dataclass(frozen=True, kw_only=True)
class SlidesTable:
    """The table `[slides]`: arguments of `stp.io.tile_slides`; `wsi` are paths or patterns."""

    wsi: tuple[str, ...]
    model: str
    tile_um: float
    tissue: str | None = None
    tissue_class: tuple[str, ...] | str | None = None
    um_per_px: float | None = None
    min_tissue: float = 0.5
    batch_size: int = 64
    device: str | None = None
    precision: str = "auto"


@dataclass(frozen=True, kw_only=True)
class CohortTable:
    """The table `[cohort]`: arguments of `stp.io.read_cohort`."""

    slides: str
    clinical: str | None = None
    slide_key: str = "slide"
    patient_key: str = "patient"
    path_key: str = "path"
    root: str | None = None
    use_rep: str = keys.IMAGES
    table_key: str = "table"
    missing: str = "raise"

    def __post_init__(self) -> None:
        if self.missing not in ("raise", "drop"):
            raise ValueError(f'missing must be "raise" or "drop", not {self.missing!r}')


@dataclass(frozen=True, kw_only=True)
class TargetTable:
    """A table `[[target]]`: one of `classes`, `value` and `survival`, and what belongs to it."""

    classes: str | None = None
    positive: Label | None = None
    names: tuple[Label, ...] | None = None
    value: str | None = None
    survival: tuple[str, ...] | None = None
    n_intervals: int | None = None

    def __post_init__(self) -> None:
        kinds = [name for name in ("classes", "value", "survival") if getattr(self, name)]
        if len(kinds) != 1:
            raise ValueError(
                f"it has {' and '.join(kinds) or 'no column'}; write one of classes, value and "
                "survival, and a table [[target]] for each target"
            )
        if self.survival is not None and len(self.survival) != 2:
            raise ValueError('survival needs two columns, such as ["os_days", "os_event"]')
        if self.classes is None and (self.positive is not None or self.names is not None):
            raise ValueError("positive and names belong to classes; leave them out")
        if self.survival is None and self.n_intervals is not None:
            raise ValueError("n_intervals belongs to survival; leave it out")

    def make_target(self) -> Target:
        """Return the target that the table describes."""
        if self.classes is not None:
            return Classes(self.classes, self.names, self.positive)
        if self.survival is not None:
            time, event = self.survival
            return Survival(time, event, self.n_intervals or N_INTERVALS)
        return Value(self.value or "")


@dataclass(frozen=True, kw_only=True)
class FitTable:
    """The table `[fit]`: the share of patients that validate, and the fields of `SlideConfig`."""

    validation_share: float = 0.2
    config: SlideConfig = SlideConfig()


@dataclass(frozen=True, kw_only=True)
class CrossValidationTable:
    """The table `[cross_validation]`: arguments of `stp.tl.assign_folds`, or a column of folds."""

    n_folds: int = 5
    label_key: str | None = None
    site_key: str | None = None
    fold_key: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_folds < 2:
            raise ValueError(f"n_folds must be at least 2, not {self.n_folds}")
        if self.fold_key is not None and self.label_key is not None:
            raise ValueError("fold_key names folds that are there; leave label_key out")


@dataclass(frozen=True, kw_only=True)
class ScoresTable:
    """The table `[scores]`: arguments of `stp.tl.score_slides`."""

    n_resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_resamples < 1:
            raise ValueError(f"n_resamples must be at least 1, not {self.n_resamples}")
        if not 0 < self.level < 1:
            raise ValueError(f"level must be between 0 and 1, not {self.level}")


@dataclass(frozen=True, kw_only=True)
class GenesTable:
    """The table `[genes]`: arguments of `stp.tl.predict_expression` and `stp.tl.explain_slides`.

    `reference` are paths or patterns of measured stores, and `gene_sets` is a file for
    `stp.io.read_gene_sets`.
    """

    reference: tuple[str, ...] | str | None = None
    reference_rep: str = keys.aligned(keys.GENES)
    genes: tuple[str, ...] | None = None
    gene_sets: str | None = None
    n_neighbors: int = 50
    n_permutations: int = 500
    seed: int = 0
    expression_key: str = keys.EXPRESSION
    target: str | None = None

    def __post_init__(self) -> None:
        check_permutations(self.n_permutations)
        if self.n_neighbors < 1:
            raise ValueError(f"n_neighbors must be at least 1, not {self.n_neighbors}")
        if not is_valid_name(self.expression_key):
            raise ValueError(
                f"expression_key {self.expression_key!r} must have letters, digits, '_', '.' and "
                "'-' only"
            )
        if self.reference in ((), ""):
            raise ValueError("reference is empty; name stores with measured spots, or leave it out")
        if self.genes is None:
            return
        if not self.genes:
            raise ValueError("genes is empty; name at least one, or leave it out")
        if self.gene_sets is not None:
            raise ValueError("it has genes and gene_sets; leave out one of them")
        if self.reference is None:
            raise ValueError(
                "genes are predicted from reference, which is missing; name stores with measured "
                "spots, or leave genes out to explain by all genes that tiles have"
            )

    @property
    def references(self) -> tuple[str, ...]:
        """Paths or patterns of measured stores."""
        if self.reference is None:
            return ()
        return (self.reference,) if isinstance(self.reference, str) else self.reference


TABLES: dict[str, type] = {
    "slides": SlidesTable,
    "cohort": CohortTable,
    "target": TargetTable,
    "fit": FitTable,
    "cross_validation": CrossValidationTable,
    "scores": ScoresTable,
    "genes": GenesTable,
}
NEEDED = ("output_dir", "cohort")
