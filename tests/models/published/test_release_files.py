"""The authors' files, made small, and files that are refused in their place."""

import os
import time
import tracemalloc

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stp.models.published.release_files import read_assets, read_symbols

GENES = ["ENSG00000000003", "ENSG00000000005", "ENSG00000000419"]
# {"TSPAN6": GENES[0], "T6": GENES[0], "TNMD": GENES[1], "LOST": "ENSG0"} in two protocols.
PROTOCOL_4 = (
    b"\x80\x04}\x94(\x8c\x06TSPAN6\x94\x8c\x0fENSG00000000003\x94"
    b"\x8c\x02T6\x94h\x02\x8c\x04TNMD\x94\x8c\x0fENSG00000000005\x94"
    b"\x8c\x04LOST\x94\x8c\x05ENSG0\x94u."
)
PROTOCOL_0 = (
    b"(dVTSPAN6\nVENSG00000000003\nsVT6\nVENSG00000000003\ns"
    b"VTNMD\nVENSG00000000005\nsVLOST\nVENSG0\ns."
)
# A key of nested tuples, each of which has the one before it twice: hashing it takes 2**60 steps.
NESTED_KEY = (
    b"\x80\x04)q\x00"
    + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    + b"0}h\x3cVx\ns."
)


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
    vocabulary = read_assets(folder)
    assert vocabulary.gene_ids.tolist() == GENES
    assert vocabulary.symbols.tolist() == ["TSPAN6", "TNMD", ""]
    assert vocabulary.encode(["T6", "TNMD", "LOST", GENES[2]]).tolist() == [0, 1, -1, 2]
    assert vocabulary.round_means and vocabulary.divisors().tolist() == [2, 2, 1]


def test_the_files_of_the_release_are_read(golden):
    vocabulary = read_assets(golden.parent / "assets")
    assert len(vocabulary) == 20_310 and np.isnan(vocabulary.means).sum() == 210
    with_symbol = set(read_symbols(golden.parent / "assets" / "gene_name_id_dict.pkl").values())
    assert len(with_symbol & set(vocabulary.gene_ids)) == 19_070


@pytest.mark.parametrize(
    "content",
    [
        b"cpathlib\nPath.touch\n(cpathlib\nPath\n(VMARK\ntRtR.",
        b"cos\nsystem\n(Vtouch MARK\ntR.",
        b"(dVa\ncbuiltins\nprint\ns.",
        b"\x80\x02cnumpy\narray\n.",
        b"\x80\x04}r\xff\xff\xff\x7f.",  # a memo of 2 billion places
        b"\x80\x04}r\xff\xff\xff\x0f.",  # a memo that fits into memory
        NESTED_KEY,
        b"\x80\x02\x82\x01.",  # a class of the extension registry
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"(dVa\nI1\ns.",
        b"(lVa\na.",
        b"Va\n.",
        b"",
        b"(dVa\n",
    ],
)
def test_any_other_pickle_is_refused_and_not_run(content, tmp_path):
    mark = tmp_path / "ran"
    path = tmp_path / "x.pkl"
    path.write_bytes(content.replace(b"MARK", str(mark).encode()))
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"x\.pkl contains "):
        read_symbols(path)
    assert not mark.exists()
    assert time.perf_counter() - start < 1


def test_a_large_memo_index_needs_no_memory(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04}r\xff\xff\xff\x0fX\x01\0\0\0aX\x01\0\0\0bs.")
    tracemalloc.start()
    assert read_symbols(path) == {"a": "b"}
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 10**6


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "x.pkl"
    path.touch()
    os.truncate(path, 2**24 + 1)
    with pytest.raises(ValueError, match="x.pkl has more than 16777216 bytes"):
        read_symbols(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=60), place=st.integers(0, len(PROTOCOL_4)))
def test_any_bytes_are_a_dict_of_str_or_one_error(tmp_path, content, place):
    path = tmp_path / "x.pkl"
    damaged = PROTOCOL_4[:place] + content + PROTOCOL_4[place + len(content) :]
    for pickled in (content, damaged):
        path.write_bytes(pickled)
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
    with pytest.raises(ValueError, match=r"Visium_mean\.npy is not an array of means"):
        read_assets(folder)
    (folder / "model.h5ad").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"model\.h5ad is not an AnnData"):
        read_assets(folder)
    (folder / "model.h5ad").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no model\.h5ad; download them with the released weights"
    ):
        read_assets(folder)
