"""What scored slides share with references, and with the slides that trained the model."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stp._log import count, preview
from stp._urls import as_url, url_name
from stp.data.collection import Collection
from stp.data.store import SpotStore
from stp.tables import keys
from stp.tl import find_duplicates
from stp.train.engine.run_dir import SETTINGS
from stp.workflows.evaluation_options import EvaluationOptions, Sides, patients_of

N_SPOTS = " spots of "  # in a line of a card that names stores
MORE = re.compile(r" and (\d+) more(;|$)")  # names of stores that a card leaves out
REMEDY = (
    "divide the collection again with `stp split --overwrite`, choose a model that never saw these "
    "slides, or pass --allow-leaks to score in spite of this"
)


@dataclass(frozen=True)
class TrainingRecord:
    """What a model records of the stores that trained it.

    Parameters
    ----------
    digests
        Digests of stores.
    paths
        Paths of these stores.
    lines
        Lines of the card that name stores whose digest is unknown.
    corpus
        Names of the stores of the gene means.
    base_models
        Models of others that it was trained from.
    table_key
        Name of the table in these stores.
    """

    digests: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    table_key: str = keys.TABLE

    @property
    def stages(self) -> list[str]:
        """Stages of training whose stores are known by their file names only."""
        return [line.partition(":")[0] for line in self.lines if N_SPOTS in line]

    @property
    def other_weights(self) -> list[str]:
        """What the model was trained from or on, without the names of slides."""
        lines = [line for line in self.lines if N_SPOTS not in line]
        return [*lines, *self.base_models]

    def mentions(self, file_name: str) -> bool:
        """Return whether a line of the card names a store of this file name."""
        token = re.compile(rf"(?<!\S){re.escape(file_name)}(?=,|;|$| and \d+ more)")
        return any(token.search(line) for line in self.lines)


@dataclass
class Leaks:
    """What was found, and what could not be checked, a sentence each."""

    found: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def read_training(folder: Path | None, model: Any) -> TrainingRecord:
    """Return what a model, and the run in its folder, record of its training."""
    file = None if folder is None else folder / SETTINGS
    settings: dict[str, Any] = {}
    if file is not None and file.is_file():
        settings = json.loads(file.read_text(encoding="utf-8"))
    card = getattr(model, "card", None)
    lines = tuple(card.trained_on) if card is not None else ()
    digests = [*settings.get("stores", ()), *settings.get("validation", ())]
    if digests:
        # The digests say more than the line of the same stage.
        lines = tuple(line for line in lines if not line.startswith(f"{settings.get('stage')}: "))
    paths = settings.get("paths", {})
    vocabulary = getattr(model, "vocabulary", None)
    return TrainingRecord(
        frozenset(digests),
        (*paths.get("stores", ()), *paths.get("validation", ())),
        lines,
        () if vocabulary is None else vocabulary.corpus,
        () if card is None else tuple(card.base_models),
        settings.get("table_key", keys.TABLE),
    )


def check_leaks(sides: Sides, training: TrainingRecord, options: EvaluationOptions) -> Leaks:
    """Compare the scored side with the references and with the training of the model.

    Raises
    ------
    ValueError
        There is a leak, and `options.allow_leaks` is False.
    """
    leaks = Leaks()
    _compare_sides(sides, options, leaks)
    _compare_training(sides, training, options, leaks)
    if leaks.found and not options.allow_leaks:
        raise leak_error(leaks.found)
    _compare_content(sides, training, options, leaks)
    if leaks.found and not options.allow_leaks:
        raise leak_error(leaks.found)
    return leaks


def leak_error(found: list[str]) -> ValueError:
    """Return the error that lists all leaks."""
    lines = "\n- ".join(found)
    return ValueError(
        f"the scored slides are not new, so scores would be too good:\n- {lines}\n{REMEDY}"
    )


def _compare_sides(sides: Sides, options: EvaluationOptions, leaks: Leaks) -> None:
    """Find patients and equal stores that are on both sides."""
    by_digest = dict(zip(sides.train.table["digest"], sides.train.table["name"], strict=True))
    for name, digest in zip(sides.scored.table["name"], sides.scored.table["digest"], strict=True):
        if digest in by_digest:
            leaks.found.append(f"{name} has the same content as {by_digest[digest]} of 'train'.")
    train = patients_of(sides.train, options.by)
    scored = patients_of(sides.scored, options.by)
    shared = sorted(set(train) & set(scored) - {""})
    if shared:
        noun = "Patient" if len(shared) == 1 else "Patients"
        leaks.found.append(
            f"{noun} {preview(shared, 10)} on both sides: 'train' and {options.split!r}."
        )
    n_unknown = [*train, *scored].count("")
    if n_unknown:
        leaks.unchecked.append(
            f"{count(n_unknown, 'store')} have no patient in the column {options.by!r}, so nothing "
            "shows that their patients are on one side."
        )


def _compare_training(
    sides: Sides, training: TrainingRecord, options: EvaluationOptions, leaks: Leaks
) -> None:
    """Find scored slides, and other slides of their patients, that trained the model."""
    is_seen = dict(_find_seen(sides.whole, training))
    patients = dict(
        zip(sides.whole.table["name"], patients_of(sides.whole, options.by), strict=True)
    )
    seen_patients = {patients[name] for name in is_seen} | set(_patients_on_disk(training))
    for name in sides.scored.table["name"]:
        if name in is_seen:
            leaks.found.append(f"{name}: {is_seen[name]}.")
        elif patients[name] and patients[name] in seen_patients:
            leaks.found.append(
                f"{name}: the model has seen other slides of patient {patients[name]}."
            )
    leaks.unchecked += _list_unknown(sides, training)


def _find_seen(collection: Collection, training: TrainingRecord) -> Iterator[tuple[str, str]]:
    """Yield the name of each store that trained the model, and how that is known."""
    rows = zip(collection.table["name"], collection.table["digest"], collection, strict=True)
    for name, digest, path in rows:
        file_name = file_name_of(path)
        if digest in training.digests:
            yield name, "the model was trained on this slide, or its weights were chosen on it"
        elif training.mentions(file_name):
            yield name, f"the card of the model names {file_name} as a training store"
        elif file_name in training.corpus:
            yield name, f"the gene means of the model were fitted to a store {file_name}"


def _patients_on_disk(training: TrainingRecord) -> Iterator[str]:
    """Yield the patients of training stores that are still at their paths."""
    for path in _local_stores(training):
        yield from path.patients


def _local_stores(training: TrainingRecord) -> Iterator[SpotStore]:
    for path in training.paths:
        if as_url(path) is None and Path(path).is_dir():
            try:
                store = SpotStore(path, training.table_key)
            except ValueError:  # something else is there now
                continue
            if store.digest in training.digests:
                yield store


def _list_unknown(sides: Sides, training: TrainingRecord) -> Iterator[str]:
    """Yield what the record of a training leaves open."""
    at_hand = set(sides.whole.table["digest"]) | {store.digest for store in _local_stores(training)}
    n_unknown = len(training.digests - at_hand)
    if n_unknown:
        yield (
            f"{count(n_unknown, 'training store')} of the model are neither in the collection nor "
            "at their paths, so their patients are unknown."
        )
    if not training.digests and not training.stages:
        yield (
            "The model does not record its training slides, so nothing shows that the scored "
            "slides are new to it."
        )
    if training.stages:
        yield (
            "Training stores of these stages are known by their file names only: "
            f"{preview(training.stages)}."
        )
    if training.other_weights:
        yield f"The slides behind this are not recorded: {'; '.join(training.other_weights)}."
    n_more = sum(int(number) for line in training.lines for number, _ in MORE.findall(line))
    if n_more:
        yield f"The card of the model leaves out the names of {count(n_more, 'training store')}."


def _compare_content(
    sides: Sides, training: TrainingRecord, options: EvaluationOptions, leaks: Leaks
) -> None:
    """Find near-duplicates of scored stores among references and training stores."""
    if not options.find_duplicates:
        leaks.unchecked.append("Near-duplicates between the sides were not searched.")
        return
    on_sides = {*sides.train.table["digest"], *sides.scored.table["digest"]}
    others = [store.path for store in _local_stores(training) if store.digest not in on_sides]
    side_of = {str(path): "'train'" for path in sides.train}
    side_of |= {str(path): "the training of the model" for path in others}
    scored = {str(path) for path in sides.scored}
    pairs = find_duplicates([*side_of, *scored], table_key=options.table_key)
    for pair in pairs.itertuples():
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if one in scored and other in side_of and other not in scored:
                leaks.found.append(
                    f"{file_name_of(one)} and {file_name_of(other)} of {side_of[other]}: "
                    f"{pair.kind}, share {pair.share:.0%} ({pair.note})."
                )


def file_name_of(path: str | Path) -> str:
    """Return the file name of a path or URL."""
    url = as_url(path)
    return Path(path).name if url is None else url_name(url)
