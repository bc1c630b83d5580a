"""A missing extra is one error that names the pip command."""

import sys

import pytest

from stp._extras import EXTRAS, import_extra


@pytest.mark.parametrize("module", EXTRAS)
def test_missing_extra_names_the_command(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'stp-spatial\[{EXTRAS[module]}\]'"):
        import_extra(module)


def test_present_extra_is_imported():
    assert import_extra("skmisc").__name__ == "skmisc"
