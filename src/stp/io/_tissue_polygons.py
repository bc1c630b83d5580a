"""The polygons of tissue that a user passes: a GeoJSON file, or polygons of shapely."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp._log import logger, warn
from stp.tables.table import as_list

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

MIN_SHARE = 0.5  # of the area of the polygons that must lie on the image
WARN_SHARE = 0.95
NO_CLASS = "(no class)"
# QuPath's objects that are not drawn by hand or by a classifier of regions.
OTHER_OBJECTS = ("cell", "detection", "root", "tile", "tmacore", "tma_core")
ACCEPTED = "the path of a GeoJSON file, shapely polygons or a GeoDataFrame"
REMEDY = (
    "coordinates are x and y in pixels of level 0, the full resolution, not µm and not pixels of "
    "a thumbnail"
)


class Annotation(NamedTuple):
    """A geometry of a GeoJSON file and its class."""

    geometry: "BaseGeometry"
    class_name: str


def read_tissue(
    tissue: Any, tissue_class: str | Sequence[str] | None, shape: tuple[int, int]
) -> "list[BaseGeometry]":
    """Return valid polygons of tissue, in pixels of level 0.

    Parameters
    ----------
    tissue
        Path of a GeoJSON file, or polygons of shapely.
    tissue_class
        Classes of a GeoJSON file that are tissue; None if it has one class only.
    shape
        Height and width of the image.

    Raises
    ------
    FileNotFoundError
        There is no file at the path.
    KeyError
        The file lacks a class.
    TypeError
        `tissue` is neither a path nor polygons.
    ValueError
        The file is no GeoJSON, has no polygons or several classes, or most of their area lies
        outside the image.
    """
    if isinstance(tissue, str | os.PathLike):
        source = Path(tissue).name
        annotations = _choose_class(_read_file(Path(tissue)), tissue_class, source)
        geometries = [annotation.geometry for annotation in annotations]
    elif tissue_class is not None:
        raise ValueError(
            f"tissue_class={tissue_class!r} chooses from a GeoJSON file; choose from polygons "
            "before you pass them"
        )
    else:
        source = "tissue="
        geometries = list(_list_geometries(tissue))
    polygons = _make_polygons(geometries, source)
    _check_place(polygons, shape, source)
    return polygons


def _list_geometries(tissue: Any) -> "Iterator[BaseGeometry]":
    """Yield the geometries of shapely objects, or of a GeoSeries or GeoDataFrame."""
    from shapely.geometry.base import BaseGeometry

    if isinstance(tissue, BaseGeometry):
        yield tissue
        return
    items = getattr(tissue, "geometry", tissue)  # of a GeoDataFrame
    if isinstance(items, dict) or not isinstance(items, Iterable):
        raise TypeError(f"tissue= accepts {ACCEPTED}, not {type(tissue).__name__}")
    for item in items:
        if not isinstance(item, BaseGeometry):
            raise TypeError(f"tissue= accepts {ACCEPTED}, not a list of {type(item).__name__}")
        yield item


def _read_file(path: Path) -> list[Annotation]:
    """Return the annotations of a GeoJSON file, without detected cells and tiles.

    QuPath writes a collection, or a list of features; each has the type of its object. Other tools
    write a collection, a feature or a geometry.
    """
    from shapely.errors import ShapelyError

    if not path.is_file():
        raise FileNotFoundError(f"no GeoJSON file at {path}")
    try:
        features = _list_features(json.loads(path.read_text(encoding="utf-8-sig")))
        types = [_object_type(feature) for feature in features]
        annotations = [
            _read_feature(feature)
            for feature, object_type in zip(features, types, strict=True)
            if object_type not in OTHER_OBJECTS and feature.get("geometry")
        ]
    except (AttributeError, LookupError, ShapelyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as GeoJSON ({type(error).__name__}: {error}); export the "
            "annotations again"
        ) from error
    if not annotations:
        others = sorted(set(types) & set(OTHER_OBJECTS))
        contents = f"only objects of the types {others}" if others else "no polygons"
        raise ValueError(
            f"{path.name} has {contents}; export annotations of tissue, or leave out tissue= to "
            "find it by its stain"
        )
    return annotations


def _list_features(content: Any) -> list[dict[str, Any]]:
    """Return the features of a GeoJSON object; a bare geometry becomes a feature."""
    if isinstance(content, list):
        return [feature for item in content for feature in _list_features(item)]
    kind = content["type"]
    if kind == "FeatureCollection":
        return [feature for item in content["features"] for feature in _list_features(item)]
    return [content] if kind == "Feature" else [{"geometry": content}]


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    return feature.get("properties") or {}


def _object_type(feature: dict[str, Any]) -> str:
    """Return QuPath's type of an object, or "annotation" if it has none.

    Old versions write it into the id: `PathAnnotationObject`, `PathDetectionObject`.
    """
    properties = _properties(feature)
    name = properties.get("objectType", properties.get("object_type"))
    if name is None:
        identifier = str(feature.get("id", ""))
        is_old = identifier.startswith("Path") and identifier.endswith("Object")
        name = identifier[len("Path") : -len("Object")] if is_old else "annotation"
    return str(name).lower()


def _read_feature(feature: dict[str, Any]) -> Annotation:
    from shapely.geometry import shape

    classification = _properties(feature).get("classification")
    if isinstance(classification, dict):
        name = classification.get("name") or ": ".join(classification.get("names", ()))
    else:
        name = classification
    return Annotation(shape(feature["geometry"]), str(name or NO_CLASS))


def _choose_class(
    annotations: list[Annotation], tissue_class: str | Sequence[str] | None, source: str
) -> list[Annotation]:
    """Return the annotations of the named classes; of all, if they have one class."""
    names = sorted({annotation.class_name for annotation in annotations})
    if tissue_class is None:
        if len(names) > 1:
            raise ValueError(
                f"{source} has annotations of the classes {names}; pass tissue_class=, the one or "
                "those that are tissue"
            )
        return annotations
    tissue_classes = as_list(tissue_class)
    missing = sorted(set(tissue_classes) - set(names))
    if missing or not tissue_classes:
        raise KeyError(
            f"{source} has no annotation of the classes {missing}; pass tissue_class= one or "
            f"several of {names}"
        )
    return [annotation for annotation in annotations if annotation.class_name in tissue_classes]


def _make_polygons(geometries: "list[BaseGeometry]", source: str) -> "list[BaseGeometry]":
    """Return valid polygons; points and lines, which have no area, are left out."""
    import shapely

    if not np.isfinite(shapely.get_coordinates(geometries)).all():
        raise ValueError(f"polygons of {source} have coordinates that are NaN or infinite")
    parts = shapely.get_parts(shapely.make_valid(shapely.force_2d(geometries)))
    parts = shapely.get_parts(parts)  # of collections, which hold multipolygons and lines
    polygons = [part for part in parts if part.area > 0]
    n_empty = sum(geometry.area == 0 for geometry in geometries)
    if not polygons:
        raise ValueError(
            f"{source} has no polygon with an area: it has {len(geometries)} geometries, and "
            "points and lines enclose no tissue"
        )
    if n_empty:
        logger.info(
            f"Left out {n_empty} of {len(geometries)} geometries of {source}, which have no area."
        )
    return polygons


def _check_place(polygons: "list[BaseGeometry]", shape: tuple[int, int], source: str) -> None:
    """Raise ValueError if most of the area of polygons lies outside the image."""
    import shapely

    height, width = shape
    area = shapely.union_all(polygons)
    share = shapely.intersection(area, shapely.box(0, 0, width, height)).area / area.area
    left, top, right, bottom = area.bounds
    place = (
        f"{share:.0%} of the area of the polygons of {source} lies on the image of {width} x "
        f"{height} pixels: they reach from x = {left:.0f} to {right:.0f} and from y = {top:.0f} "
        f"to {bottom:.0f}"
    )
    if share < MIN_SHARE:
        raise ValueError(f"{place}; {REMEDY}")
    if share < WARN_SHARE:
        warn(f"{place}; the rest is ignored")
