import numpy as np
import pytest

from stp import io
from stp.tables.references import name_slides, open_references


def only(names: np.ndarray) -> str:
    (name,) = set(names)
    return name


@pytest.fixture
def slide(slide_of):
    def make(name):
        adata, image = slide_of(0)
        return io.from_anndata(adata, image, um_per_px=1.0, name=name)

    return make


def names_of(items):
    return [only(names) for names in name_slides(open_references(items, "table")).values()]


def test_a_slide_has_the_name_of_its_region_or_of_its_file(slide, tmp_path):
    unnamed = slide(None)
    unnamed.write(tmp_path / "B.zarr")
    io.write_store(slide("mine"), tmp_path / "C.zarr", patch_um_per_px=4.0)
    io.write_store(unnamed, tmp_path / "D.zarr", patch_um_per_px=4.0)
    items = [slide("A"), tmp_path / "B.zarr", tmp_path / "C.zarr", tmp_path / "D.zarr"]
    assert names_of(items) == ["A", "B", "mine", "D"]


def test_slides_without_a_name_are_numbered(slide, adata):
    assert names_of([slide(None), adata]) == ["reference 0", "reference 1"]


def test_slides_of_one_name_are_told_apart(slide):
    names = names_of([slide("tumor"), slide("tumor"), slide("other")])
    assert names == ["tumor (reference 0)", "tumor (reference 1)", "other"]
