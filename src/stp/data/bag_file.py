"""Features of all slides of a cohort in one file that all processes map into memory."""

import json
import mmap
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from stp._atomic import write_atomically
from stp._log import preview
from stp._progress import track
from stp.data.feature_files import open_features
from stp.tables.cohort import BagSource

FEATURES = "features.npy"
INDEX = "bags.json"


class Processes(Protocol):
    """Processes that share the work."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def wait(self) -> None:
        """Wait for all processes."""


class BagFile:
    """A bag per patient: the features of all tiles of all slides of the patient.

    Bags have the numbers of the patients. All bags are in one file, which is mapped into memory:
    processes share its pages, and an epoch over many bags needs no more memory than the largest.

    Parameters
    ----------
    folder
        Folder of the file.
    patients
        Ids of the patients, in the order in which the cohort first names them.
    offsets
        First row of the bag of each patient (n_patients + 1,).
    slides
        Ids of the slides, in the order of the file: by patient, then by id.
    slide_offsets
        First row of each slide (n_slides + 1,).
    """

    def __init__(
        self,
        folder: Path,
        patients: tuple[str, ...],
        offsets: np.ndarray,
        slides: tuple[str, ...],
        slide_offsets: np.ndarray,
    ) -> None:
        self.folder = folder
        self.patients = patients
        self.offsets = offsets
        self.slides = slides
        self.slide_offsets = slide_offsets

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.patients)

    def __getstate__(self) -> dict:
        # The mapped array would be copied to each worker.
        return {name: value for name, value in self.__dict__.items() if name != "features"}

    @cached_property
    def features(self) -> np.ndarray:
        """Features of all tiles (n_tiles, width), mapped into memory and read-only."""
        return np.load(self.folder / FEATURES, mmap_mode="r")

    def bag(self, number: int) -> np.ndarray:
        """Return the features (n, width) of a patient, as a read-only view of the file.

        Pages of earlier bags leave the memory of this process. Their views stay valid.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"there is no bag {number}: the file has {len(self)}")
        pages = getattr(self.features, "_mmap", None)
        if pages is not None and hasattr(pages, "madvise"):  # not on Windows
            pages.madvise(mmap.MADV_DONTNEED)
        return self.features[self.offsets[number] : self.offsets[number + 1]]

    def slide(self, number: int) -> np.ndarray:
        """Return the features (n, width) of a slide, as a read-only view of the file."""
        return self.features[self.slide_offsets[number] : self.slide_offsets[number + 1]]

    @classmethod
    def write(
        cls, sources: Sequence[BagSource], folder: Path, *, processes: Processes | None = None
    ) -> Self:
        """Copy the features of slides into one file, a slide in memory at a time.

        Several processes write a part of the slides each. The type is that of the sources: float16
        stays float16. If they differ, it is the widest of them.

        Parameters
        ----------
        sources
            All slides of the cohort, in any order.
        folder
            Folder of the file, which exists and is seen by all processes.
        processes
            The processes that call this together; None if there is only this one.

        Raises
        ------
        ValueError
            There is no slide, widths differ, a patient has no tile, two slides have the same
            features, or features are NaN, infinite, or others than the source says.
        OSError
            The disk is too small.
        """
        layout = _Layout.of(sources)
        is_main = processes is None or processes.rank == 0
        if is_main:
            layout.create(folder)
        if processes is not None:
            processes.wait()
        numbers = range(len(layout.sources))
        own_numbers = numbers if processes is None else numbers[processes.rank :: processes.size]
        for number in track(own_numbers, "copy features", "slide", is_shown=is_main):
            layout.copy(number, folder)
        if processes is not None:
            processes.wait()
        if is_main:
            layout.check_copies(folder)
            layout.write_index(folder)
        if processes is not None:
            processes.wait()
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a file that `write` finished.

        Raises
        ------
        FileNotFoundError
            There is no such file in the folder.
        """
        path = Path(folder) / INDEX
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no finished bag file; BagFile.write makes one")
        index = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            Path(folder),
            tuple(index["patients"]),
            np.array(index["offsets"], np.int64),
            tuple(index["slides"]),
            np.array(index["slide_offsets"], np.int64),
        )


@dataclass(frozen=True)
class _Layout:
    """Which rows of the file belong to which slide."""

    sources: list[BagSource]  # in the order of the file
    patients: list[str]
    offsets: np.ndarray
    slide_offsets: np.ndarray
    dtype: np.dtype

    @classmethod
    def of(cls, sources: Sequence[BagSource]) -> Self:
        """Sort slides by patient, and within a patient by id."""
        if not sources:
            raise ValueError("there is no slide to read: the cohort is empty")
        widths = {source.width for source in sources}
        if len(widths) > 1:
            raise ValueError(
                f"features of slides have different widths, {preview(sorted(widths))}; "
                "use features of one model"
            )
        order = {patient: n for n, patient in enumerate(dict.fromkeys(s.patient for s in sources))}
        in_order = sorted(sources, key=lambda source: (order[source.patient], source.slide))
        n_tiles = [source.n_tiles for source in in_order]
        bag_sizes = np.bincount([order[source.patient] for source in in_order], n_tiles)
        empty = [patient for patient, size in zip(order, bag_sizes, strict=True) if not size]
        if empty:
            raise ValueError(f"these patients have no tile: {preview(empty)}; leave them out")
        dtypes = [np.dtype(source.dtype).newbyteorder("=") for source in sources]
        return cls(
            in_order,
            list(order),
            np.cumsum([0, *bag_sizes]).astype(np.int64),
            np.cumsum([0, *n_tiles]).astype(np.int64),
            np.result_type(np.float16, *dtypes),
        )

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.offsets[-1]), self.sources[0].width

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self.dtype.itemsize

    def create(self, folder: Path) -> None:
        """Create the file with room for all tiles."""
        n_needed = self.shape[0] * self.row_bytes
        n_free = shutil.disk_usage(folder).free
        if n_needed > n_free:
            raise OSError(
                f"the features of {len(self.sources)} slides take {n_needed / 1e9:.1f} GB, and "
                f"{folder} has {n_free / 1e9:.1f} GB left; choose a folder on a larger disk"
            )
        (folder / INDEX).unlink(missing_ok=True)
        np.lib.format.open_memmap(folder / FEATURES, "w+", self.dtype, self.shape)

    def copy(self, number: int, folder: Path) -> None:
        """Copy the features of a slide to their rows, without mapping these."""
        source = self.sources[number]
        values = np.ascontiguousarray(read_source(source), self.dtype)
        with (folder / FEATURES).open("r+b") as file:
            file.seek(self.position(folder, number))
            file.write(values.data)

    def check_copies(self, folder: Path) -> None:
        """Raise ValueError if two slides have the same features; only candidates are compared."""
        candidates: dict[tuple[int, bytes], list[int]] = {}
        with (folder / FEATURES).open("rb") as file:
            for number, source in enumerate(self.sources):
                if source.n_tiles:
                    file.seek(self.position(folder, number))
                    first_row = file.read(self.row_bytes)
                    candidates.setdefault((source.n_tiles, first_row), []).append(number)
        for numbers in candidates.values():
            for first, second in combinations(numbers, 2):
                if self._are_equal(first, second, folder):
                    one = self.sources[first]
                    other = self.sources[second]
                    raise ValueError(
                        f"slides {one.slide!r} and {other.slide!r} have the same features, in "
                        f"{one.path} and {other.path}; leave one out"
                    )

    def position(self, folder: Path, number: int) -> int:
        """Return where the rows of a slide begin in the file, in bytes."""
        n_bytes = self.shape[0] * self.row_bytes
        header = (folder / FEATURES).stat().st_size - n_bytes
        return header + int(self.slide_offsets[number]) * self.row_bytes

    def _are_equal(self, first: int, second: int, folder: Path) -> bool:
        features = np.load(folder / FEATURES, mmap_mode="r")
        starts = self.slide_offsets
        return np.array_equal(
            features[starts[first] : starts[first + 1]],
            features[starts[second] : starts[second + 1]],
        )

    def write_index(self, folder: Path) -> None:
        index = {
            "patients": self.patients,
            "offsets": self.offsets.tolist(),
            "slides": [source.slide for source in self.sources],
            "slide_offsets": self.slide_offsets.tolist(),
        }
        text = json.dumps(index)
        write_atomically(folder / INDEX, lambda path: path.write_text(text, encoding="utf-8"))


def read_source(source: BagSource) -> np.ndarray:
    """Read the features (n_tiles, width) of a slide.

    Raises
    ------
    ValueError
        The file has other tiles than it had when the cohort was read, or a feature is NaN or
        infinite.
    """
    file = open_features(source.path, use_rep=source.use_rep, table_key=source.table_key)
    if (file.n_tiles, file.width) != (source.n_tiles, source.width):
        raise ValueError(
            f"slide {source.slide!r} has {file.n_tiles} tiles x {file.width} features in "
            f"{source.path}, and had {source.n_tiles} x {source.width} when the cohort was read; "
            "call stp.io.read_cohort again"
        )
    return file.read()
