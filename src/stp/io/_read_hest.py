"""Read a sample of HEST-1k: counts, slide and metadata."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp._log import preview, warn
from stp.images.files.opening import open_file
from stp.images.lattice import um_per_unit_from_lattice
from stp.images.levels import open_array
from stp.images.scale import record_scale, record_source, resolve_scale
from stp.io._from_anndata import from_anndata
from stp.tables.coordinates import read_coordinates

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

DATASET = "MahmoodLab/hest"
PIXEL_SIZE = "pixel_size_um_estimated"
# HEST's `pixel_size_um_embedded` describes the file that the slide was made from, so it is recorded
# and not compared.
TECHNOLOGY = "st_technology"
OBS_COLUMNS = {
    "organ": "organ",
    "species": "species",
    "technology": TECHNOLOGY,
    "patient": "patient",
}
VISIUM = "Visium"
SPATIAL_TRANSCRIPTOMICS = "Spatial Transcriptomics"
MAX_SIZE_DIFFERENCE = 0.01  # of the slide from the size in the metadata, as a share


def read_hest(
    root: str | Path,
    sample: str,
    *,
    metadata: str | Path | None = None,
    um_per_px: float | None = None,
) -> "SpatialData":
    """Read a sample of HEST-1k with its slide, its scale in µm, and what HEST knows about it.

    Parameters
    ----------
    root
        Folder with the HEST folders `st`, `wsis` and `metadata`.
    sample
        Id of the sample, such as `"TENX95"`.
    metadata
        HEST's table of all samples, `HEST_v1_*.csv`. Its row describes the sample instead of
        `metadata/<sample>.json`, which may then be missing; if both give a scale, they must agree.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.

    Returns
    -------
    SpatialData with the coordinate systems "global" (pixels) and "um". The columns `organ`,
    `species`, `technology` and `patient` of `obs` are those of the sample, "" if HEST does not know
    them. `attrs["hest"]` holds all that HEST knows about it. HEST counts patients within a study,
    so `patient` is unique only together with `attrs["hest"]["dataset_title"]`.

    Raises
    ------
    FileNotFoundError
        A file of the sample is missing. The message names it and the call that downloads it.
    ValueError
        The metadata are those of another sample, or the physical scale is unknown or contradicted.

    Notes
    -----
    The scale is `pixel_size_um_estimated` of the metadata. It is compared with the resolution tag
    of the slide, with the lattice of Visium, and with that of Spatial Transcriptomics if HEST knows
    the distance of its spots. Xenium and Visium HD come as counts in squares, whose lattice tells
    no scale.

    Examples
    --------
    >>> sdata = stp.io.read_hest("hest", "TENX95")
    >>> sdata.attrs["hest"]["organ"], list(sdata.images)
    ('Breast', ['TENX95_full_image'])
    """
    import anndata

    root = Path(root)
    table_file = root / "st" / f"{sample}.h5ad"
    slide_file = root / "wsis" / f"{sample}.tif"
    json_file = root / "metadata" / f"{sample}.json"
    required = [table_file, slide_file]
    required.append(json_file if metadata is None else Path(metadata))
    _require_files(root, sample, required)
    from_json = _read_json(json_file, sample) if json_file.is_file() else {}
    from_table = {} if metadata is None else _read_row(Path(metadata), sample)
    facts = from_json | from_table
    levels, tagged_um = open_file(slide_file)
    _compare_size(open_array(levels[0]).shape, facts, slide_file)
    adata = anndata.read_h5ad(table_file)
    sources = {"um_per_px": um_per_px, f"{PIXEL_SIZE} of {json_file.name}": _pixel_size(from_json)}
    if metadata is not None:
        sources[f"{PIXEL_SIZE} of {Path(metadata).name}"] = _pixel_size(from_table)
    if um_per_px is None:  # else `from_anndata` compares these with it
        sources["the file's metadata"] = tagged_um
        sources["the spot lattice"] = _lattice_scale(adata, facts)
    scale = resolve_scale(sources)
    for column, fact in OBS_COLUMNS.items():
        adata.obs[column] = str(facts.get(fact, ""))
        adata.obs[column] = adata.obs[column].astype("category")
    sdata = from_anndata(
        adata,
        slide_file,
        um_per_px=scale.um_per_px,
        spot_diameter_um=_spot_diameter(facts),
        name=sample,
    )
    record_source(sdata, f"{sample}_full_image", scale)
    if um_per_px is None:
        record_scale(sdata, f"{sample}_full_image", scale)
    sdata.attrs["hest"] = {"id": sample} | facts
    return sdata


def _require_files(root: Path, sample: str, required: list[Path]) -> None:
    """Raise FileNotFoundError if files are missing; the message says how to download them."""
    missing = [path for path in required if not path.is_file()]
    if not missing:
        return
    others = sorted(path.stem for path in (root / "st").glob("*.h5ad") if path.stem != sample)
    note = f"; {root / 'st'} has {preview(others)}" if others else ""
    patterns = [f"st/{sample}.h5ad", f"wsis/{sample}.tif", f"metadata/{sample}.json"]
    raise FileNotFoundError(
        f"HEST sample {sample!r} is incomplete, these files are missing: "
        f"{', '.join(str(path) for path in missing)}{note}. Accept the terms at "
        f"huggingface.co/datasets/{DATASET}, log in, and download the sample with "
        f"huggingface_hub.snapshot_download({DATASET!r}, repo_type='dataset', "
        f"local_dir={str(root)!r}, allow_patterns={patterns})"
    )


def _read_json(path: Path, sample: str) -> dict[str, Any]:
    """Return the facts in a metadata file that have a value."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}); download it again") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{path} holds a {type(facts).__name__}, not the facts of one sample")
    facts = _with_value(facts)
    if facts.get("id", sample) != sample:
        raise ValueError(f"{path} describes the sample {facts['id']!r}, not {sample!r}")
    return facts


