"""The TOML file of a cohort: its tables, its columns and its sets of features."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stp

if TYPE_CHECKING:
    from anndata import AnnData

KEYS = ("slides", "clinical", "patient_key", "slide_key", "columns", "features", "fit")
FEATURE_KEYS = ("root", "use_rep", "table_key")
COLUMNS = {
    "mutations": ("mutations", "positive"),
    "ubc": ("label",),
    "nsclc": ("label",),
    "panda": ("label",),
    "survival": ("time", "event"),
}
ALL_COLUMNS = ("mutations", "positive", "label", "time", "event")


@dataclass(frozen=True)
class CohortFile:
    """What a cohort file says.

    Parameters
    ----------
    path
        The file, to whose folder its paths are relative.
    slides
        Table with a row per slide.
    clinical
        Table with a row per patient; None if the table of slides has the labels.
    patient_key, slide_key
        Columns of ids.
    columns
        Columns of the labels, by their meaning.
    features
        Folder, `use_rep` and `table_key` of each set of features.
    fit
        Fields of `stp.train.SlideConfig` that differ from the paper.
    """

    path: Path
    slides: str
    clinical: str | None
    patient_key: str
    slide_key: str
    columns: Mapping[str, Any]
    features: Mapping[str, Mapping[str, str]]
    fit: Mapping[str, Any]

    def read(self, features: str) -> "AnnData":
        """Return the cohort with one set of features."""
        entry = self.features[features]
        folder = self.path.parent
        return stp.io.read_cohort(
            folder / self.slides,
            clinical=None if self.clinical is None else folder / self.clinical,
            patient_key=self.patient_key,
            slide_key=self.slide_key,
            root=folder / entry["root"],
            use_rep=entry.get("use_rep", "X_stp_images"),
            table_key=entry.get("table_key", "table"),
        )


def read_cohort_file(path: Path, task: str) -> CohortFile:
    """Read and check the file of a cohort for a task.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no TOML, or a key is unknown or missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no cohort file {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    _require_known(path, "", values, KEYS)
    columns = values.get("columns", {})
    features = values.get("features", {})
    fit = values.get("fit", {})
    for name, table in (("columns", columns), ("features", features), ("fit", fit)):
        if not isinstance(table, dict):
            raise ValueError(f"{path} has {name} = {table!r}; write a table, such as [{name}]")
    _require_known(path, "columns.", columns, ALL_COLUMNS)
    _require_known(
        path, "fit.", fit, [field.name for field in dataclasses.fields(stp.train.SlideConfig)]
    )
    missing = [f"columns.{name}" for name in COLUMNS[task] if name not in columns]
    missing += [name for name in ("slides", "features") if not values.get(name)]
    for name, entry in features.items():
        if not isinstance(entry, dict):
            raise ValueError(f"{path} has features.{name} = {entry!r}; write [features.{name}]")
        _require_known(path, f"features.{name}.", entry, FEATURE_KEYS)
        missing += [] if "root" in entry else [f"features.{name}.root"]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}, which the task {task} needs")
    return CohortFile(
        path,
        values["slides"],
        values.get("clinical"),
        values.get("patient_key", "patient"),
        values.get("slide_key", "slide"),
        columns,
        features,
        fit,
    )


def _require_known(path: Path, prefix: str, table: Mapping[str, Any], names: Any) -> None:
    """Raise ValueError if a table has other keys than these."""
    unknown = [prefix + name for name in table if name not in names]
    if unknown:
        raise ValueError(
            f"{path} has {', '.join(unknown)}; known keys are "
            f"{', '.join(prefix + name for name in names)}"
        )
