import dataclasses
import threading
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
from tests.features import CORNERS, SORTED, katherlab_25, write_katherlab, write_lazyslide

from stp.data.bag_file import BagFile
from stp.tables.cohort import BagSource


def write_source(
    folder: Path, patient: str, slide: str, features: np.ndarray, **changes
) -> BagSource:
    path = write_katherlab(folder / f"{slide}.h5", features, **katherlab_25())
    source = BagSource(
        patient, slide, path, "X_stp_images", "table", *features.shape, features.dtype.name
    )
    return dataclasses.replace(source, **changes)


@pytest.fixture
def slides() -> dict[tuple[str, str], np.ndarray]:
    """Return features by patient and slide; rows of the patients are scattered."""
    rng = np.random.default_rng(0)
    names = [("P2", "d"), ("P1", "b"), ("P3", "e"), ("P1", "a"), ("P2", "c"), ("P1", "f")]
    sizes = [3, 1, 4, 2, 5, 6]
    return {
        name: rng.normal(size=(size, 8)).astype(np.float16)
        for name, size in zip(names, sizes, strict=True)
    }


def test_a_bag_has_all_tiles_of_a_patient_whose_slides_are_scattered(tmp_path, slides):
    sources = [write_source(tmp_path, *names, values) for names, values in slides.items()]
    file = BagFile.write(sources, tmp_path)
    assert file.patients == ("P2", "P1", "P3")
    assert file.slides == ("c", "d", "a", "b", "f", "e")
    assert file.features.dtype == np.float16
    for number, patient in enumerate(file.patients):
        parts = [slides[name] for name in sorted(slides) if name[0] == patient]
        np.testing.assert_array_equal(file.bag(number), np.concatenate(parts))
    by_slide = {slide: values for (_, slide), values in slides.items()}
    for number, slide in enumerate(file.slides):
        np.testing.assert_array_equal(file.slide(number), by_slide[slide])


