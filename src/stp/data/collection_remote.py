"""The files of a collection on a server."""

from pathlib import Path
from typing import TYPE_CHECKING

from stp._urls import parent_url, url_name, without_secrets
from stp.data.collection_file import CSV_FILE, ENDINGS, FILE, WRITERS, read_table, write_table
from stp.remote.cache import temporary_folder
from stp.remote.folder import RemoteFolder
from stp.remote.objects import ObjectFolder
from stp.remote.store import open_folder

if TYPE_CHECKING:
    import pandas as pd


def split_url(url: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder of a collection, and the names that its file may have.

    Parameters
    ----------
    url
        Address of a table with the ending .parquet or .csv, or of the folder that has one.
    """
    name = url_name(url)
    if Path(name).suffix.lower() in ENDINGS:
        return parent_url(url), (name,)
    return url, (FILE, CSV_FILE)


def read_remote_table(url: str) -> tuple["pd.DataFrame", str]:
    """Read and check the table of a collection, and return it with the URL of its folder.

    Raises
    ------
    FileNotFoundError
        There is no table.
    ValueError
        The table has faults; the error lists all of them.
    ConnectionError
        The server cannot be reached.
    """
    address, names = split_url(url)
    folder = open_folder(address)
    for name in names:
        content = _read(folder, name)
        if content is not None:
            with temporary_folder("collections") as local:
                (local / name).write_bytes(content)
                return read_table(local / name, address), address
    raise FileNotFoundError(f"there is no collection at {without_secrets(url)}; {WRITERS}")


def write_remote_table(table: "pd.DataFrame", url: str) -> None:
    """Write a table as .parquet and .csv, each of which replaces its former file at once.

    Parameters
    ----------
    table
        The table.
    url
        Address of one of the two files, or of their folder.

    Raises
    ------
    PermissionError
        The server does not allow to write there.
    """
    address, names = split_url(url)
    folder = open_folder(address)
    if not isinstance(folder, ObjectFolder):
        folder.require_writable()
        raise AssertionError("unreachable")
    with temporary_folder("collections") as local:
        file = local / names[0]
        write_table(table, file)
        for ending in (".csv", ".parquet"):
            folder.upload(file.with_suffix(ending), file.with_suffix(ending).name)


def _read(folder: RemoteFolder, name: str) -> bytes | None:
    try:
        return folder.read(name)
    except FileNotFoundError:
        return None
