"""The stores that a run trains on and validates with: from lists of paths or collections."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stp._log import preview, warn
from stp._text import readable
from stp.data.collection import PATIENT, SPLIT, Collection
from stp.data.column_values import has_value
from stp.data.store import SpotStore
from stp.tables.table import as_training_data

if TYPE_CHECKING:
    from anndata import AnnData

Stores = Iterable[str | Path]
TRAIN = "train"
VALIDATION = "validation"


@dataclass(frozen=True)
class StoreLists:
    """What a training function was called with, after the stores of collections were checked.

    Parameters
    ----------
    stores
        Data to train on.
    validation
        Data to validate with.
    """

    stores: Any
    validation: Any

    @classmethod
    def choose(cls, stores: Any, validation: Any, *, needs_image: bool = False) -> Self:
        """Leave out the stores of collections that cannot be trained on.

        Parameters
        ----------
        stores
            Data to train on.
        validation
            Data to validate with.
        needs_image
            Whether stores of collections without an image are left out, too.

        Raises
        ------
        ValueError
            A store was written anew after the table of its collection was made.
        """
        _warn_if_sides_mix(stores)
        return cls(
            as_training_data(stores, needs_image=needs_image),
            as_training_data(validation, needs_image=needs_image),
        )

    def open_stores(self, table_key: str) -> tuple[list[SpotStore], list[SpotStore]]:
        """Open the stores to train on and those to validate with.

        Raises
        ------
        ValueError
            If there is no store to train on, or two stores have the same digest.
        """
        training_stores = [SpotStore(path, table_key) for path in self.stores]
        validation_stores = [SpotStore(path, table_key) for path in self.validation]
        if not training_stores:
            raise ValueError(
                "there is no store to train on: the list is empty; does the pattern match?"
            )
        check_different([*training_stores, *validation_stores])
        if validation_stores:
            _warn_if_patients_are_shared(
                _patients_in_collection(self.stores) or _patients_of_stores(training_stores),
                _patients_in_collection(self.validation) or _patients_of_stores(validation_stores),
            )
        return training_stores, validation_stores

    def check_patients(
        self, training: Mapping[str, "AnnData"], validation: Mapping[str, "AnnData"]
    ) -> None:
        """Warn if tables to train on and to validate with are of one patient."""
        _warn_if_patients_are_shared(
            _patients_in_collection(self.stores) or _patients_of_tables(training),
            _patients_in_collection(self.validation) or _patients_of_tables(validation),
        )

    def record(self) -> dict[str, Any]:
        """Return digests and conditions of the collections, as an entry of training.json."""
        records = {name: part.record() for name, part in self._collections().items()}
        return {"collections": records} if records else {}

    def origin(self, name: str) -> str:
        """Return the collection of one side, "train" or "validation", in a line; "" without."""
        collection = self._collections().get(name)
        return collection.describe() if collection is not None else ""

    def _collections(self) -> dict[str, Collection]:
        sides = {TRAIN: self.stores, VALIDATION: self.validation}
        return {name: part for name, part in sides.items() if isinstance(part, Collection)}


def check_lists(stores: Stores, validation: Stores) -> None:
    """Raise TypeError if a single path is passed instead of a list."""
    for name, paths in (("stores", stores), ("validation", validation)):
        if isinstance(paths, str | Path):
            is_table = str(paths).endswith((".parquet", ".csv"))
            remedy = "stp.io.read_collection(path)" if is_table else "a list of paths"
            raise TypeError(f"{name} is one path, {readable(paths)}; pass {remedy}")


def check_different(stores: Sequence[SpotStore]) -> None:
    """Raise ValueError if two stores have the same digest, and name both."""
    by_digest: dict[str, SpotStore] = {}
    for store in stores:
        first = by_digest.setdefault(store.digest, store)
        if first is not store:
            first.check_spots()
            store.check_spots()
            raise ValueError(
                f"{first.source} and {store.source} have the same content; list every slide once, "
                "either to train on or to validate with"
            )


def store_fingerprint(
    training: list[SpotStore], validation: list[SpotStore], table_key: str
) -> dict[str, Any]:
    """Return what identifies the stores of a run: digests of their content, never paths.

    So a run goes on if its stores moved, and a store that was written again with other content
    makes another run. Paths are there for information.

    Raises
    ------
    ValueError
        If genes or spots of a store changed after its digest was computed.
    """
    is_in_tissue = hashlib.sha256()
    for store in (*training, *validation):
        store.check_spots()
        is_in_tissue.update(store.trainable(min_genes=0).tobytes())
    return {
        "stores": [store.digest for store in training],
        "validation": [store.digest for store in validation],
        "table_key": table_key,
        "in_tissue": is_in_tissue.hexdigest(),
        "paths": {
            "stores": [store.source for store in training],
            "validation": [store.source for store in validation],
        },
    }


def _warn_if_sides_mix(stores: Any) -> None:
    """Warn if a collection with a split is trained on as a whole."""
    if not isinstance(stores, Collection) or SPLIT not in stores.table:
        return
    is_selected = stores.selection is not None and SPLIT in stores.selection.where
    sides = Counter(side for side in stores.table[SPLIT] if has_value(side))
    if len(sides) > 1 and not is_selected:
        numbers = ", ".join(f"{side}: {n}" for side, n in sorted(sides.items()))
        warn(
            f"the collection has a split, and stores of all sides are trained on ({numbers}); "
            'pass collection.select(split="train"), or write split = "train" into the recipe'
        )


def _warn_if_patients_are_shared(training: set[str], validation: set[str]) -> None:
    shared = sorted(training & validation)
    if shared:
        warn(
            f"stores of one patient are trained on and validated with ({preview(shared, 10)}), so "
            "the validation is too good; put all stores of a patient on one side, e.g. with "
            "stp.tl.assign_split"
        )


def _patients_in_collection(stores: Any) -> set[str]:
    """Return the patients of a collection; none if it has no such column, or is no collection."""
    if not isinstance(stores, Collection) or PATIENT not in stores.table:
        return set()
    return {str(patient) for patient in stores.table[PATIENT] if has_value(patient)}


def _patients_of_stores(stores: Sequence[SpotStore]) -> set[str]:
    return set().union(*(store.patients for store in stores))


def _patients_of_tables(tables: Mapping[str, "AnnData"]) -> set[str]:
    columns = [table.obs[PATIENT].unique() for table in tables.values() if PATIENT in table.obs]
    return {str(patient) for column in columns for patient in column if has_value(patient)}
