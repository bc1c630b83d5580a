"""Conventions of the public interface, as scanpy tests its own, and calls in the documentation."""

import ast
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

import stp

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "tutorials").glob("*.md")),
]
DATA = {
    "tl": {"adata", "sdata", "cohort", "collection", "stores"},
    "pl": {"adata", "sdata", "cohort", "run_dir"},
    "io": {
        "adata",
        "sdata",
        "cohort",
        "manifest",
        "name",
        "path",
        "paths",
        "root",
        "slides",
        "stores",
        "table",
    },
    "get": {"adata", "stores", "cohort"},
}
MODULES = {name: getattr(stp, name) for name in stp.__all__ if inspect.ismodule(getattr(stp, name))}
MAX_POSITIONAL = 3


def names(module: str) -> list[str]:
    """List the public names of a module; a test checks that there are any."""
    return list(getattr(MODULES[module], "__all__", ()))


def functions(*modules: str) -> list:
    """List the public functions of these modules as test parameters."""
    parts = {
        f"{module}.{public}": getattr(MODULES[module], public)
        for module in modules
        for public in names(module)
    }
    return [pytest.param(part, id=name) for name, part in parts.items() if inspect.isfunction(part)]


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def sections(part: object) -> dict[str, str]:
    """Split a NumPy docstring into its sections."""
    parts = re.split(r"^(\w[\w ]*)\n-+$", inspect.getdoc(part) or "", flags=re.MULTILINE)
    return dict(zip(["Summary", *parts[1::2]], parts[::2], strict=True))


def documented(section: str) -> list[str]:
    """List the names that a Parameters section describes; several may share a description."""
    lines = [line for line in section.splitlines() if line and not line[0].isspace()]
    return [name.strip(" *") for line in lines for name in line.split(":")[0].split(",")]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_list_their_names(name: str) -> None:
    assert MODULES[name].__doc__
    assert names(name), "give the module an __all__"
    assert names(name) == sorted(names(name))
    assert all(hasattr(MODULES[name], public) for public in names(name))


@pytest.mark.parametrize("name", sorted(DATA))
def test_data_come_first(name: str) -> None:
    for public in names(name):
        first = next(iter(parameters(getattr(MODULES[name], public)).values()))
        assert first.name in DATA[name], public
        assert first.default is inspect.Parameter.empty, public


@pytest.mark.parametrize(
    "function", functions("tl", "pl", "io", "get", "train", "metrics", "datasets")
)
def test_few_positional_parameters(function: Callable) -> None:
    kinds = [parameter.kind for parameter in parameters(function).values()]
    assert inspect.Parameter.VAR_POSITIONAL not in kinds
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= MAX_POSITIONAL


@pytest.mark.parametrize("function", functions("tl", "pl", "io", "get", "train"))
def test_options_are_keyword_only(function: Callable) -> None:
    options = [p for p in parameters(function).values() if p.default is not inspect.Parameter.empty]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in options)


