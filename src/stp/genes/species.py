"""Guess the species of gene names."""

import re
from collections.abc import Iterable

MAX_NAMES = 2000  # this many names are enough to tell the species

# Names of reference genomes that 10x and other tools write before gene names, by species. Seurat
# turns the underscores of `mm10___Actb` into dashes.
GENOMES = {
    "human": r"GRCh3[78]|hg(?:18|19|38)|T2T|CHM13|human|Human|HUMAN",
    "mouse": r"GRCm3[89]|mm(?:9|10|39)|mouse|Mouse|MOUSE",
    "rat": r"mRatBN7|Rnor6|rn[4-7]|rat|Rat|RAT",
}
SEPARATOR = r"(?:_{1,}|-{1,}|:)"
# Symbols such as Actb and mt-Co1. Human symbols with small letters are rare (C1orf112).
MOUSE_OR_RAT = "mouse or rat"
_MOUSE_SYMBOL = r"mt-\w+|(?!C(?:\d+|X|Y)orf\d)[A-Z]\d{0,2}[a-z].*"


def _describe(species: str, ids: str) -> str:
    """Return a pattern of Ensembl ids of a species, also within a name, and of its genomes."""
    within = rf"(?:.*[^A-Za-z0-9])?{ids}(?!\d).*"
    genome = GENOMES.get(species)
    return rf"{within}|(?:b['\"])?(?:{genome}){SEPARATOR}.+" if genome else within


# A name of the species, as an Ensembl id or a symbol, matches its pattern as a whole.
_ID_PATTERNS = {
    "human": _describe("human", r"ENSG\d{11}"),
    "mouse": _describe("mouse", r"ENSMUSG\d{11}"),
    "rat": _describe("rat", r"ENSRNOG\d{11}"),
    "zebrafish": r"ENSDARG\d{11}.*",
    "pig": r"ENSSSCG\d{11}.*",
    "macaque": r"ENSM(?:MU|FA)G\d{11}.*",
    "chicken": r"ENSGALG\d{11}.*",
    "fruit fly": r"FBgn\d{7}",
}
_PATTERNS = {
    **_ID_PATTERNS,
    "zebrafish": rf"{_ID_PATTERNS['zebrafish']}|(?:si|zgc):.*",
    MOUSE_OR_RAT: _MOUSE_SYMBOL,
}
SPECIES = tuple(_PATTERNS)
# More than this share of the names must match.
_MIN_SHARE = dict.fromkeys(_PATTERNS, 0.5)
# Few symbols of zebrafish look different from those of other species, so few must be enough.
_MIN_SHARE["zebrafish"] = 0.02


def guess_species(names: Iterable[str]) -> str | None:
    """Return the species of ids or symbols, or None if they do not show it."""
    all_names = list(names)
    # Tables of two species list them one after the other, so names are taken evenly.
    step = -(-len(all_names) // MAX_NAMES) or 1
    some_names = [str(name) for name in all_names[::step]]
    for species, pattern in _PATTERNS.items():
        match = re.compile(pattern).fullmatch
        n_matches = sum(match(name) is not None for name in some_names)
        if n_matches > _MIN_SHARE[species] * len(some_names):
            return species
    return None


def is_compatible(species: str | None, other: str | None) -> bool:
    """Return whether two guesses may be of one species; symbols of many species look alike."""
    if species is None or other is None or species == other:
        return True
    # Other species have symbols of this form too, such as Adh of the fruit fly.
    return MOUSE_OR_RAT in (species, other) and "human" not in (species, other)


def species_of_id(name: str) -> str | None:
    """Return the species of an Ensembl id or of a name with a genome, or None."""
    if not name.startswith(("ENS", "FBgn")):
        return None
    for species, pattern in _ID_PATTERNS.items():
        if re.fullmatch(pattern, name):
            return species
    return None


def looks_like_mouse(name: str) -> bool:
    """Return whether a symbol is written as those of mouse and rat: Actb, mt-Co1."""
    return re.fullmatch(_MOUSE_SYMBOL, name) is not None
