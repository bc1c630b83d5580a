"""The columns of a manifest, and which of them each kind of source takes."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stp.io._manifest_file import as_text
from stp.io._store_measures import MEASURES

H5AD = "h5ad"
HEST = "HEST sample"
SPATIALDATA = "SpatialData"
VISIUM = "Space Ranger folder"
VISIUM_HD = "Visium HD folder"
XENIUM = "Xenium folder"

METADATA = ("patient", "organ", "species", "platform", "disease", "source", "license")
NUMBERS = ("um_per_px", "spot_pitch_um", "patch_um_per_px", "bin_um")
NAMES = (
    "library_key",
    "library",
    "layer",
    "gene_ids_key",
    "image_key",
    "coordinate_system",
    "table_key",
)
ARGUMENTS = ("image", *NUMBERS, *NAMES)
COLUMNS = ("name", "path", *ARGUMENTS, *METADATA)
# Columns of the collection that this package measures, and that a manifest must not have.
RESERVED = (*(name for name in MEASURES if name not in COLUMNS), "problem")
# What each kind of source takes, apart from `patch_um_per_px`, which all take.
ARGUMENTS_OF = {
    H5AD: (
        "image",
        "um_per_px",
        "spot_pitch_um",
        "library_key",
        "library",
        "layer",
        "gene_ids_key",
    ),
    HEST: ("um_per_px", "layer", "gene_ids_key"),
    SPATIALDATA: (
        "um_per_px",
        "spot_pitch_um",
        "layer",
        "gene_ids_key",
        "image_key",
        "coordinate_system",
        "table_key",
    ),
    VISIUM: ("image", "um_per_px", "gene_ids_key"),
    VISIUM_HD: ("image", "um_per_px", "gene_ids_key", "bin_um"),
    XENIUM: ("image", "um_per_px", "gene_ids_key"),
}
PLATFORM_OF = {VISIUM: "Visium", VISIUM_HD: "Visium HD", XENIUM: "Xenium"}
LIKENESS = 0.8  # of a further column to a known one, from which on it is taken for a typing error
MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class ManifestRow:
    """One slide of a manifest; an empty cell is None."""

    name: str
    kind: str
    path: Path
    image: Path | None
    um_per_px: float | None
    spot_pitch_um: float | None
    patch_um_per_px: float | None
    bin_um: int | None
    library_key: str | None
    library: str | None
    layer: str | None
    gene_ids_key: str | None
    image_key: str | None
    coordinate_system: str | None
    table_key: str | None
    metadata: dict[str, object]  # patient, organ ... and the further columns

    @property
    def settings(self) -> dict[str, object]:
        """What the content of the store depends on, apart from the files of the source."""
        names = ("kind", *NUMBERS, *NAMES)
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def list_column_faults(columns: Sequence[str]) -> list[str]:
    """List the columns that a manifest lacks or must not have, one sentence each."""
    faults = [f"the manifest has no column {name!r}" for name in COLUMNS[:2] if name not in columns]
    for name in sorted(set(columns)):
        if columns.count(name) > 1:
            faults.append(f"the manifest has {columns.count(name)} columns {name!r}; keep one")
        if name in RESERVED:
            faults.append(
                f"the column {name!r} is one that the collection measures; rename it in the "
                "manifest"
            )
        elif name not in COLUMNS:
            likely = _likely_column(name, columns)
            if likely is not None:
                faults.append(
                    f"the manifest has a column {name!r}, which is unknown: did you mean "
                    f"{likely!r}? Rename it; a further column needs a name that is less similar"
                )
    return faults


def _likely_column(name: str, columns: Sequence[str]) -> str | None:
    """Return the known column that a further column was probably meant to be, or None."""
    plain = {_plain(column): column for column in COLUMNS}
    if _plain(name) in plain:
        return plain[_plain(name)]
    missing = [text for text, column in plain.items() if column not in columns]
    similar = difflib.get_close_matches(_plain(name), missing, n=1, cutoff=LIKENESS)
    return plain[similar[0]] if similar else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()


def name_fault(name: str) -> str | None:
    """Return why a name cannot be that of a store, or None."""
    if not name:
        return "it has no name; write one into the column 'name'"
    if re.search(r"[/\\]", name) or name.startswith(".") or not name.isprintable():
        return (
            f"the name {name!r} is unsafe as the name of a folder; use no slashes, no line breaks "
            "and no dot at the start"
        )
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        return f"the name {name[:20]!r}... is longer than {MAX_NAME_BYTES} bytes; shorten it"
    return None


def read_number(cell: object) -> float:
    """Return a cell as a positive number, or raise ValueError."""
    text = as_text(cell)
    try:
        number = float(text.replace("_", "no number"))  # Python takes 1_0 for 10
    except ValueError as error:
        hint = "; write a point, not a comma" if "," in text else ""
        raise ValueError(f"is {text!r}, which is no number{hint}") from error
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"is {text!r}, but must be a positive number")
    return number


def read_whole_number(cell: object) -> int:
    """Return a cell as a positive whole number, or raise ValueError."""
    number = read_number(cell)
    if number != int(number):
        raise ValueError(f"is {as_text(cell)!r}, but must be a whole number")
    return int(number)
