"""The conventions of the public interface, as scanpy tests its own, and what the documentation says of it."""

import ast
import importlib
import inspect
import re
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
    "tl": {"adata", "sdata"},
    "pl": {"adata", "sdata", "run_dir"},
    "io": {"adata", "sdata", "path"},
    "get": {"adata"},
}
MODULES = {name: getattr(stp, name) for name in stp.__all__ if inspect.ismodule(getattr(stp, name))}
MOST_POSITIONAL = 3


def names(module: str) -> list[str]:
    """List the public names of a module; `test_modules_list_their_names` sees to it that it has some."""
    return list(getattr(MODULES[module], "__all__", ()))


def functions(*modules: str) -> list:
    """List the public functions of these modules as test parameters."""
    found = [
        (module, public, getattr(MODULES[module], public))
        for module in modules
        for public in names(module)
    ]
    return [
        pytest.param(f, id=f"{module}.{public}")
        for module, public, f in found
        if inspect.isfunction(f)
    ]


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def sections(function: Callable) -> dict[str, str]:
    """Split a NumPy docstring into its sections."""
    parts = re.split(r"^(\w[\w ]*)\n-+$", inspect.getdoc(function) or "", flags=re.MULTILINE)
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
    assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= MOST_POSITIONAL


@pytest.mark.parametrize("function", functions("tl", "pl", "io", "get", "train"))
def test_options_are_keyword_only(function: Callable) -> None:
    options = [p for p in parameters(function).values() if p.default is not inspect.Parameter.empty]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in options)


@pytest.mark.parametrize("function", functions("tl"))
def test_verbs(function: Callable) -> None:
    of = parameters(function)
    keyword_only = {name for name, p in of.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert {"copy", "key_added", "table_key"} <= keyword_only
    assert of["copy"].default is False
    assert of["table_key"].default == "table"
    assert isinstance(of["key_added"].default, str)
    assert inspect.signature(function).return_annotation == "AnnData | None"


@pytest.mark.parametrize("function", functions(*MODULES))
def test_docstrings(function: Callable) -> None:
    said = sections(function)
    assert said["Summary"].strip()
    assert documented(said.get("Parameters", "")) == list(parameters(function))
    returns = inspect.signature(function).return_annotation
    assert returns is not inspect.Signature.empty
    assert (returns is None) != bool(said.get("Returns", "").strip())


@pytest.mark.parametrize("name", [name for name in stp.__all__ if not name.startswith("_")])
def test_classes_are_documented(name: str) -> None:
    part = getattr(stp, name)
    public = [getattr(part, inner) for inner in names(name)] if name in MODULES else [part]
    for one in filter(inspect.isclass, public):
        own = {inner: member for inner, member in vars(one).items() if not inner.startswith("_")}
        silent = [
            inner
            for inner, member in own.items()
            if hasattr(member, "__get__") and not inspect.getdoc(member)
        ]
        assert inspect.getdoc(one) and not silent, f"{one.__name__}: {silent}"


def test_every_public_name_is_in_the_reference() -> None:
    public = {f"stp.{name}" for name in stp.__all__ if inspect.isclass(getattr(stp, name))}
    public |= {f"stp.{name}.{inner}" for name in MODULES for inner in names(name)}
    pages = "\n".join(page.read_text() for page in sorted((DOCS / "api").glob("*.md")))
    described = set(
        re.findall(r"^   (stp\.[\w.]+)$", pages, flags=re.MULTILINE)
    )  # rows of autosummary tables
    assert not public - described, "add these to docs/api"
    for name in described - public:  # what public classes build on
        module, attribute = name.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), attribute), name


def code(page: str) -> ast.Module:
    """Join the Python blocks of a page."""
    blocks = re.findall(
        r"^```(?:python|\{code-(?:block|cell)\} python)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    return ast.parse("\n".join(blocks))


def strangers(tree: ast.Module) -> list[str]:
    """List what a page takes from stp though it is not there, or calls as it cannot be called."""
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
def test_pages_call_what_there_is(page: Path) -> None:
    assert not strangers(code(page.read_text()))


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
    assert {line.split(":")[0] for line in strangers(code(page))} == {
        "stp.tl.tokenize(adata, vocabulary, layers='counts')",
        "stp.tl.tokenise(adata)",
        "stp.tl.tokenise",
        "Phase(epoch=3)",
    }
