"""How the documentation is built: `python -m sphinx -W docs docs/_build/html`."""

import os
import sys
import tempfile
import warnings
from importlib.metadata import version as version_of
from pathlib import Path

from stp.models import GeneEncoderConfig, ImageEncoderConfig
from stp.train import AlignConfig, PretrainConfig

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import benchmark_pages  # noqa: E402
import config_fields  # noqa: E402
import figures  # noqa: E402
from tests import bad_input  # noqa: E402

project = "stp"
author = "stp developers"
copyright = author
version = release = version_of("stp-spatial")

warnings.filterwarnings(
    "ignore", module="sphinx_autodoc_typehints"
)  # it calls what Sphinx 10 will remove

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "scanpydoc.elegant_typehints",
    "sphinx_copybutton",
    "sphinx_design",
]
default_role = "literal"
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "generated/benchmarks/README.md"]  # which is included
figures.main(HERE / "generated")
benchmark_pages.write_pages(HERE.parent / "benchmarks", HERE / "generated" / "benchmarks")
with tempfile.TemporaryDirectory() as folder:
    (HERE / "generated" / "errors.txt").write_text(bad_input.page(Path(folder)))

# Names of other projects become links. Offline this is left out, because a missing inventory is a
# warning, and a warning is an error here.
intersphinx_mapping = {}
if not os.environ.get("STP_DOCS_OFFLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "spatialdata": ("https://spatialdata.scverse.org/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

# Every reference must resolve, except names of private parts and, offline, other projects.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:class",
        r"stp\.(_\w+|models\.saved\.pretrained|genes\.(matches|names|named_genes)"
        r"|images\.(levels|patches)|models\.patch_encoder|train\.engine)\..*"
        r"|stp\.(data\.collection_selection|models\.slide_attention|train\.labels)\..*"
        r"|stp\.models\.image\.ImageOutput",
    )
]
if not intersphinx_mapping:
    nitpick_ignore_regex.append(("py:.*", r"(?!stp\.).*"))

napoleon_google_docstring = False
napoleon_use_rtype = True
autodoc_member_order = "bysource"
typehints_defaults = "braces"
typehints_document_rtype_none = False
# As defaults, configs are shown by name: their fields have an entry of their own.
for config in (AlignConfig, GeneEncoderConfig, ImageEncoderConfig, PretrainConfig):
    config.__repr__ = lambda self: f"{type(self).__name__}()"
always_use_bars_union = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tutorials are committed with their outputs, and run by the tests

html_theme = "sphinx_book_theme"
html_title = "stp"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
copybutton_selector = "div.highlight pre:not(.cell_output pre)"  # code, and not what it prints
html_theme_options = {"show_toc_level": 3, "use_download_button": False, "navbar_persistent": []}


def setup(app):
    """Complete the docstrings of configs before napoleon reads them."""
    app.connect("autodoc-process-docstring", config_fields.add_inherited, priority=100)
