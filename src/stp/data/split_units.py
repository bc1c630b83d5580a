"""Divide the stores of a collection into units that stay whole, and place these on sides."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp._log import preview
from stp.data.collection import N_SPOTS, PROBLEM
from stp.data.column_values import has_value

if TYPE_CHECKING:
    import pandas as pd

MAX_ORDERS = 20  # random orders of the units that are tried
PAIR = ("first", "second")  # columns of `stp.tl.find_duplicates`


def find_units(table: "pd.DataFrame", by: str, duplicates: "pd.DataFrame | None") -> np.ndarray:
    """Return the unit (n,) of each row: stores that share a patient, content or a duplicate."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = list(table["name"])
    links = [
        *zip(_nodes("name", names), _nodes("patient", table[by]), strict=True),
        *zip(_nodes("name", names), _nodes("digest", table["digest"]), strict=True),
    ]
    for pair in _list_pairs(names, duplicates):
        first, second = _nodes("name", pair)
        links.append((first, second))
    nodes = {node: number for number, node in enumerate({node for link in links for node in link})}
    ends = np.array([[nodes[node] for node in link] for link in links])
    shape = (len(nodes), len(nodes))
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=shape)
    _, labels = connected_components(graph, directed=False)
    labels = np.array([labels[nodes["name", name]] for name in names])
    return _number_by_name(labels, names)


def _nodes(kind: str, values: Iterable[object]) -> list[tuple[str, str]]:
    return [(kind, str(value)) for value in values]


def _number_by_name(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Number groups by the first of their names."""
    first: dict[int, str] = {}
    for label, name in zip(labels.tolist(), names, strict=True):
        first[label] = min(name, first.get(label, name))
    rank = {label: number for number, label in enumerate(sorted(first, key=lambda k: first[k]))}
    return np.array([rank[label] for label in labels.tolist()])


def _list_pairs(names: Sequence[str], duplicates: "pd.DataFrame | None") -> list[tuple[str, str]]:
    """Return the pairs of near-duplicates, which may be of stores that are not selected."""
    if duplicates is None or not len(duplicates):
        return []
    lacking = [column for column in PAIR if column not in duplicates]
    if lacking:
        raise ValueError(f"duplicates lack the columns {lacking}; stp.tl.find_duplicates has them")
    pairs = list(zip(duplicates[PAIR[0]], duplicates[PAIR[1]], strict=True))
    if not {name for pair in pairs for name in pair} & set(names):
        raise ValueError(
            f"duplicates are of other stores, e.g. {preview(pairs[0])}; find those of this "
            "collection with stp.tl.find_duplicates"
        )
    return pairs


def weigh(table: "pd.DataFrame") -> np.ndarray:
    """Return the number of spots of each row (n,), or 1 if it is unknown.

    It is 0 for a store that cannot be trained on.
    """
    weights = np.ones(len(table))
    if N_SPOTS in table:
        weights = table[N_SPOTS].to_numpy(dtype=np.float64)
    return np.where(has_problem(table), 0.0, weights)


def has_problem(table: "pd.DataFrame") -> np.ndarray:
    """Return whether each store (n,) cannot be trained on."""
    if PROBLEM not in table:
        return np.zeros(len(table), dtype=bool)
    return np.array([has_value(problem) for problem in table[PROBLEM]], dtype=bool)


def measure_units(table: "pd.DataFrame", units: np.ndarray, stratify: Sequence[str]) -> np.ndarray:
    """Return the spots of each unit (n_units, n_strata): in all, then by value of each column."""
    weights = weigh(table)
    is_in = [np.ones(len(table), dtype=bool)]
    for column in stratify:
        values = np.array(
            [str(value) if has_value(value) else "" for value in table[column]], dtype=object
        )
        is_in += [values == value for value in sorted(set(values))]
    sizes = np.zeros((units.max() + 1, len(is_in)))
    for stratum, is_here in enumerate(is_in):
        np.add.at(sizes[:, stratum], units[is_here], weights[is_here])
    return sizes


def place_units(sizes: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the side (n_units,) of each unit: the best of several random orders.

    Parameters
    ----------
    sizes
        Spots (n_units, n_strata) of each unit.
    shares
        Share of the spots (n_sides,) of each side.
    rng
        Source of the random orders.
    """
    sides = np.zeros(len(sizes), dtype=np.int64)
    is_counted = sizes[:, 0] > 0  # the others cannot be trained on, and stay on the first side
    sides[is_counted] = _place_counted(sizes[is_counted], shares, rng)
    return sides


def _place_counted(sizes: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the side (n_units,) of each unit that has spots."""
    sizes = sizes[:, sizes.sum(axis=0) > 0]
    targets = shares[:, None] * sizes.sum(axis=0)
    best = None
    lowest = np.inf
    for _ in range(min(len(sizes), MAX_ORDERS)):
        sides = _place_in_order(sizes, targets, rng.permutation(len(sizes)))
        spots = np.array([sizes[sides == side].sum(axis=0) for side in range(len(shares))])
        cost = ((spots - targets) ** 2 / targets).sum()
        if best is None or cost < lowest:
            best = sides
            lowest = cost
    assert best is not None
    return best


def _place_in_order(sizes: np.ndarray, targets: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Place units one by one on the side for which the squared error grows least.

    The error of a side is relative to its target. When only as many units are left as
    there are empty sides, each of these gets one.
    """
    spots = np.zeros_like(targets)
    sides = np.full(len(sizes), -1)
    is_empty = np.ones(len(targets), dtype=bool)
    for position, unit in enumerate(order):
        size = sizes[unit]
        growth = ((2 * (spots - targets) * size + size**2) / targets).sum(axis=1)
        if len(order) - position <= is_empty.sum():
            growth[~is_empty] = np.inf
        side = int(growth.argmin())
        sides[unit] = side
        spots[side] += size
        is_empty[side] = False
    return sides