def test_the_order_of_the_slide_table_does_not_change_a_bag(tmp_path, slides):
    sources = [write_source(tmp_path, *names, values) for names, values in slides.items()]
    bags = []
    for number, order in enumerate((sources, sources[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = BagFile.write(order, folder)
        bags.append({patient: file.bag(n).copy() for n, patient in enumerate(file.patients)})
    assert bags[0].keys() == bags[1].keys()
    for patient, bag in bags[0].items():
        np.testing.assert_array_equal(bags[1][patient], bag)


def test_stores_and_files_are_read_with_their_rows_sorted(tmp_path):
    rng = np.random.default_rng(1)
    in_store, in_file = rng.normal(size=(2, len(CORNERS), 8)).astype(np.float32)
    store = write_lazyslide(tmp_path / "a.zarr", in_store, CORNERS * 512)
    path = write_katherlab(tmp_path / "b.h5", in_file, CORNERS * 256.0, **katherlab_25())
    sources = [
        BagSource("P", "a", store, "X", "uni_tiles", 6, 8, "float32"),
        BagSource("P", "b", path, "X", "uni_tiles", 6, 8, "float32"),
    ]
    bag = BagFile.write(sources, tmp_path).bag(0)
    np.testing.assert_array_equal(bag, np.concatenate([in_store[SORTED], in_file[SORTED]]))


def test_the_widest_type_of_the_slides_is_that_of_the_file(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 3, 8))
    half, single = values[0].astype(np.float16), values[1].astype(np.float32)
    sources = [write_source(tmp_path, "P", "a", half), write_source(tmp_path, "P", "b", single)]
    bag = BagFile.write(sources, tmp_path).bag(0)
    assert bag.dtype == np.float32
    np.testing.assert_array_equal(bag, np.concatenate([half, single]))


@dataclasses.dataclass
class Thread:
    """One of several processes, which here is a thread."""

    rank: int
    size: int
    barrier: threading.Barrier

    def wait(self) -> None:
        self.barrier.wait(timeout=30)


def test_several_processes_write_what_one_writes(tmp_path, slides):
    sources = [write_source(tmp_path, *names, values) for names, values in slides.items()]
    alone = tmp_path / "alone"
    together = tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    BagFile.write(sources, alone)
    barrier = threading.Barrier(3)
    threads = [
        threading.Thread(
            target=BagFile.write, args=(sources, together), kwargs={"processes": process}
        )
        for process in (Thread(rank, 3, barrier) for rank in range(3))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for path in alone.iterdir():
        assert (together / path.name).read_bytes() == path.read_bytes()


def test_an_opened_file_and_a_pickled_one_have_the_same_bags(tmp_path, slides):
    sources = [write_source(tmp_path, *names, values) for names, values in slides.items()]
    file = BagFile.write(sources, tmp_path)
    bag = file.bag(1)
    pickled = ForkingPickler.dumps(file)
    assert len(pickled) < 2000
    for other in (BagFile.open(tmp_path), ForkingPickler.loads(pickled)):
        assert other.patients == file.patients
        np.testing.assert_array_equal(other.bag(1), bag)


def test_a_bag_is_not_writable_and_stays_valid_when_others_are_read(tmp_path, slides):
    sources = [write_source(tmp_path, *names, values) for names, values in slides.items()]
    file = BagFile.write(sources, tmp_path)
    first = file.bag(0)
    copy = first.copy()
    file.bag(1).sum()
    np.testing.assert_array_equal(first, copy)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    with pytest.raises(IndexError, match="no bag 3: the file has 3"):
        file.bag(3)


def mapped_megabytes() -> float:
    """Return how much of this process's memory are pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_number_of_bags(tmp_path):
    rng = np.random.default_rng(0)
    sources = [
        write_source(tmp_path, f"P{n}", f"s{n}", rng.random((500, 1024), np.float32))
        for n in range(30)
    ]
    file = BagFile.write(sources, tmp_path)
    file.bag(0)
    before = mapped_megabytes()
    peaks = []
    for number in range(len(file)):
        file.bag(number).sum()
        peaks.append(mapped_megabytes() - before)
    assert peaks[0] > 1  # the 2 MB of a bag, of 59 MB in all
    assert max(peaks) < peaks[0] + 1


def test_features_that_changed_since_are_refused(tmp_path):
    source = write_source(tmp_path, "P", "a", np.ones((3, 8), np.float32), n_tiles=4)
    with pytest.raises(ValueError, match=r"'a' has 3 tiles x 8 .* and had 4 x 8 .*read_cohort"):
        BagFile.write([source], tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished bag file"):
        BagFile.open(tmp_path)


def test_features_that_are_not_finite_are_refused(tmp_path):
    values = np.ones((3, 8), np.float16)
    values[1, 2] = np.inf
    source = write_source(tmp_path, "P", "a", values)
    with pytest.raises(ValueError, match=r"a\.h5 has features that are NaN or infinite, in row 1"):
        BagFile.write([source], tmp_path)


def test_one_slide_under_two_names_is_refused(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    other = values.copy()
    other[2, 0] += 1  # begins alike
    sources = [
        write_source(tmp_path, "P1", "a", values),
        write_source(tmp_path, "P2", "b", other),
        write_source(tmp_path, "P3", "c", values),
    ]
    with pytest.raises(ValueError, match=r"slides 'a' and 'c' have the same features"):
        BagFile.write(sources, tmp_path)
    assert len(BagFile.write(sources[:2], tmp_path)) == 2


def test_no_slide_and_no_tile_and_several_widths_are_refused(tmp_path):
    source = write_source(tmp_path, "P1", "a", np.ones((3, 8), np.float32))
    empty = write_source(tmp_path, "P2", "b", np.ones((0, 8), np.float32))
    wide = write_source(tmp_path, "P3", "c", np.ones((3, 9), np.float32))
    with pytest.raises(ValueError, match="the cohort is empty"):
        BagFile.write([], tmp_path)
    with pytest.raises(ValueError, match="have no tile: P2"):
        BagFile.write([source, empty], tmp_path)
    with pytest.raises(ValueError, match="different widths, 8, 9"):
        BagFile.write([source, wide], tmp_path)
    # A slide without tiles of a patient that has others adds nothing.
    file = BagFile.write([source, dataclasses.replace(empty, patient="P1")], tmp_path)
    assert file.slide_offsets.tolist() == [0, 3, 3]
