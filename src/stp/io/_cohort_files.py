"""Find the feature file of each slide of a cohort, and describe its features."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stp._log import preview
from stp._progress import track
from stp.data.feature_files import FeatureFile, open_features
from stp.images.scale import TOLERANCE
from stp.tables import keys
from stp.tables.cohort_join import Mismatches, similar_ids

if TYPE_CHECKING:
    import pandas as pd

FEATURE_SUFFIXES = (".zarr", ".h5", ".pt")
SLIDE_SUFFIXES = (
    ".svs",
    ".ndpi",
    ".tiff",
    ".tif",
    ".mrxs",
    ".scn",
    ".bif",
    ".dcm",
    ".vms",
    ".vmu",
    ".svslide",
    ".qptiff",
    ".czi",
)


class FeatureFolder:
    """All feature files in a folder and its subfolders.

    Parameters
    ----------
    root
        The folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"root= is {root}, which is no folder; check the path")
        self.root = root
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in _feature_paths(root):
            self._by_stem[_without_suffix(_normal(path.name))].append(path)

    @property
    def stems(self) -> list[str]:
        """Names of the files without suffix."""
        return list(self._by_stem)

    def find(self, slide: str) -> list[Path]:
        """Return the files of a slide; its id may have subfolders and a suffix."""
        slide_path = PurePosixPath(_normal(slide).replace("\\", "/"))
        name = slide_path.name
        files = self._by_stem.get(name) or self._by_stem.get(_without_suffix(name))
        folders = slide_path.parent.parts
        matches = [
            path
            for path in files or []
            if not folders or _normal_parts(path)[:-1][-len(folders) :] == folders
        ]
        exact = [path for path in matches if _normal(path.name) == name]
        return exact or matches


def find_paths(
    table: "pd.DataFrame",
    folder: Path | None,
    root: Path | None,
    path_key: str,
    mismatches: Mismatches,
    awaited: Collection[str],
) -> dict[str, Path]:
    """Return the absolute path of the feature file of each slide that has one.

    `awaited` are names of slides whose features are still to be made.
    """
    has_paths = keys.PATH in table
    if not has_paths and root is None:
        raise ValueError(
            f"there is no column {path_key!r} with the paths of feature files; pass path_key=, or "
            "root= the folder that has them"
        )
    column = table[keys.PATH] if has_paths else [None] * len(table)
    base = root or folder or Path()
    is_folder = root is not None and (root.is_dir() or not awaited)
    features = FeatureFolder(root) if root is not None and is_folder else None
    paths: dict[str, Path] = {}
    nowhere = []
    for slide, path in zip(table[keys.SLIDE_ID], column, strict=True):
        if path is not None:
            paths[slide] = (base / Path(path).expanduser()).absolute()
            continue
        files = features.find(slide) if features is not None else []
        if len(files) == 1:
            paths[slide] = files[0].absolute()
        elif files:
            names = " and ".join(str(file) for file in files[:2])
            mismatches.contradict("slides have several feature files", f"{slide} has {names}")
        elif name_of_slide(slide) not in awaited:
            nowhere.append(slide)
    hints = similar_ids(nowhere, features.stems if features is not None else [])
    default = "the path is empty" if root is None else f"in {root}"
    for slide in nowhere:
        mismatches.leave_out_slide(slide, "no feature file", hints.get(slide, default))
    return paths


def open_slides(
    paths: Mapping[str, Path], use_rep: str, table_key: str, mismatches: Mismatches
) -> dict[str, FeatureFile]:
    """Open the feature file of each slide.

    Slides whose file is missing, cannot be read or has no tile are left out. Features that differ
    in model, width or scale are a contradiction.
    """
    files: dict[str, FeatureFile] = {}
    for slide, path in track(paths.items(), "open features", "slide", total=len(paths)):
        try:
            file = open_features(path, use_rep=use_rep, table_key=table_key)
        except FileNotFoundError:
            detail = f"{path} does not exist{_hint_at_file(path)}"
            mismatches.leave_out_slide(slide, "no feature file", detail)
        except (ValueError, OSError) as error:
            mismatches.leave_out_slide(slide, "features that cannot be read", str(error))
        else:
            if file.n_tiles:
                files[slide] = file
            else:
                mismatches.leave_out_slide(slide, "no tile", f"{path} is empty")
    _check_same_path(paths, mismatches)
    _check_same_features(files, mismatches)
    return files


