"""The files of a Space Ranger folder, under the names that its versions and GEO give them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stp._log import preview

# GEO and users put the name of a sample in front, as in GSM123_filtered_feature_bc_matrix.h5.
PREFIX = r"(?P<prefix>|.+[_.-])"
MATRIX_PARTS = {
    "matrix.mtx": r"matrix\.mtx(\.gz)?",
    "features.tsv": r"(features|genes)\.tsv(\.gz)?",
    "barcodes.tsv": r"barcodes\.tsv(\.gz)?",
}
# Versions from 2.0 on write a header, and Visium HD writes parquet; the preferred name is first.
POSITIONS = (
    r"tissue_positions\.parquet",
    r"tissue_positions\.csv(\.gz)?",
    r"tissue_positions_list\.csv(\.gz)?",
)
SCALE_FACTORS = r"scalefactors_json\.json(\.gz)?"
PICTURES = ("hires", "lowres")
PROBE_MATRIX = r"raw_probe_bc_matrix\.h5"
ARCHIVE = r".+\.(tar|tar\.gz|tgz|zip)"
BIN_FOLDER = r"square_\d+um"


@dataclass(frozen=True)
class MatrixFiles:
    """The counts of a folder: one h5 file, or three text files."""

    h5: Path | None
    parts: dict[str, Path]  # by the keys of MATRIX_PARTS
    is_raw: bool

    @property
    def path(self) -> Path:
        """The file that holds the counts."""
        return self.h5 or self.parts["matrix.mtx"]

    @property
    def name(self) -> str:
        """Name of the h5 file, or of the folder of the text files."""
        return self.h5.name if self.h5 else self.parts["matrix.mtx"].parent.name


@dataclass(frozen=True)
class SpaceRangerFiles:
    """The files of one sample in a Space Ranger folder."""

    folder: Path
    matrix: MatrixFiles
    positions: Path
    scale_factors: Path
    pictures: dict[str, Path]  # by the names in PICTURES


def find_space_ranger_files(path: Path) -> SpaceRangerFiles:
    """Return the files of the only sample in a Space Ranger folder or in its `outs`.

    Raises
    ------
    FileNotFoundError
        There is no folder at `path`, or it lacks a file; the message names all that it lacks.
    ValueError
        The folder has several samples, or it is one of Visium HD.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no Space Ranger folder at {path}")
    folder = _outs(path)
    if is_visium_hd(path) or is_visium_hd(folder):
        raise ValueError(
            f"{path} is a folder of Visium HD; read it with stp.io.read_visium_hd(path, bin_um=8)"
        )
    return find_sample(folder)


def find_sample(folder: Path) -> SpaceRangerFiles:
    """Return the files of the only sample in a folder; see `find_space_ranger_files`."""
    files = _list_files(folder)
    prefix = _only_prefix(folder, files)
    matrix = _find_matrix(folder, files, prefix)
    positions = _first(files, POSITIONS, prefix)
    scale_factors = _first(files, (SCALE_FACTORS,), prefix)
    if matrix is None or positions is None or scale_factors is None:
        missing = [] if matrix else _missing_of_matrix(folder)
        missing += [] if positions else ["spatial/tissue_positions.csv"]
        missing += [] if scale_factors else ["spatial/scalefactors_json.json"]
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}{_explain_missing(folder, files)}"
        )
    pictures = {}
    for name in PICTURES:
        picture = _first(files, (rf"tissue_{name}_image\.(png|jpe?g)",), prefix)
        if picture is not None:
            pictures[name] = picture
    return SpaceRangerFiles(folder, matrix, positions, scale_factors, pictures)


def is_visium_hd(folder: Path) -> bool:
    """Return whether a folder holds the bins of Visium HD, or is the folder of one bin size."""
    if re.fullmatch(BIN_FOLDER, folder.resolve().name):
        return True
    return any(
        entry.name == "binned_outputs"
        or entry.name.endswith("feature_slice.h5")
        or (entry.is_dir() and re.fullmatch(BIN_FOLDER, entry.name))
        for entry in folder.iterdir()
    )


def _outs(path: Path) -> Path:
    """Return the folder `outs` of a sample's folder, or the folder itself."""
    has_matrix = any(re.search("feature_bc_matrix", entry.name) for entry in path.iterdir())
    outs = path / "outs"
    return outs if outs.is_dir() and not has_matrix else path


def _list_files(folder: Path) -> list[Path]:
    """List the files of a folder and of its folders `spatial`, in the order of their names."""
    places = [folder]
    places += [entry for entry in sorted(folder.iterdir()) if _is_folder(entry, "spatial")]
    return [file for place in places for file in sorted(place.iterdir()) if file.is_file()]