def _read_row(path: Path, sample: str) -> dict[str, Any]:
    """Return the facts in the row of a sample in HEST's table that have a value."""
    import pandas as pd

    table = pd.read_csv(path, encoding="utf-8", dtype={"id": str})
    if "id" not in table:
        raise ValueError(f"{path} is not HEST's table: it has no column 'id' but {list(table)}")
    rows = table[table["id"] == sample]
    if len(rows) != 1:
        raise ValueError(
            f"{path} has {len(rows)} rows with the id {sample!r}, 1 is needed; its ids are "
            f"{preview(table['id'])}"
        )
    return _with_value(rows.iloc[0].to_dict())


def _with_value(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts without those that are missing, as values that JSON can store."""
    import pandas as pd

    with_value = {}
    for name, value in facts.items():
        plain = value.item() if hasattr(value, "item") else value
        plain = plain.strip() if isinstance(plain, str) else plain
        if isinstance(plain, list | dict) or not (pd.isna(plain) or plain == ""):
            with_value[str(name)] = plain
    return with_value


def _number(facts: dict[str, Any], name: str) -> float | None:
    """Return a fact as a number, or None if it is missing."""
    value = facts.get(name)
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} in HEST's metadata is {value!r}, which is no number") from error


def _pixel_size(facts: dict[str, Any]) -> float | None:
    return _number(facts, PIXEL_SIZE)


def _lattice_scale(adata: "AnnData", facts: dict[str, Any]) -> float | None:
    """Return µm per pixel from the lattice of a technology whose pitch is known, else None."""
    technology = facts.get(TECHNOLOGY)
    if technology == VISIUM:
        return um_per_unit_from_lattice(adata.obs, read_coordinates(adata))
    pitch_um = _number(facts, "inter_spot_dist")
    if technology == SPATIAL_TRANSCRIPTOMICS and pitch_um:
        return um_per_unit_from_lattice(adata.obs, read_coordinates(adata), pitch_um)
    return None


def _spot_diameter(facts: dict[str, Any]) -> float | None:
    """Return the diameter of a spot in µm; for squares of Visium HD, HEST gives that of a bin."""
    if facts.get(TECHNOLOGY) in (VISIUM, SPATIAL_TRANSCRIPTOMICS):
        return _number(facts, "spot_diameter")
    return None


def _compare_size(shape: tuple[int, int], facts: dict[str, Any], slide_file: Path) -> None:
    """Warn if the slide does not have the size that HEST's metadata give."""
    height = _number(facts, "fullres_px_height")
    width = _number(facts, "fullres_px_width")
    if not height or not width:
        return
    is_same = all(
        abs(n_pixels - expected) <= MAX_SIZE_DIFFERENCE * expected
        for n_pixels, expected in zip(shape, (height, width), strict=True)
    )
    if not is_same:
        warn(
            f"{slide_file} has {shape[1]} x {shape[0]} pixels, HEST's metadata give "
            f"{width:.0f} x {height:.0f}: is it a smaller copy, or another slide?"
        )