@pytest.mark.parametrize("function", functions("tl"))
def test_verbs(function: Callable) -> None:
    by_name = parameters(function)
    if "collection" in by_name:
        return  # verbs on tables of stores return new tables
    keyword_only = {name for name, p in by_name.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert {"copy", "key_added"} <= keyword_only
    assert by_name["copy"].default is False
    if "cohort" not in by_name:  # which is an AnnData
        assert "table_key" in keyword_only
        assert by_name["table_key"].default == "table"
    assert isinstance(by_name["key_added"].default, str)
    assert inspect.signature(function).return_annotation == "AnnData | None"


@pytest.mark.parametrize("function", functions(*MODULES))
def test_docstrings(function: Callable) -> None:
    texts = sections(function)
    assert texts["Summary"].strip()
    assert documented(texts.get("Parameters", "")) == list(parameters(function))
    returns = inspect.signature(function).return_annotation
    assert returns is not inspect.Signature.empty
    assert (returns is None) != bool(texts.get("Returns", "").strip())


@pytest.mark.parametrize("name", [name for name in stp.__all__ if not name.startswith("_")])
def test_classes_are_documented(name: str) -> None:
    part = getattr(stp, name)
    public = [getattr(part, inner) for inner in names(name)] if name in MODULES else [part]
    for public_class in filter(inspect.isclass, public):
        members = {
            inner: member
            for inner, member in vars(public_class).items()
            if not inner.startswith("_") and hasattr(member, "__get__")
        }
        undocumented = [inner for inner, member in members.items() if not inspect.getdoc(member)]
        assert inspect.getdoc(public_class), public_class.__name__
        assert not undocumented, f"{public_class.__name__}: {undocumented}"


# Parameters that mean different things in different places, and what differs.
DIFFERENT_TEXTS = {
    "adata": "what the table must contain",
    "batch_size": "in training it counts per process",
    "channel_order": "of any encoder or of the released weights",
    "by": "tiles, or stores of a patient",
    "cohort": "made by a reader, or what the table must contain",
    "color": "spots or tiles",
    "copy": "of the table, or a new table",
    "config": "a size or settings of a training",
    "classes": "of a model, or what a training takes by default",
    "context_length": "of a model or of tokens",
    "coordinate_system": "shared by spots and image, or of an image alone",
    "epochs": "passes over spots or patients",
    "event": "of a model, or what the column contains",
    "features": "of a config, or an array of tiles",
    "folder": "of a collection or of a new cohort",
    "fold_key": "what happens with patients without a fold",
    "client": "what its workers do",
    "genes": "of a prediction, a program, a score or a plot",
    "gene_sets": "a file, or names of genes",
    "hidden": "a width, or outputs of a block",
    "image": "a file or the configuration of an encoder",
    "image_key": "a name, or also a mapping from region to image",
    "images": "pixels, or also features",
    "key": "of a prediction or of other results",
    "keys": "of entries or of predictions",
    "kind": "of a target or of a model",
    "label_key": "what happens with the labels",
    "layer": "raw counts, or any values of references",
    "missing": "spots without coordinates, or rows of a cohort",
    "manifest": "a table of slides to read, or a log of stores to write",
    "model": "what it must be able to do",
    "n_genes": "that are scored or drawn",
    "n_neighbors": "references of a prediction, or examples of either kind",
    "n_folds": "of random folds, or of all folds",
    "name": "of a slide or of a backbone",
    "out": "of tile stores or of a collection",
    "output_dir": "what is written there",
    "overwrite": "a store or a split",
    "path": "a file, a folder or a store",
    "patients": "ids, or whether to write their hashes",
    "patient_key": "of two tables or of a cohort",
    "pooling": "of the outputs of a gene encoder or of an image encoder",
    "positive": "what it is used for",
    "precision": "of computations or of a file",
    "predicted": "classes or expression",
    "reference": "what the spots must have",
    "reference_rep": "among the references or on the same slide",
    "probabilities": "of one class or of several",
    "references": "vectors or slides",
    "root": "of feature files or of HEST-1k",
    "sdata": "what the SpatialData must contain",
    "seed": "what is random",
    "size": "of a patch or a spot",
    "size_um": "of a slide, or of squares",
    "slide_key": "what happens with the slides",
    "slides": "a table, or names of slides",
    "stores": "what the stores must contain",
    "strata": "of resamples or of a comparison",
    "target": "what happens without it",
    "targets": "of masked genes or of an alignment",
    "temperature": "of probabilities, or of losses in training",
    "tile_um": "needed, recorded by a file, or for slides with tiles",
    "tissue": "polygons of a slide, or a folder of those of many",
    "title": "of panels or of a page",
    "tokens": "of a spot, or also features",
    "um_per_px": "of an image, or of patches",
    "use_rep": "features or aligned vectors",
    "validation": "the score that is watched",
    "vocabulary": "whether means are needed",
    "width": "of features, or of tokens too",
}


# How the texts of some of them begin everywhere.
BEGINNINGS = {
    "label_key": "Column of `obs` with ",
    "seed": "Random seed for ",
    "slide_key": "Column of ",
}


def public_parts() -> dict[str, object]:
    """Map the name of each public function, class and method to itself."""
    parts = {
        f"{module}.{name}": getattr(MODULES[module], name)
        for module in MODULES
        for name in names(module)
    }
    parts |= {name: getattr(stp, name) for name in stp.__all__ if name not in MODULES}
    for owner, part in list(parts.items()):
        members = vars(part) if inspect.isclass(part) else ()
        parts |= {f"{owner}.{name}": getattr(part, name) for name in members if name[0] != "_"}
    return parts


def parameter_texts() -> dict[str, dict[str, list[str]]]:
    """Map each parameter to its texts, and each text to the public names that have it."""
    texts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for owner, part in public_parts().items():
        section = sections(part).get("Parameters", "")
        for header, text in re.findall(r"^(\S.*)\n((?: .*\n*)+)", section, flags=re.MULTILINE):
            for parameter in documented(header):
                texts[parameter][" ".join(text.split())].append(owner)
    return texts


def test_a_parameter_has_the_same_text_everywhere() -> None:
    several = {name: dict(texts) for name, texts in parameter_texts().items() if len(texts) > 1}
    unlisted = {name: texts for name, texts in several.items() if name not in DIFFERENT_TEXTS}
    assert not unlisted
    assert not set(DIFFERENT_TEXTS) - set(several), "these have one text: remove them from the list"


@pytest.mark.parametrize("parameter", sorted(BEGINNINGS))
def test_texts_of_a_parameter_begin_alike(parameter: str) -> None:
    texts = parameter_texts()[parameter]
    different = {
        text: owners for text, owners in texts.items() if not text.startswith(BEGINNINGS[parameter])
    }
    assert not different


def test_every_public_name_is_in_the_reference() -> None:
    public = {f"stp.{name}" for name in stp.__all__ if inspect.isclass(getattr(stp, name))}
    public |= {f"stp.{name}.{inner}" for name in MODULES for inner in names(name)}
    pages = "\n".join(page.read_text() for page in sorted((DOCS / "api").glob("*.md")))
    described = set(
        re.findall(r"^   (stp\.[\w.]+)$", pages, flags=re.MULTILINE)
    )  # rows of autosummary tables
    assert not public - described, "add these to docs/api"
    for name in described - public:  # base classes of public ones
        module, attribute = name.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), attribute), name


