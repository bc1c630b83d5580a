"""The kind of a source, recognized by its files, and what it needs."""

import json
import re
from pathlib import Path

from stp.io._manifest_columns import H5AD, HEST, SPATIALDATA, VISIUM, VISIUM_HD, XENIUM
from stp.io._read_xenium import EXPERIMENT
from stp.io._space_ranger import find_space_ranger_files, is_visium_hd

RECOGNIZED = (
    "an h5ad file, a folder of Space Ranger, Visium HD or Xenium, a SpatialData zarr, and the file "
    "st/<id>.h5ad of a HEST sample"
)


def recognize_kind(path: Path) -> str:
    """Return the kind of the source at a path.

    Raises
    ------
    FileNotFoundError
        There is nothing at the path, or files of the source are missing.
    ValueError
        The source is of no kind that is read, or it may be of several kinds.
    """
    if path.is_file():
        return _kind_of_file(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no file or folder {path}")
    kinds = []
    if _is_spatialdata(path):
        kinds.append(SPATIALDATA)
    if is_visium_hd(path) or ((path / "outs").is_dir() and is_visium_hd(path / "outs")):
        kinds.append(VISIUM_HD)
    elif _has_spots(path) or _has_spots(path / "outs"):
        find_space_ranger_files(path)
        kinds.append(VISIUM)
    if (path / EXPERIMENT).is_file():
        kinds.append(XENIUM)
    if len(kinds) > 1:
        raise ValueError(
            f"{path} may be a {' or a '.join(kinds)}; put the files of each into a folder, and "
            "name that"
        )
    if kinds:
        return kinds[0]
    if (path / "st").is_dir() and (path / "wsis").is_dir():
        raise ValueError(f"{path} has all samples of HEST; name one: {path / 'st' / '<id>.h5ad'}")
    raise ValueError(f"{path} is not recognized; these are: {RECOGNIZED}")


def hest_root(path: Path) -> Path:
    """Return the folder of HEST that holds a sample."""
    return path.parent.parent


def newest_hest_table(root: Path) -> Path | None:
    """Return HEST's table of all samples, the one of the newest version; None if there is none."""
    return max(root.glob("HEST_v*.csv"), key=_version, default=None)


def _version(file: Path) -> list[int]:
    """Return the numbers in the name of a file."""
    return [int(number) for number in re.findall(r"\d+", file.stem)]


def hest_files(path: Path) -> list[Path]:
    """Return the files of a HEST sample: counts, slide, and what describes it."""
    root = hest_root(path)
    description = root / "metadata" / f"{path.stem}.json"
    table = newest_hest_table(root)
    if table is not None and not description.is_file():
        description = table
    return [path, root / "wsis" / f"{path.stem}.tif", description]


def _kind_of_file(path: Path) -> str:
    """Return the kind of a source that is one file."""
    if path.suffix.lower() != ".h5ad":
        remedy = "; name the folder it lies in" if path.suffix.lower() == ".h5" else ""
        raise ValueError(f"{path} is not recognized; these are: {RECOGNIZED}{remedy}")
    root = hest_root(path)
    if path.parent.name != "st" or not ((root / "wsis").is_dir() or (root / "metadata").is_dir()):
        return H5AD
    missing = [str(file) for file in hest_files(path) if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"the HEST sample {path.stem} lacks {' and '.join(missing)}; download them"
        )
    return HEST


def _is_spatialdata(path: Path) -> bool:
    """Return whether a folder is a zarr group that SpatialData wrote."""
    files = {path / "zarr.json": "attributes", path / ".zattrs": None}
    for file, key in files.items():
        try:
            attrs = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        attrs = attrs.get(key, {}) if key else attrs
        if "spatialdata_attrs" in attrs:
            return True
        if attrs.get("encoding-type") == "anndata":
            raise ValueError(f"{path} is a zarr of AnnData; write it as h5ad, and name that")
    return False


def _has_spots(path: Path) -> bool:
    """Return whether a folder has files of Visium: positions of spots, or a folder of them."""
    if not path.is_dir():
        return False
    pattern = r"(.+[_.-])?(spatial|tissue_positions(_list)?\.(csv|parquet)(\.gz)?)"
    return any(re.fullmatch(pattern, entry.name) for entry in path.iterdir())
