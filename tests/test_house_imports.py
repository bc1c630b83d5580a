"""The floors of the house: a file imports only from floors below its own, and the door is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "stp"

FLOORS = {
    -1: {"_keys", "_version"},  # the ground: names alone
    0: {"_aliases", "_best", "_counts", "_extras", "_files", "_gene_names", "_levels", "_log", "_parquet", "_programs"}
    | {"_provenance", "_ranks", "_replace", "_scale", "_splits", "_table", "_threads", "_windows"},
    1: {
        "_profiles",
        "augmentation",
        "losses",
        "masking",
        "metrics",
        "neighborhoods",
        "patches",
        "pathways",
        "retrieval",
    }
    | {"tokens", "vocabulary"},
    2: {"data", "models"},
    3: {"train"},
    4: {"datasets", "get", "io", "pl", "tl"},
    5: {"__init__", "cli", "demo", "doctor", "embedding", "reference_check"},
}
FLOOR = {unit: floor for floor, units in FLOORS.items() for unit in units}
ROOF = 5
SIBLINGS = {(4, 3)}  # importer, imported: verbs do not train, and training calls no verb

HEAVY = ("anndata", "scanpy", "spatialdata", "squidpy", "timm", "torch")
SECONDS = 0.3

FILES = sorted(SRC.rglob("*.py"))


def unit_of(file: Path) -> str:
    """Name what the floors speak of: a module, or the package that a file belongs to."""
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def imported(source: str, package: str) -> set[str]:
    """Name the modules that a file imports anywhere: at its top, in functions, or for type checking only."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, [home, node.module]))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def units(names: set[str]) -> set[str]:
    """Keep what is of stp, as units; a name that is none of them is taken through the door."""
    parts = [name.split(".") for name in names]
    return {part[1] if len(part) > 1 and part[1] in FLOOR else "__init__" for part in parts if part[0] == "stp"}


def violations(unit: str, names: set[str]) -> list[str]:
    """List the units that one of this floor must not import."""

    def allowed(other: str) -> bool:
        floors = FLOOR[unit], FLOOR[other]
        return other == unit or floors[0] == ROOF or (floors[1] < floors[0] and floors not in SIBLINGS)

    return sorted(other for other in units(names) if not allowed(other))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SRC)))
def test_imports_from_floors_below(file: Path) -> None:
    package = ".".join(["stp", *file.relative_to(SRC).parts[:-1]])
    assert unit_of(file) in FLOOR, "a new module needs a floor: FLOORS in this file"
    assert not violations(unit_of(file), imported(file.read_text(), package))


def test_every_floor_is_inhabited() -> None:
    there = {unit_of(file) for file in FILES}
    assert set(FLOOR) <= there, "FLOORS lists a module that is gone"


@pytest.mark.parametrize(
    ("unit", "source", "expected"),
    [
        pytest.param("tl", "from stp import _keys\nimport numpy", [], id="below"),
        pytest.param("tl", "def f():\n    from stp.train import align", ["train"], id="sibling-in-function"),
        pytest.param("pl", "if TYPE_CHECKING:\n    import stp.get", ["get"], id="same-floor-for-types"),
        pytest.param("models", "from stp.data.slides import Slide", ["data"], id="same-floor"),
        pytest.param("pl", "from stp.pl._spots import draw_tissue\nfrom . import _spots", [], id="own-package"),
        pytest.param("tl", "from ..pl import spots", ["pl"], id="relative"),
        pytest.param("tokens", "from stp import Vocabulary", ["__init__"], id="through-the-door"),
        pytest.param("cli", "import stp\nfrom stp import train, tl", [], id="roof"),
    ],
)
def test_the_check_itself(unit: str, source: str, expected: list[str]) -> None:
    assert violations(unit, imported(source, f"stp.{unit}")) == expected


def test_door_is_light() -> None:
    """The best of five runs: other work on the machine only ever adds to the time."""
    code = (
        "import sys, time; start = time.perf_counter(); import stp; seconds = time.perf_counter() - start\n"
        f"print(seconds, *[name for name in {HEAVY} if name in sys.modules])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    loaded = {name for run in runs for name in run.stdout.split()[1:]}
    assert not loaded
    assert min(float(run.stdout.split()[0]) for run in runs) < SECONDS


def test_door_lists_what_it_opens() -> None:
    import stp

    assert sorted(stp.__all__) == dir(stp)
    assert all(getattr(stp, name) is not None for name in stp.__all__)
    with pytest.raises(AttributeError, match="no_such_part"):
        stp.no_such_part  # noqa: B018
