"""The mark at the end of the report of a collection, by which the next call recognizes it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from stp.data.collection import Collection


def make_mark(collection: Collection, failures: Sequence[Mapping[str, str]]) -> bytes:
    """Return a comment of HTML with a digest of all that a report shows.

    The table has the digest of each store, so that a report with the same mark shows the same
    stores. Another version of this package may show them in another way.

    Parameters
    ----------
    collection
        Stores with a table that describes them.
    failures
        Rows that failed: dicts with `name`, `path` and `error`.
    """
    facts = [version("stp-spatial"), collection.table.to_json(orient="split"), list(failures)]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return f"\n<!-- {digest} -->\n".encode()
