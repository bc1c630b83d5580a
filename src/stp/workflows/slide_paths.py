"""The files and models that the file of a study names."""

from collections.abc import Sequence
from glob import escape, has_magic
from pathlib import Path

from stp._text import native
from stp.models.published.backbones import BACKBONES
from stp.models.saved.description import CONFIG
from stp.workflows.slide_config import Study
from stp.workflows.slide_tables import SlidesTable


def find_slides(study: Study, table: SlidesTable) -> list[Path]:
    """Return the files of slides, sorted by pattern and name.

    Raises
    ------
    ValueError
        A path or pattern matches nothing.
    """
    return find_paths(study, table.wsi, "[slides] wsi")


def find_paths(study: Study, patterns: Sequence[str], what: str) -> list[Path]:
    """Return the paths that patterns match, sorted by pattern and name.

    Parameters
    ----------
    study
        The study, to whose folder the patterns are relative.
    patterns
        Paths or patterns.
    what
        Name of the setting in an error.

    Raises
    ------
    ValueError
        A path or pattern matches nothing.
    """
    paths: list[Path] = []
    for pattern in patterns:
        path = study.path(pattern)
        if path.exists() or not has_magic(pattern):
            matches = [path] if path.exists() else []
        else:
            base = Path(escape(str(study.file.parent))) / native(pattern)
            matches = sorted(Path(base.anchor).glob(str(base.relative_to(base.anchor))))
        if not matches:
            raise ValueError(
                f"{what}: nothing matches {pattern!r} in {study.file.parent}; correct the pattern"
            )
        paths += matches
    return list(dict.fromkeys(paths))


def find_encoder(study: Study, model: str) -> str | Path:
    """Return the name of an encoder, or the path of a folder.

    Raises
    ------
    ValueError
        It could be both, or it is neither.
    """
    path = study.path(model)
    if model in BACKBONES and path.exists():
        raise ValueError(
            f"[slides] model = {model!r} is the name of an encoder and of {path}; write "
            f"'./{model}' for the path"
        )
    if model in BACKBONES:
        return model
    if not (path / CONFIG).is_file():
        raise ValueError(
            f"[slides] model = {model!r} is no folder of a model in {study.file.parent}, and not "
            f"one of {', '.join(BACKBONES)}"
        )
    return path