def test_first_lines_are_one_sentence() -> None:
    """Tables of the reference show a docstring up to its first period with a space after it."""
    firsts = {
        f"{module}.{name}": inspect.getdoc(getattr(part, name)).splitlines()[0]
        for module, part in MODULES.items()
        for name in names(module)
    }
    assert len(firsts) > 50
    assert not {name: line for name, line in firsts.items() if ". " in line}


def code(page: str) -> ast.Module:
    """Join the Python blocks of a page."""
    blocks = re.findall(
        r"^```(?:python|\{code-(?:block|cell)\} python)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    return ast.parse("\n".join(blocks))


def wrong_calls(tree: ast.Module) -> list[str]:
    """List what a page uses of stp although it does not exist, and calls that would fail."""
    named = {"stp": stp}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "stp":
            module = importlib.import_module(node.module)
            named |= {alias.name: getattr(module, alias.name) for alias in node.names}

    def find(node: ast.expr) -> object:
        if isinstance(node, ast.Attribute) and (owner := find(node.value)) is not None:
            return getattr(owner, node.attr)
        return named.get(node.id) if isinstance(node, ast.Name) else None

    wrong = []
    for node in ast.walk(tree):
        try:
            if isinstance(node, ast.Attribute):
                find(node)
            elif isinstance(node, ast.Call) and (called := find(node.func)) is not None:
                inspect.signature(called).bind(
                    *node.args, **{word.arg: word.value for word in node.keywords}
                )
        except (AttributeError, TypeError) as error:
            wrong.append(f"{ast.unparse(node)}: {error}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_call_only_what_exists(page: Path) -> None:
    assert not wrong_calls(code(page.read_text()))


def test_the_check_of_pages_itself() -> None:
    page = """
```python
from stp.train import Phase
stp.tl.tokenize(adata, vocabulary, layers="counts")
stp.tl.tokenise(adata)
Phase(epoch=3)
stp.Vocabulary.default().fit(stores)
```
"""
    assert {line.split(":")[0] for line in wrong_calls(code(page))} == {
        "stp.tl.tokenize(adata, vocabulary, layers='counts')",
        "stp.tl.tokenise(adata)",
        "stp.tl.tokenise",
        "Phase(epoch=3)",
    }
