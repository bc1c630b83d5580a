"""Collections."""

from pathlib import Path

import pandas as pd
from tests.bad_input.case import refused

import stp


def collection(**columns) -> stp.io.Collection:
    names = ["C1", "D1", "E1"]
    table = pd.DataFrame({"name": names, "path": names, "digest": names})
    return stp.io.Collection(table.assign(**columns), Path())


@refused(ValueError, r"because of 2 faults:.*have the name C1.*there is no store at C1\.zarr")
def a_table_with_faults():
    """Two rows have the same name, and the stores do not lie next to the table.

    Give each row its own name. Paths are relative to the folder of the table.
    """
    table = pd.DataFrame({"name": ["C1", "C1"], "path": ["C1.zarr", "C2.zarr"]})
    table.assign(digest="0").to_csv("collection.csv", index=False)
    stp.io.read_collection("collection.csv")


@refused(ValueError, r"no row has 'brest' in 'organ' \(did you mean 'breast'\?\)")
def a_value_that_no_store_has():
    """No row of the collection has this value. It may be misspelled.

    Use a value of the column; the error lists some.
    """
    collection(organ=["breast", "breast", "lung"]).select({"organ": ["brest", "lung"]})


@refused(ValueError, r"2 rows have no 'patient': D1, E1; fill the column, or pass by=\"name\"")
def stores_without_a_patient():
    """Two stores of one patient must not be on different sides, and the patient is unknown.

    Fill the column in collection.csv and pass that file. With `by="name"` every store is treated as
    one of another patient.
    """
    stp.tl.assign_split(collection(patient=["C", None, ""]))


@refused(ValueError, "3 sides need as many units .* and the collection has 2; pass validation=0")
def fewer_patients_than_sides():
    """Patients are never divided, so each side needs one patient at least. Near-duplicates count as
    one patient.

    Leave out a side with `validation=0` or `test=0`, or add patients.
    """
    stp.tl.assign_split(collection(patient=["C", "D", "D"]))


@refused(ValueError, r"stp\.io\.write_collection or `stp prepare`.*slide was written anew")
def a_store_that_changed_after_its_table_was_made(sdata, vocabulary):
    """The table describes what was in the store before. Its measures and its split may be wrong.

    Renew the table with `stp.io.write_collection` or `stp prepare`.
    """
    stp.io.write_store(sdata, "slide.zarr", patch_um_per_px=4)
    table = pd.DataFrame({"name": ["slide"], "path": ["slide.zarr"], "digest": ["an older one"]})
    stp.train.pretrain(stp.io.Collection(table, Path()), "run", vocabulary=vocabulary)