def _hint_at_file(path: Path) -> str:
    """Return a hint at a file of this name with a suffix, or in a subfolder."""
    names = {path.name, *(path.name + suffix for suffix in FEATURE_SUFFIXES)}
    names.update(path.stem + suffix for suffix in FEATURE_SUFFIXES)
    for name in sorted(names):
        if path.with_name(name).exists():
            return f", but {name} does"
    if path.parent.is_dir():
        for file in _feature_paths(path.parent):
            if file.name in names:
                return f", but {file.relative_to(path.parent)} does"
    return ""


def _check_same_path(paths: Mapping[str, Path], mismatches: Mismatches) -> None:
    """Note slides that have one file together."""
    by_file: dict[Path, list[str]] = defaultdict(list)
    for slide, path in paths.items():
        by_file[path.resolve()].append(slide)
    for file, slides in by_file.items():
        if len(slides) > 1:
            detail = f"{preview(slides)} have {file}"
            mismatches.contradict("several slides have one feature file", detail)


def _check_same_features(files: Mapping[str, FeatureFile], mismatches: Mismatches) -> None:
    """Note features of several models, widths or scales."""
    by_model: dict[str, list[str]] = defaultdict(list)
    by_width: dict[str, list[str]] = defaultdict(list)
    for slide, file in files.items():
        by_model[_title(file)].append(slide)
        by_width[f"{file.width} values"].append(slide)
    by_scale = {
        "tiles have several sizes": _group_scales(
            {slide: file.tile_um for slide, file in files.items()}
        ),
        "patches have several scales": _group_scales(
            {slide: file.um_per_px for slide, file in files.items()}
        ),
    }
    # Of files of other tools the digest depends on the size of tiles, too.
    by_encoder = {(file.model or {}).get("name") for file in files.values()}
    has_one_scale = all(len(groups) == 1 for groups in by_scale.values())
    if len(by_encoder) > 1 or has_one_scale:
        _note_groups("features are of several models", by_model, mismatches)
    _note_groups("features have several widths", by_width, mismatches)
    if len(by_encoder) > 1:
        return  # whose scales differ for this reason
    for title, groups in by_scale.items():
        if len(groups) > 1:
            _note_groups(title, groups, mismatches)
            return  # whose patches have another scale for the same reason


def _note_groups(title: str, groups: Mapping[str, list[str]], mismatches: Mismatches) -> None:
    if len(groups) > 1:
        parts = [f"{name} in {preview(slides, 2)}" for name, slides in groups.items()]
        mismatches.contradict(f"{title}: {'; '.join(parts)}")


def _group_scales(scales: Mapping[str, float | None]) -> dict[str, list[str]]:
    """Group slides whose scales differ by at most 5 %."""
    groups: dict[str, list[str]] = defaultdict(list)
    values: dict[str, float | None] = {}
    for slide, scale in scales.items():
        for name, value in values.items():
            is_same = value is scale if value is None or scale is None else _is_close(value, scale)
            if is_same:
                groups[name].append(slide)
                break
        else:
            name = "an unknown one" if scale is None else f"{scale:g} um"
            values[name] = scale
            groups[name].append(slide)
    return groups


def _is_close(first: float, second: float) -> bool:
    return abs(first / second - 1) <= TOLERANCE


def _title(file: FeatureFile) -> str:
    if not file.model:
        return "no record of a model"
    return f"{file.model['name']} ({file.model['class']}, {file.model['digest'][:12]})"


def _feature_paths(root: Path) -> Iterator[Path]:
    """Yield feature files and stores; links to folders are followed once."""
    visited: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        stores = [name for name in folders if name.endswith(".zarr")]
        folders[:] = [name for name in folders if name[0] != "." and name not in stores]
        files = [name for name in sorted(names) if name.endswith((".h5", ".pt"))]
        yield from (Path(folder, name) for name in (*stores, *files) if name[0] != ".")


def name_of_slide(slide: str) -> str:
    """Return the name of a slide without folders and suffix."""
    return _without_suffix(PurePosixPath(_normal(slide).replace("\\", "/")).name)


def _without_suffix(name: str) -> str:
    for suffix in (*FEATURE_SUFFIXES, *SLIDE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _normal_parts(path: Path) -> tuple[str, ...]:
    return tuple(_normal(part) for part in path.parts)
