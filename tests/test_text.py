"""Names of files on systems whose locale is not UTF-8: real processes in such a locale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stp._text import native, readable

SOURCE = Path(__file__).parents[1] / "src"
NAME = "größe_胃.zarr"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}


def run_in_ascii(code, folder, *arguments):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, **ASCII, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode("utf-8", "replace")
    return process.stdout


def test_in_a_utf8_locale_names_stay_as_they_are():
    assert (readable(Path(NAME)), native(NAME)) == (NAME, NAME)


def test_a_name_that_is_no_utf8_becomes_text():
    name = os.fsdecode(b"gr\xf6sse.zarr")  # Latin-1
    assert readable(name).encode("utf-8")
    assert readable(name).endswith("sse.zarr")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_in_an_ascii_locale_names_are_found_and_recorded_as_utf8(tmp_path):
    code = (
        "import json, os; from pathlib import Path; from stp._text import native, readable\n"
        "name = json.loads(Path('name.json').read_text(encoding='utf-8'))\n"
        "(found,) = os.listdir('stores')\n"
        "assert os.path.exists(os.path.join('stores', native(name)))\n"
        "assert readable(found) == readable(name) == name\n"
        "Path('seen.txt').write_text(readable(found), encoding='utf-8')\n"
    )
    (tmp_path / "stores" / NAME).mkdir(parents=True)
    (tmp_path / "name.json").write_text(json.dumps(NAME), encoding="utf-8")
    run_in_ascii(code, tmp_path)
    assert (tmp_path / "seen.txt").read_text(encoding="utf-8") == NAME


RECIPE = """
# für Mägen
stores = ["größe_胃.zarr"]
output_dir = "Lauf_胃"
min_genes = 5
[model]
context_length = 16
width = 16
depth = 1
n_heads = 2
ffn_width = 16
[[phase]]
batch_size = 5
"""


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_in_an_ascii_locale_a_recipe_trains_and_its_files_are_utf8(stores, tmp_path):
    (tmp_path / NAME).symlink_to(stores[0])
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    code = "import sys; from stp.cli.main import main; sys.exit(main(['pretrain', 'recipe.toml']))"
    run_in_ascii(code, tmp_path)
    out = tmp_path / "Lauf_胃"
    assert (out / "model.safetensors").exists()
    assert NAME in (out / "README.md").read_text(encoding="utf-8")
    (path,) = json.loads((out / "training.json").read_text(encoding="utf-8"))["paths"]["stores"]
    assert path == str(tmp_path / NAME)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_the_command_line_prints_names_beyond_the_locale(tmp_path):
    code = (
        "import sys, stp.cli\n"
        "cli = sys.modules['stp.cli.main']\n"
        "class Printing:\n"
        "    def add_parser(commands):\n"
        "        commands.add_parser('say').set_defaults(run=lambda options: print('gr\\xf6sse'))\n"
        "cli.COMMANDS = (Printing,)\n"
        "cli.main(['say'])\n"
    )
    assert run_in_ascii(code, tmp_path) == b"gr\\xf6sse\n"
