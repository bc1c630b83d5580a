"""Guess the species of gene names."""

import re
from collections.abc import Iterable
from itertools import islice

MAX_NAMES = 2000  # this many names are enough to tell the species

# A name of the species, as an Ensembl id or a symbol, matches its pattern as a whole.
_PATTERNS = {
    "human": r"ENSG\d{11}.*",
    "mouse": r"ENSMUSG\d{11}.*",
    "rat": r"ENSRNOG\d{11}.*",
    "zebrafish": r"ENSDARG\d{11}.*|(si|zgc):.*",
    "pig": r"ENSSSCG\d{11}.*",
    "macaque": r"ENSM(MU|FA)G\d{11}.*",
    "chicken": r"ENSGALG\d{11}.*",
    "fruit fly": r"FBgn\d{7}",
    # Symbols such as Actb. Human symbols with small letters are rare (C1orf112).
    "mouse or rat": r"mt-\w+|[A-Z]\d{0,2}[a-z].*",
}
# More than this share of the names must match.
_MIN_SHARE = dict.fromkeys(_PATTERNS, 0.5)
# Few symbols of zebrafish look different from those of other species, so few must be enough.
_MIN_SHARE["zebrafish"] = 0.02


def guess_species(names: Iterable[str]) -> str | None:
    """Return the species of ids or symbols, or None if they do not show it."""
    first_names = [str(name) for name in islice(names, MAX_NAMES)]
    for species, pattern in _PATTERNS.items():
        n_matches = sum(bool(re.fullmatch(pattern, name)) for name in first_names)
        if n_matches > _MIN_SHARE[species] * len(first_names):
            return species
    return None
