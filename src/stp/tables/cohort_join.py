"""Join the slide table and the clinical table of a cohort, and list all that does not match."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from stp._log import count, preview, warn
from stp.tables import keys
from stp.tables.cohort import class_names

if TYPE_CHECKING:
    import pandas as pd

N_HINTS = 3  # ids of a kind for which a similar one is looked for
MIN_PREFIX = 4  # characters that an id and a longer one share to be called similar


class LeftOut(NamedTuple):
    """A row of a table that is no part of the cohort."""

    table: str  # "slides" or "clinical"
    row: int  # counted from 1, without the header
    patient: str  # "" if unknown
    slide: str  # "" if unknown
    reason: str
    detail: str

    @property
    def label(self) -> str:
        """The name of the row in a message."""
        return self.slide or self.patient or f"row {self.row}"


class Mismatches:
    """All rows that do not match, and all contradictions, of the tables and files of a cohort."""

    def __init__(self) -> None:
        self.left_out: list[LeftOut] = []
        self.rows_of_slides: dict[str, tuple[int, str]] = {}
        self.contradictions: dict[str, list[str]] = defaultdict(list)

    def leave_out_slide(self, slide: str, reason: str, detail: str = "") -> None:
        """Note that a slide cannot be in the cohort."""
        row, patient = self.rows_of_slides[slide]
        self.left_out.append(LeftOut("slides", row, patient, slide, reason, detail))

    def contradict(self, title: str, detail: str = "") -> None:
        """Note a fault that cannot be solved by leaving rows out."""
        self.contradictions[title].append(detail)

    @property
    def slides_left_out(self) -> set[str]:
        """Ids of the slides that cannot be in the cohort; a repeated row does not count."""
        return {
            item.slide
            for item in self.left_out
            if item.table == "slides" and item.reason != REPEATED
        }

    def report(self, missing: str) -> None:
        """Raise one error that lists all mismatches, or warn of the rows that are left out.

        Parameters
        ----------
        missing
            "drop" warns of rows that are left out, and "raise" does not leave any out.

        Raises
        ------
        ValueError
            Something contradicts, or a row would be left out.
        """
        contradictions = [
            title + (f": {preview(details, 2)}" if any(details) else "")
            for title, details in self.contradictions.items()
        ]
        rows = self._describe_rows()
        faults = contradictions if missing == "drop" else [*contradictions, *rows]
        if faults:
            remedy = "correct the tables or files"
            if rows and not contradictions:
                remedy += ", or pass missing='drop' to leave these rows out"
            listed = "\n".join(f"- {fault}" for fault in faults)
            raise ValueError(f"the cohort does not match:\n{listed}\n{remedy}")
        if rows:
            warn(
                f"{count(len(self.left_out), 'row')} left out of the cohort: {'; '.join(rows)}. "
                f"uns[{keys.COHORT!r}]['left_out'] lists all of them"
            )

    def table(self) -> "pd.DataFrame":
        """Return the rows that are left out."""
        import pandas as pd

        frame = pd.DataFrame(self.left_out, columns=list(LeftOut._fields))
        frame.index = frame.index.astype(str)
        texts = [name for name in frame if name != "row"]
        return frame.astype(dict.fromkeys(texts, object) | {"row": int})

    def _describe_rows(self) -> list[str]:
        """Return a line for each reason."""
        groups: dict[tuple[str, str], list[LeftOut]] = defaultdict(list)
        for item in self.left_out:
            groups[item.table, item.reason].append(item)
        lines = []
        for (table, reason), items in groups.items():
            details = [item.detail for item in items if item.detail]
            detail = f" ({details[0]})" if details else ""
            rows = count(len(items), "row")
            names = preview(item.label for item in items)
            lines.append(f"{reason}, in {rows} of the {table} table: {names}{detail}")
        return lines


REPEATED = "repeated"


def name_columns(
    table: "pd.DataFrame", names: Mapping[str, str], reserved: Iterable[str], argument: str
) -> "pd.DataFrame":
    """Return a table with our names of its key columns, and rows counted from 1 as index.

    Parameters
    ----------
    table
        Table of slides or patients.
    names
        Our name of each key column, and the name that the column has now. Two may be one column.
    reserved
        Names that no other column may have.
    argument
        Name of the argument in an error.

    Raises
    ------
    KeyError
        A key column is missing.
    ValueError
        Another column has a name that is ours, or one with a slash.
    """
    import pandas as pd

    for ours, name in names.items():
        if name not in table:
            raise KeyError(
                f"the table of {argument}= has no column {name!r}; "
                f"pass {KEY_ARGUMENTS[ours]}= one of {list(table)}"
            )
    others = [name for name in table if name not in names.values()]
    clashes = [name for name in others if name in reserved]
    if clashes:
        raise ValueError(
            f"the table of {argument}= has columns {clashes} besides the keys "
            f"{list(names.values())}, and the cohort has columns of these names; rename them"
        )
    with_slash = [name for name in others if "/" in name]
    if with_slash:
        raise ValueError(
            f"columns of {argument}= have a slash in their name, which AnnData cannot store: "
            f"{preview(with_slash)}; rename them"
        )
    columns = {ours: table[name] for ours, name in names.items()}
    named = pd.DataFrame(columns | {name: table[name] for name in others})
    return named.set_axis(range(1, len(table) + 1))


KEY_ARGUMENTS = {
    keys.PATIENT: "patient_key",
    keys.SLIDE_ID: "slide_key",
    keys.PATH: "path_key",
}


def select_rows(
    table: "pd.DataFrame", key: str, kind: str, mismatches: Mismatches
) -> "pd.DataFrame":
    """Return the rows of a table that have all ids, one for each value of the key.

    Parameters
    ----------
    table
        Table with our names of the key columns.
    key
        Column that names each row: slides or patients.
    kind
        "slides" or "clinical".
    mismatches
        Rows without an id or that repeat another are added, and rows that contradict each other.
    """
    import pandas as pd

    ids = list(dict.fromkeys((keys.PATIENT, key)))
    for name in ids:
        for row in table.index[table[name].isna()]:
            mismatches.left_out.append(_left_out(table, kind, row, f"no {name} id"))
    table = table[table[ids].notna().all(axis=1)]
    comparable = pd.DataFrame({name: class_names(table[name]) for name in table})
    is_repeated = comparable.duplicated()
    for row in table.index[is_repeated]:
        mismatches.left_out.append(_left_out(table, kind, row, REPEATED))
    table = table[~is_repeated]
    contradicting = table[key][table[key].duplicated(keep=False)]
    for name, rows in contradicting.groupby(contradicting, sort=False):
        differing = comparable.loc[rows.index].nunique(dropna=False)
        columns = preview(differing.index[differing > 1])
        mismatches.contradict(
            f"rows of the {kind} table contradict each other",
            f"{name} in the rows {preview(rows.index)}, in {columns}",
        )
    return table[~table[key].duplicated()]


def compare_patients(
    slides: "pd.DataFrame", clinical: "pd.DataFrame", mismatches: Mismatches
) -> None:
    """Note slides whose patient has no clinical row, and patients without a slide."""
    in_slides = set(slides[keys.PATIENT])
    in_clinical = set(clinical[keys.PATIENT])
    without_row = slides[~slides[keys.PATIENT].isin(in_clinical)]
    hints = similar_ids(without_row[keys.PATIENT].unique(), in_clinical)
    for slide, patient in without_row[[keys.SLIDE_ID, keys.PATIENT]].itertuples(index=False):
        detail = hints.get(patient, f"patient {patient!r}")
        mismatches.leave_out_slide(slide, "patient without clinical row", detail)
    without_slide = clinical[~clinical[keys.PATIENT].isin(in_slides)]
    hints = similar_ids(without_slide[keys.PATIENT], in_slides)
    for row, patient in without_slide[keys.PATIENT].items():
        item = _left_out(clinical, "clinical", row, "patient without slide")
        mismatches.left_out.append(item._replace(detail=hints.get(patient, "")))


def join_tables(
    slides: "pd.DataFrame", clinical: "pd.DataFrame", mismatches: Mismatches
) -> "pd.DataFrame":
    """Return the slides that are in the cohort, with the columns of their patients.

    Patients are noted all of whose slides are left out, and columns of both tables that differ.
    """
    is_left = ~slides[keys.SLIDE_ID].isin(mismatches.slides_left_out)
    joined = slides[is_left]
    lost = set(slides[keys.PATIENT]) - set(joined[keys.PATIENT])
    for row, patient in clinical[keys.PATIENT].items():
        if patient in lost:
            item = _left_out(clinical, "clinical", row, "patient whose slides are all left out")
            mismatches.left_out.append(item)
    joined = joined[joined[keys.PATIENT].isin(clinical[keys.PATIENT])]
    values = clinical.set_index(keys.PATIENT).loc[joined[keys.PATIENT]].set_axis(joined.index)
    shared = [name for name in values if name in joined]
    for name in shared:
        differs = _differs(joined[name], values[name])
        if differs.any():
            mismatches.contradict(
                f"the column {name!r} differs in the two tables",
                f"slide {preview(joined[keys.SLIDE_ID][differs])}",
            )
    own = [name for name in shared if name in (keys.SLIDE_ID, keys.PATH)]
    others = [name for name in shared if name not in own]
    return joined.drop(columns=others).join(values.drop(columns=own))


def similar_ids(missing: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Return hints for the first ids that are missing: an id among the others that is similar."""
    missing = list(missing)[:N_HINTS]
    if not missing:
        return {}
    by_form: dict[str, str] = {}
    for other in sorted(others):
        by_form.setdefault(_form(other), other)
    hints = {}
    for name in missing:
        form = _form(name)
        similar = by_form.get(form) or next(
            (other for key, other in by_form.items() if _is_prefix(form, key)), None
        )
        if similar is not None:
            hints[name] = f"{name!r} is like {similar!r}"
    return hints


def _is_prefix(first: str, second: str) -> bool:
    shorter, longer = sorted((first, second), key=len)
    return len(shorter) >= MIN_PREFIX and longer.startswith(shorter)


def _form(name: str) -> str:
    """Return an id without case, punctuation, and zeros before numbers."""
    return re.sub(r"[\W_]", "", re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold()))


def _differs(first: "pd.Series", second: "pd.Series") -> "pd.Series":
    return class_names(first).fillna("") != class_names(second).fillna("")


def _left_out(table: "pd.DataFrame", kind: str, row: int, reason: str) -> LeftOut:
    ids = [
        table[name].get(row) if name in table else None for name in (keys.PATIENT, keys.SLIDE_ID)
    ]
    patient, slide = ("" if value is None else str(value) for value in ids)
    return LeftOut(kind, int(row), patient, slide, reason, "")
