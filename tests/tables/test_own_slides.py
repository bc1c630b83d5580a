"""Predictions of a slide by its own measured spots are warned of."""

import warnings

import pytest

from stp import tl

OWN = "holds spots of the slide that is predicted, such as"
VERBS = [tl.predict_expression, tl.regress_expression]


@pytest.fixture
def table(embedded):
    return embedded.tables["table"].copy()


@pytest.mark.parametrize("verb", VERBS)
def test_a_reference_with_the_predicted_spots_is_warned_of(table, verb):
    with pytest.warns(UserWarning, match=OWN):
        verb(table, table, genes=["LUM"])
    half = table[::2].copy()
    with pytest.warns(UserWarning, match=f"{OWN} '{half.obs_names[0]}'"):
        verb(half, table, genes=["LUM"])


@pytest.mark.parametrize("verb", VERBS)
def test_another_slide_whose_spots_have_the_same_names_is_no_own_slide(table, verb):
    other = table[::-1].copy()
    other.obs_names = table.obs_names
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{OWN}")
        verb(table, other, genes=["LUM"])
