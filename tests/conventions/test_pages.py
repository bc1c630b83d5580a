"""The Python blocks of README and docs, the tutorials, and the examples of docstrings run."""

import ast
import doctest
import inspect
import json
import re
from pathlib import Path

import pytest

import stp

ROOT = Path(__file__).parents[2]
NOT_RUN = re.compile(r"# not run by the tests: \w+")
FENCED = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "_build" not in page.parts
]
REAL_SECTIONS = ROOT / "tutorials" / "real_sections.ipynb"  # the others run on the demo's slides
TUTORIALS = sorted({*(ROOT / "tutorials").glob("*.ipynb")} - {REAL_SECTIONS})
SLIDES_TO_BIOMARKERS = ROOT / "tutorials" / "slides_to_biomarkers.ipynb"  # makes its own slides
UNTESTED_BLOCK = re.compile(r"^```\{code-(?:block|cell)\}", re.MULTILINE)
WITH_CODE = [page for page in PAGES if FENCED.search(page.read_text())]


@pytest.fixture(autouse=True)
def close_figures():
    """Close the figures of squidpy and scanpy."""
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def keep_settings():
    """Undo what a page or a tutorial changed in `stp.settings`."""
    verbosity = stp.settings.verbosity
    progress = stp.settings.progress
    yield
    stp.settings.verbosity = verbosity
    stp.settings.progress = progress


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.filterwarnings("default")  # pages show what users see, warnings included
def test_blocks_of_pages_run(page, names):
    blocks = FENCED.findall(page.read_text())
    for number, block in enumerate(blocks):
        if not NOT_RUN.match(block):
            code = compile(
                block, f"{page.name}, block {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            )
            exec(code, names)


def test_every_python_block_is_tested_or_marked():
    blocks = [block for page in PAGES for block in FENCED.findall(page.read_text())]
    assert not [page for page in PAGES if UNTESTED_BLOCK.search(page.read_text())]
    assert len([block for block in blocks if NOT_RUN.match(block)]) < len(blocks) / 3


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")
def test_tutorials_run(tutorial, names, workplace, tmp_path, monkeypatch):
    (tmp_path / "demo").symlink_to(workplace / "demo")
    monkeypatch.chdir(tmp_path)  # runs of pages and examples have the same names
    cells = json.loads(tutorial.read_text())["cells"]
    assert any(
        "image/png" in output.get("data", {})
        for cell in cells
        for output in cell.get("outputs", ())
    )
    assert tutorial.stat().st_size < 2**20
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{tutorial.name}, cell {number}", "exec"), names)


@pytest.fixture(scope="module")
def sections(demo, real, tmp_path_factory):
    """Write two sections of a patient under the names of the demo's stores.

    They have the genes of the demo's Stamp, which is linked.
    """
    import anndata

    folder = tmp_path_factory.mktemp("sections") / "demo"
    (folder / "stores").mkdir(parents=True)
    (folder / "stamp").symlink_to(demo / "stamp")
    vocabulary = stp.Vocabulary.load(demo / "stamp" / "vocabulary.parquet")
    tables = {
        section: anndata.read_h5ad(real("her2st", f"{section}.h5ad")) for section in ("C4", "C5")
    }
    shared = tables["C4"].var_names.intersection(tables["C5"].var_names)
    genes = shared[vocabulary.encode(shared) >= 0]
    names = {"C4": ("held_out", "validation"), "C5": ("train_0", "train_1", "train_2")}
    for section, slides in names.items():
        adata = tables[section][:, genes].copy()
        adata.obs["domain"] = (adata.obs["array_row"] > adata.obs["array_row"].median()).map(
            {True: "a", False: "b"}
        )
        picture = real("her2st", f"{section}.jpg")
        sdata = stp.io.from_anndata(
            adata, picture, um_per_px=float(adata.uns["um_per_px"]), name=section
        )
        for name in slides:
            stp.io.write_store(sdata, folder / "stores" / f"{name}.zarr", patch_um_per_px=1.75)
            sdata.tables["table"] = sdata["table"][1:].copy()  # so that no two have one content
    return folder


@pytest.mark.parametrize(
    "tutorial", sorted({*TUTORIALS} - {SLIDES_TO_BIOMARKERS}), ids=lambda path: path.stem
)
@pytest.mark.filterwarnings("default")
def test_tutorials_run_on_real_slides(tutorial, sections, real, tmp_path, monkeypatch):
    """Real slides have the names of the demo's slides; the slide without counts is a real scan."""
    (tmp_path / "demo").symlink_to(sections)
    monkeypatch.chdir(tmp_path)
    cells = [
        cell for cell in json.loads(tutorial.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    variables = {}
    if tutorial.stem == "slide_without_counts":
        variables["path"] = real("wsi", "CMU-1-Small-Region.svs")
        cells = cells[1:]  # the first cell sets the path
    for number, cell in enumerate(cells):
        code = compile("".join(cell["source"]), f"{tutorial.name}, cell {number}", "exec")
        exec(code, variables)


@pytest.mark.parametrize("tutorial", [*TUTORIALS, REAL_SECTIONS], ids=lambda path: path.stem)
def test_outputs_of_tutorials_name_no_folder_of_the_author(tutorial):
    cells = json.loads(tutorial.read_text())["cells"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    texts = ["".join(data["text/plain"]) for data in outputs if "text/plain" in data]
    assert texts
    assert not [text for text in texts if re.search(r"(?<![\w:/<.])/\w+/\w+", text)]


def test_tutorial_on_real_sections_shows_no_tissue():
    """Its data have no license, so its outputs are numbers, and plots of a table alone."""
    cells = json.loads(REAL_SECTIONS.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    figures = re.findall(r"pl\.(\w+)\((\w*)", code)
    assert figures
    assert not {name for name, _ in figures} & {"patches", "tissue", "retrieval"}
    assert "sdata" not in {data for _, data in figures}
    assert REAL_SECTIONS.stat().st_size < 300_000


@pytest.mark.extended
@pytest.mark.filterwarnings("default")
def test_tutorial_on_real_sections_runs(real, tmp_path, monkeypatch):
    (tmp_path / "her2st").symlink_to(real("her2st", "C2.h5ad").parent)
    monkeypatch.chdir(tmp_path)
    variables = {}
    for number, cell in enumerate(json.loads(REAL_SECTIONS.read_text())["cells"]):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec(compile(source, f"{REAL_SECTIONS.name}, cell {number}", "exec"), variables)
    scores = variables["scores"]
    assert scores["ridge"]["PCC-V"] > 0.1
    assert scores["stp_expression"]["PCC-V"] > 0  # of untrained weights: -0.1


class Checker(doctest.OutputChecker):
    """Accept any output if the example shows none: other packages print their progress."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def public_objects() -> dict[str, object]:
    """Return all public functions and classes by name."""
    objects: dict[str, object] = {}
    for name in stp.__all__:
        part = getattr(stp, name)
        if inspect.ismodule(part):
            objects |= {f"{name}.{inner}": getattr(part, inner) for inner in part.__all__}
        elif not name.startswith("_"):
            objects[name] = part
    return objects


@pytest.mark.parametrize("name", sorted(public_objects()))
@pytest.mark.filterwarnings("default")
def test_examples_of_the_reference_run(name, names):
    finder = doctest.DocTestFinder(recurse=False)
    tests = finder.find(public_objects()[name], name, globs=names)
    tests = [test for test in tests if test.examples]
    assert tests, f"give stp.{name} an Examples section"
    runner = doctest.DocTestRunner(
        Checker(), verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    output: list[str] = []
    for test in tests:
        runner.run(test, out=output.append)
    assert not runner.failures, "".join(output)


def test_links_of_readme_lead_somewhere():
    """Sphinx checks the links within docs. This test checks those of README."""
    for target in re.findall(r"\]\(((?!https?://)[^)]+)\)", (ROOT / "README.md").read_text()):
        path, _, anchor = target.partition("#")
        text = (ROOT / path).read_text() if (ROOT / path).suffix == ".md" else ""
        headings = {
            re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines()
        }
        assert (ROOT / path).exists() and (not anchor or anchor in headings), target
