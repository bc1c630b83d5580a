"""The tiles of all slides of one patient: from tables, stores and feature files."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.data.feature_files import open_features
from stp.models.slide import SlideModel
from stp.models.slide_config import SlideFeatures
from stp.tables import keys
from stp.tables.embeddings import read_embedding
from stp.tables.provenance import model_of
from stp.tables.table import as_iterable, get_table
from stp.tl._slide_models import require_fit

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class SlideTiles:
    """The features of one slide of a patient.

    Parameters
    ----------
    label
        Name of the slide in an error.
    features
        Features (n, width) of the tiles that have any.
    has_features
        Which rows (n_obs,) of the table have features.
    """

    label: str
    features: np.ndarray
    has_features: np.ndarray


def read_bag(
    data: Any,
    table: "AnnData",
    other_slides: Any,
    model: SlideModel,
    use_rep: str | None,
    table_key: str,
) -> tuple[str, list[SlideTiles]]:
    """Return the name of the features, and the tiles of all slides, the table's first.

    Raises
    ------
    KeyError
        The features are missing.
    ValueError
        Features are not those of the training, a slide is there twice, or no tile has features.
    """
    rep = use_rep or find_features(table, model)
    slides = [_read_table(data, table, rep, model, "the table")]
    for number, item in enumerate(_list_slides(other_slides), start=1):
        if isinstance(item, str | Path):
            slides.append(_read_path(Path(item), rep, table_key, model))
            continue
        other = get_table(item, table_key)
        other_rep = use_rep or find_features(other, model)
        slides.append(_read_table(item, other, other_rep, model, f"other slide {number}"))
    _require_different(slides)
    if not slides[0].has_features.any():
        raise ValueError(f"no row of the table has features in obsm[{rep!r}]; make them again")
    return rep, slides


def find_features(table: "AnnData", model: SlideModel) -> str:
    """Return the name in `obsm` of the features that a model was trained on.

    Raises
    ------
    KeyError
        There are none.
    ValueError
        There are several of the same model and width.
    """
    trained = model.config.features
    names = []
    for name, values in table.obsm.items():
        is_wide = len(getattr(values, "shape", ())) == 2 and values.shape[1] == trained.width
        if is_wide and name != keys.SPATIAL and _digest_of(table, name) == trained.model_digest:
            names.append(name)
    if not names:
        made_by = trained.model_name or "a model without a record"
        raise KeyError(
            f"adata.obsm has no features of {made_by} with {trained.width} values a tile, which "
            f"{model.name or 'the slide model'} reads; it has {sorted(table.obsm)}"
        )
    if len(names) > 1:
        raise ValueError(
            f"{model.name or 'the slide model'} may have been trained on any of {sorted(names)}; "
            "pass use_rep= the one of its cohort"
        )
    return names[0]


def _list_slides(other_slides: Any) -> Iterable[Any]:
    """Return the other slides of the patient; one is a list of one."""
    return as_iterable(other_slides)


def _digest_of(table: "AnnData", name: str) -> str | None:
    try:
        made_by = model_of(table, name)
    except ValueError:  # the record is lost; naming the features raises this error
        return "lost"
    return None if made_by is None else made_by["digest"]


def _read_table(data: Any, table: "AnnData", rep: str, model: SlideModel, label: str) -> SlideTiles:
    values = read_embedding(table, rep)
    features = _describe(data, table, rep, values.shape[1])
    if "tokens_key" in _params(table, rep):  # vectors of genes have no scale
        trained = model.config.features
        features = replace(features, tile_um=trained.tile_um, um_per_px=trained.um_per_px)
    require_fit([model], features, label)
    has_features = np.isfinite(values).all(axis=1)
    return SlideTiles(label, values[has_features], has_features)


def _params(table: "AnnData", rep: str) -> dict[str, Any]:
    entry = table.uns.get(rep, table.uns.get(rep.removesuffix(keys.aligned("")), {}))
    return dict(entry.get("params", {}))


def _describe(data: Any, table: "AnnData", rep: str, width: int) -> SlideFeatures:
    """Return how the features of a table were made."""
    made_by = model_of(table, rep) or {}
    params = _params(table, rep)
    slide = getattr(data, "attrs", {}).get(keys.SLIDE, {})
    return SlideFeatures(
        width=width,
        model_name=str(made_by.get("name", "")),
        model_class=str(made_by.get("class", "")),
        model_digest=made_by.get("digest"),
        tile_um=params.get("tile_um", slide.get("tile_um")),
        um_per_px=params.get("um_per_px"),
    )


def _read_path(path: Path, rep: str, table_key: str, model: SlideModel) -> SlideTiles:
    """Read a tile store or a feature file, which a table of `io.read_features` came from too."""
    store_rep = keys.IMAGES if rep == keys.FEATURES else rep
    file = open_features(path, use_rep=store_rep, table_key=table_key)
    made_by = file.model or {}
    features = SlideFeatures(
        width=file.width,
        model_name=made_by.get("name", ""),
        model_class=made_by.get("class", ""),
        model_digest=made_by.get("digest"),
        tile_um=file.tile_um,
        um_per_px=file.um_per_px,
    )
    require_fit([model], features, str(path))
    values = file.read()
    return SlideTiles(str(path), values, np.ones(len(values), bool))


def _require_different(slides: list[SlideTiles]) -> None:
    """Raise ValueError if two slides have the same features, in whatever precision."""
    label_of: dict[bytes, str] = {}
    for slide in slides:
        values = np.ascontiguousarray(slide.features, np.float32)
        other = label_of.setdefault(hashlib.sha256(values.data).digest(), slide.label)
        if other != slide.label and len(values):
            raise ValueError(
                f"{other} and {slide.label} have the same features; other_slides= has only the "
                "remaining slides of the patient, each once"
            )
