"""The study of a cohort as one TOML file: slides, tables, targets, and how they are learned."""

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stp._config import from_dict
from stp._text import native
from stp.data.column_values import nearest
from stp.tables import keys
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


TABLES: dict[str, type] = {
    "slides": SlidesTable,
    "cohort": CohortTable,
    "target": TargetTable,
    "fit": FitTable,
    "cross_validation": CrossValidationTable,
    "scores": ScoresTable,
}
NEEDED = ("output_dir", "cohort")


@dataclass(frozen=True, kw_only=True)
class Study:
    """The content of the file, with paths as they are written in it.

    Parameters
    ----------
    file
        Absolute path of the file, whose folder all paths are relative to.
    output_dir
        Folder of all results.
    slides
        Slides to tile; None if there are features already.
    cohort
        Tables of slides and patients.
    target
        What to predict.
    fit
        How a model is trained.
    cross_validation
        How patients are divided.
    scores
        How predictions are scored.
    """

    file: Path
    output_dir: str
    cohort: CohortTable
    slides: SlidesTable | None = None
    target: tuple[TargetTable, ...] = ()
    fit: FitTable = FitTable()
    cross_validation: CrossValidationTable = CrossValidationTable()
    scores: ScoresTable = ScoresTable()

    def path(self, text: str) -> Path:
        """Return an absolute path; `text` is relative to the folder of the file."""
        return self.file.parent / Path(native(text)).expanduser()

    @property
    def output(self) -> Path:
        """Folder of all results."""
        return self.path(self.output_dir)

    @property
    def root(self) -> Path | None:
        """Folder in which features are looked for: that of the tile stores, if slides are tiled."""
        if self.cohort.root is not None:
            return self.path(self.cohort.root)
        return None if self.slides is None else self.output / "tiles"

    @property
    def targets(self) -> list[Target]:
        """What to predict."""
        return [table.make_target() for table in self.target]

    @property
    def label_key(self) -> str:
        """Column by which folds are divided: by default the first target, or its event."""
        return self.cross_validation.label_key or self.targets[0].columns[-1]


class StudyError(ValueError):
    """A file of a study has faults, which are listed."""

    def __init__(self, file: Path, faults: list[str]) -> None:
        self.faults = faults
        lines = faults[0] if len(faults) == 1 else "".join(f"\n- {fault}" for fault in faults)
        super().__init__(f"{file}: {lines}")


def read_study(file: str | Path) -> Study:
    """Read the file of a study.

    Raises
    ------
    StudyError
        The file is no TOML, a key is unknown or missing, or a value has the wrong type or range.
    """
    file = Path(file).absolute()
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(file, [f"it is no TOML: {error}"]) from error
    if faults := list(_list_key_faults(values)):
        raise StudyError(file, faults)
    tables: dict[str, Any] = {}
    for name, value in values.items():
        if name == "target":
            tables[name] = tuple(_build("[[target]]", TargetTable, item, faults) for item in value)
        elif name in TABLES:
            tables[name] = _build(f"[{name}]", TABLES[name], value, faults)
    if not isinstance(values["output_dir"], str):
        faults.append(f"output_dir must be a text, not {values['output_dir']!r}")
    columns = [table.make_target().column for table in tables.get("target", ()) if table]
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        faults.append(f"tables [[target]] name {repeated} twice; leave out one")
    if faults:
        raise StudyError(file, faults)
    return Study(file=file, output_dir=values["output_dir"], **tables)


def table_keys(name: str) -> list[str]:
    """Return the keys that a table of the file may have."""
    names = [field.name for field in dataclasses.fields(TABLES[name]) if field.name != "config"]
    if name == "fit":
        return names + [field.name for field in dataclasses.fields(SlideConfig)]
    return names


def _list_key_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the keys of the file."""
    for name in values:
        if name not in TABLES and name != "output_dir":
            yield f"{name!r} is no table or key{_advice(name, ['output_dir', *TABLES])}"
    for name in NEEDED:
        if name not in values:
            example = 'output_dir = "runs/first"' if name == "output_dir" else "a table [cohort]"
            yield f"it lacks {name}; write {example}"
    for name in TABLES:
        if name not in values:
            continue
        title = "[[target]]" if name == "target" else f"[{name}]"
        items = values[name] if name == "target" else [values[name]]
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            yield f"{name} must be a table; write {title} on a line"
            continue
        for item in items:
            yield from _list_table_faults(name, title, item)


def _list_table_faults(name: str, title: str, item: Mapping[str, Any]) -> Iterator[str]:
    names = table_keys(name)
    for key in item:
        if key not in names:
            yield f"{title} has no key {key!r}{_advice(key, names)}"
    for field in dataclasses.fields(TABLES[name]):
        has_default = field.default is not dataclasses.MISSING
        if not has_default and field.name not in item:
            yield f"{title} lacks {field.name}; `stp slides init` writes an example"


def _advice(key: str, names: list[str]) -> str:
    """Return where an unknown key belongs, or the nearest known key, or all keys."""
    others = [table for table in TABLES if key in table_keys(table) and key not in names]
    if others:
        return f"; it belongs to [{others[0]}]"
    return nearest(key, names) or f"; it may have {', '.join(names)}"


def _build(title: str, table: type, values: Mapping[str, Any], faults: list[str]) -> Any:
    """Return a table of the file, or None after its fault was added."""
    if table is FitTable:
        config = dict(values)
        own = {key: config.pop(key) for key in ("validation_share",) if key in config}
        values = {**own, "config": config}
    try:
        return from_dict(table, values)
    except ValueError as error:
        faults.append(f"{title}: {error}")
        return None
