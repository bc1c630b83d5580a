import warnings

import numpy as np
import pytest

from stp.images.coordinates import um_system
from stp.images.scale import Scale, resolve_scale, scale_factors, um_per_unit_from_places


def test_the_coordinate_system_in_um():
    assert um_system(["global", "um"]) == um_system(["um-a", "um"]) == "um"
    assert um_system(["global-a", "um-a"]) == "um-a"
    assert um_system(["um-a", "um-b"]) is um_system(["global", "umbra"]) is um_system([]) is None


def test_the_first_known_source_is_used():
    assert resolve_scale({"a": None, "b": 0.5, "c": 0.51}) == Scale(0.5, "b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no warning while anything better is known
        assert resolve_scale({"a": 0.5}, spot_diameter=10.0) == Scale(0.5, "a")


@pytest.mark.parametrize(
    ("other", "agrees"), [(0.524, True), (0.477, True), (0.526, False), (0.475, False)]
)
def test_sources_may_differ_by_five_percent(other, agrees):
    sources = {"the file": 0.5, "scalefactors": None, "the spot lattice": other}
    if agrees:
        assert resolve_scale(sources) == Scale(0.5, "the file")
        return
    with pytest.raises(ValueError, match="contradict") as error:
        resolve_scale(sources)
    message = str(error.value)
    assert f"the file gives 0.5 µm per pixel, the spot lattice gives {other}" in message
    assert "pass the right one as um_per_px=" in message


@pytest.mark.parametrize(
    ("other", "agrees"), [(0.524, True), (0.477, True), (0.526, False), (0.475, False)]
)
def test_the_caller_wins_with_a_warning_that_names_both(other, agrees):
    sources = {"the file": None, "the spot lattice": other, "um_per_px": 0.5}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scale = resolve_scale(sources)
    others = {} if agrees else {"the spot lattice": other}
    assert scale == Scale(0.5, "um_per_px", others)
    assert len(caught) == len(others)
    if not agrees:
        text = f"um_per_px=0.5 is used although the spot lattice gives {other} µm per pixel"
        assert str(caught[0].message).startswith(text)


def test_one_warning_names_all_sources_that_the_caller_overrules():
    sources = {"um_per_px": 0.5, "the file": 0.25, "a": 0.51, "the spot lattice": 1.0}
    with pytest.warns(UserWarning, match="the file gives 0.25 and the spot lattice gives 1 ") as w:
        scale = resolve_scale(sources)
    assert len(w) == 1
    assert scale.others == {"the file": 0.25, "the spot lattice": 1.0}


@pytest.mark.parametrize("value", [0, -0.5, np.nan, np.inf])
def test_a_scale_must_be_positive(value):
    with pytest.raises(ValueError, match="um_per_px gives .* no scale"):
        resolve_scale({"um_per_px": value, "the spot lattice": 0.5})
    with pytest.raises(ValueError, match="the file gives .* no scale"):
        resolve_scale({"the file": value, "the spot lattice": 0.5})
    with pytest.warns(UserWarning, match="um_per_px=0.5 is used although the file gives"):
        assert resolve_scale({"um_per_px": 0.5, "the file": value}).um_per_px == 0.5


def test_the_spot_diameter_comes_last_with_a_warning():
    with pytest.warns(
        UserWarning, match=r"taken from the spot diameter \(65 µm\): pass um_per_px="
    ):
        assert resolve_scale({"a": None}, spot_diameter=130.0) == Scale(0.5, "spot diameter")


@pytest.mark.parametrize("spot_diameter", [None, 0.0])
def test_nothing_known_is_an_error_with_the_remedy(spot_diameter):
    with pytest.raises(
        ValueError, match=r"no physical scale: pass um_per_px= .* array_row and array_col"
    ):
        resolve_scale({"a": None}, spot_diameter)


def test_without_a_scale_a_square_grid_needs_its_pitch():
    with pytest.raises(ValueError, match=r"no physical scale: .* square grid.* spot_pitch_um= "):
        resolve_scale({"a": None}, is_square_grid=True)


def test_places_known_in_um():
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, 5000, (50, 2))
    um = centers[:, ::-1] * [0.2125, -0.2125] + [7, 9]  # turned, mirrored and moved
    assert um_per_unit_from_places(um, centers) == pytest.approx(0.2125)
    um[3] = np.nan
    assert um_per_unit_from_places(um, centers) == pytest.approx(0.2125)
    assert um_per_unit_from_places(rng.permutation(um), centers) is None
    assert um_per_unit_from_places(um[:2], centers[:2]) is None


def test_scale_factors_are_those_of_the_region_or_of_the_only_library():
    libraries = {
        name: {"scalefactors": {"microns_per_pixel": value}}
        for name, value in (("a", 0.2), ("b", 0.3))
    }
    assert scale_factors({"spatial": libraries}, "b") == {"microns_per_pixel": 0.3}
    assert (
        scale_factors({"spatial": libraries})
        == scale_factors({})
        == scale_factors({"spatial": np.ones(3)})
        == {}
    )
    assert scale_factors({"spatial": {"a": libraries["a"]}}, "c") == {"microns_per_pixel": 0.2}


def test_flags_of_cellxgene_are_no_libraries():
    library = {"scalefactors": {"microns_per_pixel": 0.2}}
    entries = {"spatial": {"is_single": True, "a": library}}
    assert scale_factors(entries) == {"microns_per_pixel": 0.2}
    assert scale_factors(entries, "a") == {"microns_per_pixel": 0.2}
    assert scale_factors({"spatial": {"is_single": True}}) == {}
    assert scale_factors({"spatial": {"is_single": True}}, "is_single") == {}
