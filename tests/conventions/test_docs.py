"""What building the documentation adds: inherited config fields, and pages of benchmarks."""

import dataclasses
import importlib.util
import inspect
from pathlib import Path

import pytest

import stp

DOCS = Path(__file__).parents[2] / "docs"
CONFIGS = ("PretrainConfig", "AlignConfig", "AdaptConfig", "RegressionConfig", "SlideConfig")


def load(name: str):
    """Import a file of docs, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CONFIGS)
def test_pages_of_configs_list_each_field_once(name):
    config = getattr(stp.train, name)
    lines = inspect.getdoc(config).splitlines()
    load("config_fields").add_inherited(None, "class", name, config, None, lines)
    documented = [line for line in lines[: lines.index("Examples")] if line.isidentifier()]
    documented.remove("Parameters")
    fields = {field.name for field in dataclasses.fields(config)}
    assert sorted(documented) == sorted(fields)


def test_a_class_without_parameters_stays_as_it_is():
    lines = ["A plain class."]
    load("config_fields").add_inherited(None, "class", "Path", Path, None, lines)
    assert lines == ["A plain class."]


def test_pages_of_benchmarks_link_to_pages_of_the_site(tmp_path):
    source = tmp_path / "benchmarks"
    (source / "results" / "speed").mkdir(parents=True)
    (source / "README.md").write_text(
        "| page | command | met |\n| --- | --- | --- |\n| [a](results/speed/a.md) | `a` |  |\n"
    )
    (source / "results" / "speed" / "a.md").write_text("[train](../../../docs/howto/train.md)")
    (source / "results" / "speed" / "a.json").write_text("{}")
    load("benchmark_pages").write_pages(source, tmp_path / "copy")
    copies = {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*.*")}
    assert copies == {Path("README.md"), Path("results/speed/a.md")}
    index = (tmp_path / "copy" / "README.md").read_text()
    assert index == "| page | met |\n| --- | --- |\n| [a](results/speed/a.md) |  |\n"
    page = (tmp_path / "copy" / "results" / "speed" / "a.md").read_text()
    assert page == "[train](/howto/train.md)"


def test_links_of_benchmarks_into_docs_lead_somewhere(tmp_path):
    load("benchmark_pages").write_pages(DOCS.parent / "benchmarks", tmp_path)
    pages = "\n".join(page.read_text() for page in tmp_path.rglob("*.md"))
    targets = [part.split(")")[0].split("#")[0] for part in pages.split("](/")[1:]]
    assert targets
    assert not [target for target in targets if not (DOCS / target).exists()]