def _is_folder(entry: Path, name: str) -> bool:
    """Return whether an entry is a folder of this name, with or without a prefix."""
    return entry.is_dir() and re.fullmatch(PREFIX + name, entry.name) is not None


def _prefixes(names: Iterable[str], pattern: str) -> set[str]:
    matches = [re.fullmatch(PREFIX + pattern, name) for name in names]
    return {match["prefix"] for match in matches if match}


def _only_prefix(folder: Path, files: list[Path]) -> str:
    """Return the prefix of the file names; raise ValueError if there are several samples."""
    names = [file.name for file in files]
    folders = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    by_kind = [
        _prefixes(names, r"filtered_feature_bc_matrix\.h5"),
        _prefixes(names, r"raw_feature_bc_matrix\.h5"),
        _prefixes(folders, "filtered_feature_bc_matrix"),
        _prefixes(folders, "raw_feature_bc_matrix"),
        _prefixes(names, MATRIX_PARTS["matrix.mtx"]),
        *(_prefixes(names, pattern) for pattern in POSITIONS),
        _prefixes(names, SCALE_FACTORS),
    ]
    prefixes = sorted(set().union(*by_kind))
    named = [prefix for prefix in prefixes if prefix]
    if len(named) > 1 or any(len(kind) > 1 for kind in by_kind):
        samples = named if len(named) > 1 else prefixes
        listed = ", ".join(prefix or "(no prefix)" for prefix in samples)
        raise ValueError(
            f"{folder} has files of several samples, with the prefixes {listed}; "
            "put the files of each sample into a folder and read one folder at a time"
        )
    return named[0] if named else ""


def _first(files: list[Path], patterns: Iterable[str], prefix: str) -> Path | None:
    """Return the first file that matches the first pattern, with the prefix or without one."""
    for pattern in patterns:
        for file in files:
            if re.fullmatch(rf"({re.escape(prefix)})?{pattern}", file.name):
                return file
    return None


def _find_matrix(folder: Path, files: list[Path], prefix: str) -> MatrixFiles | None:
    """Return the filtered counts; without them the raw ones; None if neither is complete."""
    for kind in ("filtered", "raw"):
        is_raw = kind == "raw"
        h5 = _first(files, (rf"{kind}_feature_bc_matrix\.h5",), prefix)
        if h5 is not None:
            return MatrixFiles(h5, {}, is_raw)
        for entry in sorted(folder.iterdir()):
            if _is_folder(entry, f"{kind}_feature_bc_matrix"):
                parts = _find_parts(sorted(entry.iterdir()), prefix)
                if len(parts) == len(MATRIX_PARTS):
                    return MatrixFiles(None, parts, is_raw)
    parts = _find_parts(files, prefix)
    return MatrixFiles(None, parts, False) if len(parts) == len(MATRIX_PARTS) else None


def _find_parts(files: list[Path], prefix: str) -> dict[str, Path]:
    parts = {}
    for name, pattern in MATRIX_PARTS.items():
        part = _first(files, (pattern,), prefix)
        if part is not None:
            parts[name] = part
    return parts


def _missing_of_matrix(folder: Path) -> list[str]:
    """List the missing files of the counts: those of an incomplete folder, or the h5 file."""
    for entry in sorted(folder.iterdir()):
        if _is_folder(entry, "(filtered|raw)_feature_bc_matrix"):
            parts = _find_parts(sorted(entry.iterdir()), "")
            return [f"{entry.name}/{name}" for name in MATRIX_PARTS if name not in parts]
    return ["filtered_feature_bc_matrix.h5"]


def _explain_missing(folder: Path, files: list[Path]) -> str:
    """Return a hint for the error about missing files, or nothing."""
    archives = [file.name for file in files if re.fullmatch(ARCHIVE, file.name)]
    if archives:
        return f"; unpack {preview(archives)} first"
    probes = [file.name for file in files if re.fullmatch(PREFIX + PROBE_MATRIX, file.name)]
    if probes:
        return f"; {probes[0]} counts probes, not genes"
    samples = [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir()]
    samples = [name for name in samples if _holds_sample(folder / name)]
    if samples:
        return f"; it has folders of samples, pass one of {preview(samples)}"
    return ""


def _holds_sample(folder: Path) -> bool:
    """Return whether a folder looks like one of a sample."""
    return any((place / "spatial").is_dir() for place in (folder, folder / "outs"))
