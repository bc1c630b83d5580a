"""Parts of an embedding on disk, from which a call that was killed goes on."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._atomic import write_atomically, write_text_atomically
from stp._lock import lock
from stp._log import logger
from stp._version import __version__
from stp.images.regions import list_regions

if TYPE_CHECKING:
    from anndata import AnnData

PART_BATCHES = 64  # batches of a part, at most
PART_SECONDS = 60.0  # after so many seconds a part is saved, even if it has fewer batches
SETTINGS = "settings.json"


class PartFolder:
    """A folder with the parts of one embedding of one store.

    Parameters
    ----------
    folder
        The folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._n_parts = 0
        self._rows: list[np.ndarray] = []
        self._outputs: list[list[np.ndarray]] = []
        self._last_save = time.monotonic()

    def load(self) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Yield rows (m,) and the arrays of their outputs, each (m, width), in saved order."""
        from safetensors.numpy import load_file

        n_rows = 0
        while (file := self._file(self._n_parts)).exists():
            arrays = load_file(file)
            rows = arrays.pop("rows")
            self._n_parts += 1
            n_rows += len(rows)
            yield rows, [arrays[str(number)] for number in range(len(arrays))]
        if n_rows:
            logger.info(f"A former call embedded {n_rows:,} spots; this one goes on after them.")

    def add(self, rows: np.ndarray, outputs: list[np.ndarray]) -> None:
        """Keep the outputs of one batch, and save a part when it is large or old enough."""
        self._rows.append(np.asarray(rows, np.int64))
        self._outputs.append(outputs)
        is_old = time.monotonic() - self._last_save >= PART_SECONDS
        if is_old or len(self._rows) >= PART_BATCHES:
            self._save()

    def _save(self) -> None:
        from safetensors.numpy import save_file

        arrays = {"rows": np.concatenate(self._rows)}
        for number, batches in enumerate(zip(*self._outputs, strict=True)):
            arrays[str(number)] = np.concatenate(batches)
        write_atomically(self._file(self._n_parts), lambda file: save_file(arrays, file))
        self._n_parts += 1
        self._rows = []
        self._outputs = []
        self._last_save = time.monotonic()

    def _file(self, number: int) -> Path:
        return self._folder / f"part_{number:06}.safetensors"


@contextmanager
def open_parts(
    store: Path, table: "AnnData", settings: dict[str, Any]
) -> Iterator[PartFolder | None]:
    """Open the parts of an embedding of a store; they are deleted when the embedding is written.

    Parts of other settings are deleted first. After an error or a kill the parts stay.

    Parameters
    ----------
    store
        The store.
    table
        The table that is embedded, as it is in the store.
    settings
        All that decides the values of the embedding, apart from the store. JSON values.

    Yields
    ------
    The parts, or None while another process saves parts of the same store.
    """
    folder = parts_folder(store)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder, "embedding", wait=False))
        except BlockingIOError:
            logger.info(
                f"Another process embeds {store.name}, so this one saves its embedding only at the "
                "end."
            )
            yield None
            return
        content = {"store": _fingerprint(store), "spots": _spots_fingerprint(table)}
        _prepare(folder, {**settings, **content, "version": __version__})
        try:
            yield PartFolder(folder)
        except BaseException:
            if not any(folder.glob("part_*")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def remove_parts(store: Path) -> None:
    """Delete the parts of a finished store, which a process left that was killed at its end."""
    folder = parts_folder(store)
    if folder.exists():
        with suppress(BlockingIOError), lock(folder, "embedding", wait=False):
            shutil.rmtree(folder)


def parts_folder(store: Path) -> Path:
    """Return the folder in which the parts of an embedding of a store are saved."""
    return store.with_name(f".{store.name}.embedding")


def _prepare(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder, and delete the parts of other settings."""
    text = json.dumps(settings, sort_keys=True)
    file = folder / SETTINGS
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_text_atomically(file, text)


def _fingerprint(store: Path) -> str:
    """Return a digest of the attributes of a store, and of size and time of each of its files.

    Results in tables do not count, because embeddings are added to them.
    """
    import zarr

    sha256 = hashlib.sha256()
    attributes = dict(zarr.open_group(store, mode="r", use_consolidated=False).attrs)
    sha256.update(json.dumps(attributes, sort_keys=True).encode())
    for file in sorted(store.rglob("*")):
        place = file.relative_to(store).parts
        if len(place) > 1 and not _is_result(place) and file.is_file():
            status = file.stat()
            text = f"{'/'.join(place)} {status.st_size} {status.st_mtime_ns}"
            sha256.update(text.encode())
    return sha256.hexdigest()


def _is_result(place: tuple[str, ...]) -> bool:
    """Return whether a file of a store, given by its folders, may be one of a result."""
    if place[0] != "tables" or len(place) < 3 or place[2] not in ("obs", "obsm", "uns"):
        return False
    return len(place) < 4 or not place[3].startswith("spatial")


def _spots_fingerprint(table: "AnnData") -> str:
    """Return a digest of the names of the spots, and of the shapes that they annotate."""
    sha256 = hashlib.sha256("\n".join(table.obs_names).encode())
    if table.uns.get("spatialdata_attrs"):
        for region in list_regions(table):
            instances = map(str, region.instances)
            sha256.update("\n".join([region.name, *instances]).encode())
            sha256.update(np.ascontiguousarray(region.rows, "<i8").data)
    return sha256.hexdigest()
