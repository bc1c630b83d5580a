"""The genes that names of a table mean, and the rules by which they were recognized."""

from typing import NamedTuple

import numpy as np


class Names(NamedTuple):
    """The genes that some names mean: arrays of shape (n_names,)."""

    # int64: vocabulary index of the gene, or -1 if the name means no gene of the vocabulary.
    index: np.ndarray  # type: ignore[assignment]  # tuples have a method of this name
    # str: the rule by which the name was recognized, or the reason why it was not.
    rule: np.ndarray
    # str: the genes that an unrecognized name may stand for, or "".
    note: np.ndarray


class Match(NamedTuple):
    """The gene that one name means; the fields are those of `Names`."""

    gene: int
    rule: str
    note: str = ""


class TableNames(NamedTuple):
    """What the names of one table say about each other."""

    names: set[str]
    # Vocabulary indices of the genes that have an exact name in the table.
    genes: set[int]
    # Whether many names are symbols of mouse or rat.
    has_mouse: bool
