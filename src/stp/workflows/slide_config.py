"""The study of a cohort as one TOML file: slides, tables, targets, and how they are learned."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stp._config import from_dict
from stp._text import native
from stp.train.targets import Target
from stp.workflows.slide_config_keys import list_key_faults
from stp.workflows.slide_tables import (
    TABLES,
    CohortTable,
    CrossValidationTable,
    FitTable,
    GenesTable,
    ScoresTable,
    SlidesTable,
    TargetTable,
)


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
    genes
        How models are explained by genes; None for the defaults.
    """

    file: Path
    output_dir: str
    cohort: CohortTable
    slides: SlidesTable | None = None
    target: tuple[TargetTable, ...] = ()
    fit: FitTable = FitTable()
    cross_validation: CrossValidationTable = CrossValidationTable()
    scores: ScoresTable = ScoresTable()
    genes: GenesTable | None = None

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
    if faults := list(list_key_faults(values)):
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
