"""Gene names inside longer names: with a genome, an id and a symbol in one, or bytes as text."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from stp.genes.species import GENOMES, SEPARATOR

_BYTES = re.compile(r"b(['\"])(.+)\1")
_GENOMES = [
    (species, re.compile(rf"(?:{genome}){SEPARATOR}(.+)")) for species, genome in GENOMES.items()
]
_ID = re.compile(r"(?<![A-Za-z0-9])(ENS[A-Z]*G\d{11})(?:\.\d+)?(?![A-Za-z0-9])")
_JOINTS = re.compile(r"[_|:;,()\[\]\s/]+")


class NameForm(NamedTuple):
    """A name inside a longer name.

    Parameters
    ----------
    rule
        How the longer name is made: "bytes", "genome prefix" or "joined name".
    name
        The name inside.
    species
        Species of the genome prefix, or None.
    others
        What else is in a joined name: symbols and tags of probes.
    """

    rule: str
    name: str
    species: str | None = None
    others: tuple[str, ...] = ()


def unwrap(name: str) -> NameForm | None:
    """Return the name inside a longer name, or None.

    `GRCh38_EPCAM` and `mm10___Epcam` have a genome prefix, `ENSG00000119888|EPCAM|ab12cd3` and
    `EPCAM (ENSG00000119888)` join names, and `b'EPCAM'` is bytes as text.
    """
    as_bytes = _BYTES.fullmatch(name)
    if as_bytes:
        return NameForm("bytes", as_bytes[2])
    for species, pattern in _GENOMES:
        match = pattern.fullmatch(name)
        if match:
            return NameForm("genome prefix", match[1], species)
    return _split_joined(name)


def _split_joined(name: str) -> NameForm | None:
    """Return the Ensembl id of a joined name, or None if it has none or several."""
    if "ENS" not in name:
        return None
    ids = set(_ID.findall(name))
    if len(ids) != 1:
        return None
    others = tuple(part.strip("-.") for part in _JOINTS.split(_ID.sub("|", name)))
    others = tuple(part for part in others if part)
    return NameForm("joined name", ids.pop(), others=others) if others else None


def advise_to_strip(names: Sequence[str]) -> str:
    """Return the advice to strip what all names begin or end with, or "" if there is nothing."""
    if len(names) < 2:
        return ""
    prefix = re.match(r".*[_|:;-]", os.path.commonprefix(names))
    if prefix:
        return (
            f"all names begin with {prefix[0]!r}: strip it by "
            f"adata.var_names = adata.var_names.str.removeprefix({prefix[0]!r}); "
        )
    suffix = re.match(r".*[_|:;-]", os.path.commonprefix([name[::-1] for name in names]))
    if suffix:
        ending = suffix[0][::-1]
        return (
            f"all names end with {ending!r}: strip it by "
            f"adata.var_names = adata.var_names.str.removesuffix({ending!r}); "
        )
    return ""
