"""Collections: a table that describes training stores, one row each."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stp._log import count, preview, warn
from stp._summary import Summary, summary_html
from stp._urls import as_url, join_url, without_secrets
from stp.data.collection_file import FILE, REQUIRED, find_file, read_table, write_table
from stp.data.collection_remote import read_remote_table, split_url, write_remote_table
from stp.data.collection_selection import Selection, require_all_of
from stp.data.column_values import find_rows, has_value
from stp.data.store_source import read_digest
from stp.remote.folder import in_threads

if TYPE_CHECKING:
    import pandas as pd

SPLIT = "split"  # column of `stp.tl.assign_split`
PATIENT = "patient"
N_SPOTS = "n_spots"
PROBLEM = "problem"  # why a store cannot be trained on; empty if it can
IMAGE_HEIGHT = "image_height_px"
NO_IMAGE = "it has no image"
RENEW = "renew the table: stp.io.write_collection or `stp prepare`"
MAX_LISTED = 10  # stores that an error lists

Condition = object | Sequence[object]

__all__ = ["FILE", "N_SPOTS", "PATIENT", "PROBLEM", "REQUIRED", "SPLIT", "Collection", "Selection"]


@dataclass(frozen=True, eq=False, repr=False)
class Collection:
    """Training stores with a table that describes them.

    Iterating over a collection yields the paths of its stores, so it can be passed wherever a list
    of stores can. Training leaves out the stores that have a `problem`, with a warning, and refuses
    stores that were written anew after the table was made.

    Parameters
    ----------
    table
        One row per store; :func:`stp.io.read_collection` describes the columns.
    folder
        Folder that the paths in the table are relative to, or its URL.
    selection
        Which rows of another collection these are; None if this is the whole collection.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"name": ["C2"], "path": ["C2.zarr"], "digest": ["0a"]})
    >>> [path.as_posix() for path in stp.io.Collection(table, "stores")]
    ['stores/C2.zarr']
    """

    table: "pd.DataFrame"
    folder: Path | str
    selection: Selection | None = None

    def __post_init__(self) -> None:
        url = as_url(self.folder)
        object.__setattr__(self, "folder", Path(self.folder) if url is None else url.rstrip("/"))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the table of a collection; :func:`stp.io.read_collection` describes it.

        Parameters
        ----------
        path
            A table with the ending .parquet or .csv, or the folder with collection.parquet or
            collection.csv. Both may be a URL.
        """
        url = as_url(path)
        if url is not None:
            return cls(*read_remote_table(url))
        file = find_file(Path(path))
        return cls(read_table(file), file.absolute().parent)

    def write(self, path: str | Path) -> None:
        """Write the table as two files, .parquet and .csv, each of which is whole at all times.

        Parameters
        ----------
        path
            One of the two files, in the folder of the collection, or that folder, or a URL. The
            other file has the same name with the other ending.

        Raises
        ------
        ValueError
            The paths of the table are relative to another folder, or this is only a selection and
            the file has more stores.
        """
        url = as_url(path)
        if url is not None:
            self._write_remote(url)
            return
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        self._require_folder(file.absolute().parent, str(file))
        if self.selection is not None and file.exists():
            require_all_of(len(self), read_table(file), str(file))
        write_table(self.table, file)

    def _write_remote(self, url: str) -> None:
        folder, _ = split_url(url)
        self._require_folder(folder.rstrip("/"), without_secrets(url))
        if self.selection is not None:
            with suppress(FileNotFoundError):
                require_all_of(len(self), read_remote_table(url)[0], without_secrets(url))
        write_remote_table(self.table, url)

    def _require_folder(self, folder: Path | str, file: str) -> None:
        """Raise ValueError if the paths of the table are not relative to the folder of a file."""
        if folder != (self.folder if isinstance(self.folder, str) else self.folder.absolute()):
            raise ValueError(
                f"the paths of the collection are relative to {without_secrets(str(self.folder))}; "
                f"write it there, not to {file}"
            )

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[str | Path]:
        for path in self.table["path"]:
            if "://" in path:
                yield path
            elif isinstance(self.folder, str):
                yield join_url(self.folder, path)
            else:
                yield self.folder / path

    def __repr__(self) -> str:
        parts = [count(len(self), "store")]
        if N_SPOTS in self.table:
            parts.append(count(self.table[N_SPOTS].sum(), "spot"))
        return f"Collection({', '.join(parts)}, digest {self.digest[:12]})"

    def _repr_html_(self) -> str:
        rows = {"stores": f"{len(self):,}"}
        if N_SPOTS in self.table:
            rows["spots"] = f"{int(self.table[N_SPOTS].sum()):,}"
        for column in ("organ", "platform", "species", SPLIT):
            if column in self.table:
                sizes = Counter(value for value in self.table[column] if has_value(value))
                largest = [f"{value} ({n})" for value, n in sizes.most_common()]
                rows[column] = preview(largest) or "unknown"
        rows["not trainable"] = f"{sum(map(bool, self._problems())):,}"
        rows["digest"] = self.digest[:12]
        return summary_html(Summary("Collection", rows))

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of names and digests of the stores, in their order."""
        lines = self.table["name"] + " " + self.table["digest"]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def select(
        self, where: Mapping[str, Condition] | None = None, split: str | None = None
    ) -> Self:
        """Return the rows that have these values.

        Parameters
        ----------
        where
            Value, or list of values, that a row must have in each of these columns. Numbers and
            truth values are compared by value. A cell without a value matches nothing.
        split
            Value of the column "split", such as "train".

        Returns
        -------
        A collection of the rows that meet all conditions.

        Raises
        ------
        ValueError
            A column is missing, no row of the collection has a value, or no row meets all
            conditions.
        """
        conditions = dict(where or {})
        if split is not None:
            if SPLIT not in self.table:
                raise ValueError(
                    "the collection has no split; stp.tl.assign_split or `stp split` makes one"
                )
            conditions[SPLIT] = split
            n_without = sum(not has_value(side) for side in self.table[SPLIT])
            if n_without:
                warn(
                    f"{count(n_without, 'store')} of the collection have no side in {SPLIT!r}, and "
                    "are on none; `stp split --overwrite` assigns all of them"
                )
        is_match, values = find_rows(self.table, conditions)
        if not is_match.any():
            raise ValueError(f"no store of the collection meets all of {conditions}")
        return self._keep(is_match, values)

    def trainable(self, *, needs_image: bool = False) -> Self:
        """Return the stores without a problem, and warn of the others.

        Parameters
        ----------
        needs_image
            Whether stores without an image are left out, too.

        Raises
        ------
        ValueError
            All stores have a problem.
        """
        all_problems = self._problems(needs_image)
        problems = [problem for problem in all_problems if problem]
        if not problems:
            return self
        reasons = "; ".join(
            f"{count(n, 'store')}: {reason}" for reason, n in Counter(problems).most_common()
        )
        if len(problems) == len(self):
            raise ValueError(f"no store of the collection can be trained on ({reasons})")
        warn(
            f"{len(problems)} of {count(len(self), 'store')} are left out, because they cannot be "
            f"trained on ({reasons})"
        )
        return self._keep([not problem for problem in all_problems], {})

    def check_stores(self) -> None:
        """Compare the digest of each row with that of its store.

        Raises
        ------
        ValueError
            A store is missing, or was written anew after the table was made.
        """
        changes = self.list_changes()
        if changes:
            more = f"\n- and {len(changes) - MAX_LISTED} more" if len(changes) > MAX_LISTED else ""
            lines = "\n- ".join(changes[:MAX_LISTED])
            raise ValueError(
                f"stores do not agree with the table of the collection; {RENEW}\n- {lines}{more}"
            )

    def list_changes(self) -> list[str]:
        """List the stores that are missing, or were written anew after the table was made."""
        changes = []
        digests = in_threads(read_digest, self)  # a server answers several questions at a time
        rows = zip(self.table["name"], self.table["digest"], digests, strict=True)
        for name, digest, current in rows:
            if current is None:
                changes.append(f"{name} is no training store")
            elif current != digest:
                changes.append(f"{name} was written anew after the table was made")
        return changes

    def training_stores(self, *, needs_image: bool = False) -> Self:
        """Return the stores that training reads: those of `trainable`, after `check_stores`."""
        stores = self.trainable(needs_image=needs_image)
        stores.check_stores()
        return stores

    def record(self) -> dict[str, Any]:
        """Return digest, conditions and number of the stores, for the files of a run."""
        selection = self.selection or Selection(self.digest, {})
        where = {column: list(values) for column, values in selection.where.items()}
        return {"digest": selection.digest, "where": where, "n_stores": len(self)}

    def describe(self) -> str:
        """Return the digest and the conditions in a line, for a model card."""
        selection = self.selection or Selection(self.digest, {})
        conditions = "; ".join(
            f"{column}: {preview(values)}" for column, values in selection.where.items()
        )
        return f"collection {selection.digest[:12]}" + (f" ({conditions})" if conditions else "")

    def _problems(self, needs_image: bool = False) -> list[str]:
        """Return why each store cannot be trained on; empty texts for those that can."""
        problems = [""] * len(self)
        if PROBLEM in self.table:
            problems = [str(text) if has_value(text) else "" for text in self.table[PROBLEM]]
        if needs_image and IMAGE_HEIGHT in self.table:
            has_image = map(has_value, self.table[IMAGE_HEIGHT])
            pairs = zip(problems, has_image, strict=True)
            problems = [text if text or is_there else NO_IMAGE for text, is_there in pairs]
        return problems

    def _keep(self, rows: Iterable[bool], where: Mapping[str, tuple[Hashable, ...]]) -> Self:
        """Return a collection of some rows, which meet these conditions."""
        selection = (self.selection or Selection(self.digest, {})).add(where)
        table = self.table[list(rows)].reset_index(drop=True)
        return replace(self, table=table, selection=selection)
