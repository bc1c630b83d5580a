"""Cells of CSV files are never run as formulas."""

import io

import pandas as pd
import pytest

from stp._csv_cells import quote_formula, quote_formulas


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1"])
def test_a_formula_gets_a_quote(text):
    assert quote_formula(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1.5", "+3", "1e-5", "-.5", "C2", "", "a=b", -1.5, None, True])
def test_numbers_and_other_values_stay(value):
    assert quote_formula(value) is value


def test_a_table_has_no_formulas_in_cells_and_columns():
    table = pd.DataFrame({"name": ["=A1", "C2"], "=x": [-1.5, 2.0]})
    text = quote_formulas(table).to_csv(index=False)
    assert text == "name,'=x\n'=A1,-1.5\nC2,2.0\n"
    read = pd.read_csv(io.StringIO(text))
    assert read["'=x"].tolist() == [-1.5, 2.0]
