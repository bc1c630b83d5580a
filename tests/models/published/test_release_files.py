"""The authors' files, made small, and what is refused in their place."""

import time

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stp.models.published.release_files import read_assets, read_symbols

GENES = ["ENSG00000000003", "ENSG00000000005", "ENSG00000000419"]
# {"TSPAN6": GENES[0], "T6": GENES[0], "TNMD": GENES[1], "LOST": "ENSG0"}, as protocols 4 and 0 write it
PROTOCOL_4 = (
    b"\x80\x04}\x94(\x8c\x06TSPAN6\x94\x8c\x0fENSG00000000003\x94"
    b"\x8c\x02T6\x94h\x02\x8c\x04TNMD\x94\x8c\x0fENSG00000000005\x94\x8c\x04LOST\x94\x8c\x05ENSG0\x94u."
)
PROTOCOL_0 = b"(dVTSPAN6\nVENSG00000000003\nsVT6\nVENSG00000000003\nsVTNMD\nVENSG00000000005\nsVLOST\nVENSG0\ns."


@pytest.fixture
def folder(tmp_path):
    anndata.AnnData(np.zeros((1, 3), np.float32), var=pd.DataFrame(index=GENES)).write_h5ad(
        tmp_path / "model.h5ad"
    )
    np.save(tmp_path / "Visium_mean.npy", np.array([1.5, 2.4, np.nan]))
    (tmp_path / "gene_name_id_dict.pkl").write_bytes(PROTOCOL_0)
    return tmp_path


@pytest.mark.parametrize("symbols", [PROTOCOL_0, PROTOCOL_4], ids=["protocol 0", "protocol 4"])
def test_genes_means_and_symbols_become_a_vocabulary(folder, symbols):
    (folder / "gene_name_id_dict.pkl").write_bytes(symbols)
    found = read_assets(folder)
    assert found.gene_ids.tolist() == GENES
    assert found.symbols.tolist() == ["TSPAN6", "TNMD", ""]
    assert found.encode(["T6", "TNMD", "LOST", GENES[2]]).tolist() == [0, 1, -1, 2]
    assert found.round_means and found.divisors().tolist() == [2, 2, 1]


def test_the_files_of_the_release(golden):
    found = read_assets(golden.parent / "assets")
    assert len(found) == 20_310 and np.isnan(found.means).sum() == 210
    reached = set(read_symbols(golden.parent / "assets" / "gene_name_id_dict.pkl").values())
    assert len(reached & set(found.gene_ids)) == 19_070


@pytest.mark.parametrize(
    "content",
    [
        b"cpathlib\nPath.touch\n(cpathlib\nPath\n(VMARK\ntRtR.",
        b"cos\nsystem\n(Vtouch MARK\ntR.",
        b"(dVa\ncbuiltins\nprint\ns.",
        b"\x80\x02cnumpy\narray\n.",
        b"\x80\x04}r\xff\xff\xff\x7f.",  # a memo of 2 billion places
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"(dVa\nI1\ns.",
        b"(lVa\na.",
        b"Va\n.",
        b"",
        b"(dVa\n",
    ],
)
def test_any_other_pickle_is_refused_and_not_run(content, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "x.pkl"
    path.write_bytes(content.replace(b"MARK", str(mark).encode()))
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"x\.pkl holds "):
        read_symbols(path)
    assert not mark.exists()
    assert time.perf_counter() - start < 1


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=60), place=st.integers(0, len(PROTOCOL_4)))
def test_any_bytes_are_a_dict_of_str_or_one_error(tmp_path, content, place):
    path = tmp_path / "x.pkl"
    for one in (content, PROTOCOL_4[:place] + content + PROTOCOL_4[place + len(content) :]):
        path.write_bytes(one)
        try:
            assert all(
                isinstance(text, str) for pair in read_symbols(path).items() for text in pair
            )
        except ValueError as error:
            assert str(path) in str(error)


def test_means_and_genes_that_do_not_fit_are_refused(folder):
    np.save(folder / "Visium_mean.npy", np.ones(4))
    with pytest.raises(
        ValueError,
        match=r"Visium_mean\.npy has means of shape \(4,\) for the 3 genes of model\.h5ad",
    ):
        read_assets(folder)
    np.save(folder / "Visium_mean.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Visium_mean\.npy is no array of means"):
        read_assets(folder)
    (folder / "model.h5ad").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"model\.h5ad is no AnnData"):
        read_assets(folder)
    (folder / "model.h5ad").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no model\.h5ad; download them beside the released weights"
    ):
        read_assets(folder)
