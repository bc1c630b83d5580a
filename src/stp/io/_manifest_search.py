"""Make the manifest of a folder: of HEST-1k, or with folders of Space Ranger in it."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from stp._atomic import write_atomically
from stp._log import logger, preview
from stp.io._manifest_kind import newest_hest_table
from stp.io._space_ranger import find_space_ranger_files, is_visium_hd

IMAGE = r"(.+[_.-])?(tissue_)?image\.(ome\.)?(tiff?|btf|jpe?g|png)"
BIN_UM = 8
HEST_FACTS = {  # columns of a manifest by their names in HEST's metadata
    "organ": "organ",
    "species": "species",
    "platform": "st_technology",
    "disease": "disease_state",
    "source": "dataset_title",
    "license": "license",
}

Line = dict[str, str]


def find_hest_samples(root: Path) -> list[Line]:
    """Return a row of a manifest for each sample in a folder of HEST-1k.

    HEST counts patients within a study, so the patient is named after both.

    Raises
    ------
    ValueError
        The folder has no samples.
    """
    files = sorted((root / "st").glob("*.h5ad"))
    if not files:
        raise ValueError(
            f"{root} has no samples of HEST: there is no {root / 'st' / '<id>.h5ad'}; give the "
            "folder with st, wsis and metadata"
        )
    by_id = _read_hest_table(root)
    lines = []
    for file in files:
        facts = _read_hest_json(root / "metadata" / f"{file.stem}.json") or by_id.get(file.stem, {})
        line = {"name": file.stem, "path": str(file.absolute())}
        line["patient"] = _hest_patient(facts)
        line |= {column: facts.get(fact, "") for column, fact in HEST_FACTS.items()}
        lines.append(line)
    return lines


def find_space_ranger_folders(root: Path) -> list[Line]:
    """Return a row of a manifest for each Space Ranger folder below a folder.

    The image of a row is the only file of a folder that is named as 10x Genomics does, such as
    `image.tif`; if there are several, the column is empty.

    Raises
    ------
    ValueError
        There are no such folders.
    """
    lines = []
    root = root.absolute()
    for folder, is_hd in _walk(root):
        sample = folder.parent if folder.name == "outs" else folder
        parts = sample.relative_to(root).parts if sample.is_relative_to(root) else ()
        line = {
            "name": "_".join(parts) or sample.name,
            "path": str(folder),
            "image": _find_image({folder, sample}),
            "bin_um": str(_choose_bins(folder)) if is_hd else "",
            "patient": "",
        }
        lines.append(line)
    if not lines:
        raise ValueError(f"{root} has no folders of Space Ranger, also not below it")
    return lines


def write_manifest(lines: list[Line], out: Path) -> Path:
    """Write rows to `manifest.csv` in a folder, and return the file.

    Raises
    ------
    ValueError
        There is one with other rows, which a user may have edited.
    """
    file = out / "manifest.csv"
    out.mkdir(parents=True, exist_ok=True)
    columns = list(lines[0])

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(lines)

    draft = out / ".manifest.csv.draft"
    write(draft)
    try:
        is_other = file.exists() and file.read_bytes() != draft.read_bytes()
    finally:
        draft.unlink()
    if is_other:
        raise ValueError(
            f"{file} exists and differs from what the folder gives now; run stp prepare {file}, or "
            "delete it"
        )
    write_atomically(file, write)
    return file


def _read_hest_table(root: Path) -> dict[str, Line]:
    """Return the facts in HEST's table of all samples by sample; none without the table."""
    file = newest_hest_table(root)
    if file is None:
        return {}
    with file.open(encoding="utf-8-sig", newline="") as stream:
        return {line.get("id", ""): line for line in csv.DictReader(stream)}


def _read_hest_json(file: Path) -> Line:
    """Return the facts in a metadata file that have a value; none without the file."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{file} is no JSON file ({error}); download it again") from error
    return {
        name: str(value).strip() for name, value in facts.items() if isinstance(value, str | int)
    }


def _hest_patient(facts: Mapping[str, str]) -> str:
    """Return a name of the patient that no other study has, or nothing if it is unknown."""
    patient = facts.get("patient", "")
    return f"{facts.get('dataset_title', '')}: {patient}" if patient else ""


def _walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the Space Ranger folders below a folder, and whether they are of Visium HD."""
    for name, folders, files in os.walk(root):
        folder = Path(name)
        is_hd = "binned_outputs" in folders or any(
            file.endswith("feature_slice.h5") for file in files
        )
        is_store = {"zarr.json", ".zgroup"} & set(files)
        if is_hd and is_visium_hd(folder):
            folders.clear()
            yield folder, True
        elif is_store or (folder != root and folder.name.startswith(".")):
            folders.clear()
        elif any("feature_bc_matrix" in entry for entry in (*folders, *files)):
            folders[:] = [entry for entry in sorted(folders) if "feature_bc_matrix" not in entry]
            try:
                find_space_ranger_files(folder)
            except (OSError, ValueError) as error:
                logger.warning(f"Left out: {error}")
            else:
                folders.clear()
                yield folder, False
        folders.sort()


def _choose_bins(folder: Path) -> int:
    """Return the size of the bins in µm: 8, or the smallest that there is."""
    places = (folder, folder / "binned_outputs")
    names = [entry.name for place in places if place.is_dir() for entry in place.iterdir()]
    sizes = [int(match[1]) for name in names if (match := re.fullmatch(r"square_(\d+)um", name))]
    return BIN_UM if BIN_UM in sizes or not sizes else min(sizes)


def _find_image(folders: set[Path]) -> str:
    """Return the full-resolution image in folders, or nothing if there is none or several."""
    images = sorted(
        file
        for folder in folders
        for file in folder.iterdir()
        if file.is_file() and re.fullmatch(IMAGE, file.name)
    )
    if len(images) > 1:
        logger.warning(
            f"{images[0].parent} has {len(images)} images ({preview(file.name for file in images)})"
            "; write one of them into the manifest"
        )
    return str(images[0]) if len(images) == 1 else ""
