"""How the documentation is built: `python -m sphinx -W docs docs/_build/html`."""

import os
import warnings
from importlib.metadata import version as version_of

from stp.models import GeneEncoderConfig, ImageEncoderConfig
from stp.train import AlignConfig, PretrainConfig

project = "stp"
author = "stp developers"
copyright = author
version = release = version_of("stp-spatial")

warnings.filterwarnings("ignore", module="sphinx_autodoc_typehints")  # it calls what Sphinx 10 will remove

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "scanpydoc.elegant_typehints",
]
default_role = "literal"

# Names of other projects become links, unless nothing can be fetched: a missing inventory is a warning,
# and a warning is an error here.
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

napoleon_google_docstring = False
napoleon_use_rtype = True
autodoc_member_order = "bysource"
typehints_defaults = "braces"
# As defaults, configs are shown by name: their fields have an entry of their own.
for config in (AlignConfig, GeneEncoderConfig, ImageEncoderConfig, PretrainConfig):
    config.__repr__ = lambda self: f"{type(self).__name__}()"
always_use_bars_union = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# The tutorial's tensors are so small that threads would mostly wait for each other, above all on a busy machine.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "remove"  # warnings of other packages

html_theme = "sphinx_book_theme"
html_title = "stp"
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 3, "use_download_button": False}
