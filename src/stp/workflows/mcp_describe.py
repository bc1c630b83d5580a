"""What a folder has for an agent: stores, cohorts and models, and what is in a store."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stp._text import readable, text_of
from stp.data.store import names_on_disk
from stp.data.store_source import STORE
from stp.io._store_measures import SOURCE
from stp.models.saved.description import CONFIG, read_description
from stp.tables import keys
from stp.workflows.mcp_paths import OutsideError, Root
from stp.workflows.slide_check_targets import ERRORS
from stp.workflows.slide_config import Study
from stp.workflows.slide_steps import PREDICTIONS, read_record
from stp.workflows.slide_tables import NEEDED
from stp.workflows.slide_template import describe_study

ZARR_FILES = ("zarr.json", ".zgroup")
MAX_TOML_BYTES = 2**20
SCALES = ("patch_um_per_px", "scale_source")
TILE_SCALES = ("tile_um", "um_per_px")


def list_folder(root: Root) -> dict[str, Any]:
    """Return the stores, files of studies and models in a folder, with relative paths.

    Hidden folders and what lies outside are left out, and links to folders are not followed.
    """
    stores: list[dict[str, Any]] = []
    cohorts: list[str] = []
    models: list[dict[str, str]] = []
    for folder, folders, names in os.walk(root.folder):
        here = Path(folder)
        name = readable(here.relative_to(root.folder))
        if any(file in names for file in ZARR_FILES):
            folders.clear()
            if here != root.folder:
                stores.append({"path": name, **_count(root, here)})
            continue
        folders[:] = sorted(item for item in folders if not item.startswith("."))
        if CONFIG in names and (kind := _class_of_model(root, here / CONFIG)):
            models.append({"path": name, "class": kind})
        cohorts += [
            readable((here / item).relative_to(root.folder))
            for item in sorted(names)
            if item.endswith(".toml") and _is_study(root, here / item)
        ]
    return {"folder": str(root.folder), "stores": stores, "cohorts": cohorts, "models": models}


def describe_store(path: Path, root: Path) -> dict[str, Any]:
    """Return the tables, images and scale of a store, and the results in its tables."""
    import zarr

    group = zarr.open_group(path, mode="r", use_consolidated=False)
    tables = dict(group["tables"].groups()) if "tables" in group else {}
    if not tables:
        raise ValueError(f"{path} is a folder without tables, so it is no store")
    attributes = group.attrs.asdict()
    return {
        "path": readable(path.relative_to(root)),
        "name": attributes.get(STORE, {}).get("name", path.stem),
        "images": sorted(group["images"].keys()) if "images" in group else [],
        "scale": _describe_scale(attributes),
        "tables": {name: _describe_table(table) for name, table in sorted(tables.items())},
    }


def describe_cohort(study: Study) -> dict[str, Any]:
    """Return the settings of a study as TOML, and the names of its predictions."""
    files = sorted((study.output / PREDICTIONS).glob("*.h5ad"))
    return {
        "settings": describe_study(study),
        "predictions": [file.stem for file in files if read_record(file)],
    }


def _count(root: Root, store: Path) -> dict[str, Any]:
    """Return the number of spots and genes of each table of a store, or why it cannot be read."""
    import zarr

    try:
        root.check_tree(store, "the store")
        group = zarr.open_group(store, mode="r", use_consolidated=False)
        tables = dict(group["tables"].groups()) if "tables" in group else {}
        return {"tables": {name: _shape(table) for name, table in sorted(tables.items())}}
    except ERRORS as error:
        return {"error": text_of(error)}


def _shape(table: Any) -> dict[str, int]:
    return {
        "n_spots": len(names_on_disk(table["obs"])),
        "n_genes": len(names_on_disk(table["var"])),
    }


def _describe_table(table: Any) -> dict[str, Any]:
    """Return the size of a table, its columns, and its arrays in `obsm` with their models."""
    columns = [str(name) for name in table["obs"].attrs.get("column-order", ())]
    obsm = dict(_describe_arrays(table)) if "obsm" in table else {}
    return {**_shape(table), "obs": columns, "obsm": obsm}


def _describe_arrays(table: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    import anndata

    for name in sorted(table["obsm"].keys()):
        array = table["obsm"][name]
        is_frame = "column-order" in array.attrs
        shape = array.attrs.get("shape") or getattr(array, "shape", ())
        entry: dict[str, Any] = {
            "width": len(array.attrs["column-order"]) if is_frame else int(shape[1])
        }
        key = f"uns/{name.removesuffix(keys.aligned(''))}/model/name"
        if key in table:
            entry["model"] = str(anndata.io.read_elem(table[key]))
        yield name, entry


def _describe_scale(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return µm per pixel as stp recorded it; tools that need pixels resolve it otherwise."""
    record = attributes.get(STORE, {})
    tiles = attributes.get(keys.SLIDE, {})
    scale = {name: record[name] for name in SCALES if record.get(name) is not None}
    scale |= {name: tiles[name] for name in TILE_SCALES if tiles.get(name) is not None}
    um_per_px = attributes.get(SOURCE, {}).get("um_per_px")
    return scale if um_per_px is None else {"um_per_px": um_per_px, **scale}


def _class_of_model(root: Root, file: Path) -> str:
    """Return the class of the model that a config.json describes, or nothing."""
    try:
        root.inside(file.parent, file.name, "the model")
        return str(read_description(file)["class"])
    except (ValueError, OSError):
        return ""


def _is_study(root: Root, file: Path) -> bool:
    """Return whether a file is that of a study."""
    try:
        path = root.inside(file.parent, file.name, "the file of the study")
        if path.stat().st_size > MAX_TOML_BYTES:
            return False
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OutsideError, OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False
    return all(name in values for name in NEEDED)
