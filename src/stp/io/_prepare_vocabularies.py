"""The vocabulary of each row of a manifest, by its species."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from stp.genes.vocabulary import Vocabulary
from stp.io._manifest_columns import ManifestRow
from stp.io._prepare_files import join, read_file, write_file

SPECIES_OF = {
    "homo sapiens": "human",
    "mus musculus": "mouse",
    "rattus norvegicus": "rat",
    "danio rerio": "zebrafish",
    "sus scrofa": "pig",
    "macaca mulatta": "macaque",
    "macaca fascicularis": "macaque",
    "gallus gallus": "chicken",
    "drosophila melanogaster": "fruit fly",
}
Vocabularies = Vocabulary | Sequence[Vocabulary] | None


@dataclass(frozen=True)
class SpeciesVocabularies:
    """Vocabularies by species, and the one of rows whose manifest names no species.

    Parameters
    ----------
    human
        The human vocabulary of this package.
    by_species
        Vocabulary of each species; there always is a human one.
    default
        Vocabulary of rows without a species; None if there are several.
    """

    human: Vocabulary
    by_species: dict[str, Vocabulary]
    default: Vocabulary | None

    @classmethod
    def collect(cls, vocabulary: Vocabularies) -> "SpeciesVocabularies":
        """Return the vocabularies of a call.

        Raises
        ------
        ValueError
            Two vocabularies are of one species, or the species of one of several is unknown.
        """
        human = Vocabulary.default()
        if vocabulary is None:
            return cls(human, {str(human.species): human}, human)
        items = [vocabulary] if isinstance(vocabulary, Vocabulary) else list(vocabulary)
        species = [item.species for item in items]
        if len(items) > 1 and (None in species or len(set(species)) < len(items)):
            raise ValueError(
                f"the vocabularies are of the species {species}; give one for each species"
            )
        by_species = {str(human.species): human}
        by_species |= {str(item.species): item for item in items}
        return cls(human, by_species, items[0] if len(items) == 1 else None)

    def of(self, row: ManifestRow) -> Vocabulary:
        """Return the vocabulary of a row.

        Raises
        ------
        ValueError
            There is none for its species.
        """
        text = str(row.metadata["species"]).casefold()
        if not text and self.default is not None:
            return self.default
        if not text:
            raise ValueError(
                f"there are vocabularies of {sorted(self.by_species)}; write one of these into the "
                "column 'species'"
            )
        species = SPECIES_OF.get(text, text)
        if species not in self.by_species:
            raise ValueError(
                f"there is no vocabulary for the species {row.metadata['species']!r}; pass one as "
                "vocabulary=, or with --vocabulary"
            )
        return self.by_species[species]

    def list_faults(self, rows: Sequence[ManifestRow]) -> list[str]:
        """List the rows without a vocabulary, one sentence each."""
        faults = []
        for row in rows:
            try:
                self.of(row)
            except ValueError as error:
                faults.append(f"{row.name}: {error}")
        return faults


def save_vocabularies(vocabularies: SpeciesVocabularies, folder: str) -> dict[str, str | None]:
    """Write the vocabularies to files, and return these by digest; the human one has none.

    Parameters
    ----------
    vocabularies
        The vocabularies.
    folder
        Path or URL of a folder.
    """
    human = vocabularies.human.digest
    files: dict[str, str | None] = {human: None}
    for vocabulary in vocabularies.by_species.values():
        if vocabulary.digest != human:
            file = join(folder, f"{vocabulary.digest}.parquet")
            with TemporaryDirectory() as temporary:
                local = Path(temporary) / "vocabulary.parquet"
                vocabulary.save(local)
                write_file(file, local.read_bytes())
            files[vocabulary.digest] = file
    return files


@functools.lru_cache(maxsize=4)
def load_vocabulary(file: str | None) -> Vocabulary:
    """Return the vocabulary of a path or URL, which a process loads once; None is the human one."""
    if file is None:
        return Vocabulary.default()
    with TemporaryDirectory() as temporary:
        local = Path(temporary) / "vocabulary.parquet"
        local.write_bytes(read_file(file))
        return Vocabulary.load(local)
