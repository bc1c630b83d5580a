"""The vocabulary, means and symbols of the authors' release, from the folder of a user."""

import io
import pickle  # noqa: TID251 - the authors' symbols are a pickle; the unpickler below runs no code
from pathlib import Path

import numpy as np

from stp.genes.vocabulary import Vocabulary

GENES = "model.h5ad"
MEANS = "Visium_mean.npy"
SYMBOLS = "gene_name_id_dict.pkl"
MAX_BYTES = 2**24  # the file of symbols has 500,000
# All that a pickle needs to build a dict of strings, in any protocol.
INSTRUCTIONS = (
    pickle.PROTO,
    pickle.FRAME,
    pickle.MARK,
    pickle.STOP,
    pickle.EMPTY_DICT,
    pickle.DICT,
    pickle.SETITEM,
    pickle.SETITEMS,
    pickle.UNICODE,
    pickle.BINUNICODE,
    pickle.SHORT_BINUNICODE,
    pickle.BINUNICODE8,
    pickle.MEMOIZE,
    pickle.PUT,
    pickle.BINPUT,
    pickle.LONG_BINPUT,
    pickle.GET,
    pickle.BINGET,
    pickle.LONG_BINGET,
)


def read_assets(folder: str | Path) -> Vocabulary:
    """Return the vocabulary that the released weights need.

    It has the authors' genes in their order, their symbols, and their means, which it rounds.

    Raises
    ------
    FileNotFoundError
        If the folder lacks one of the three files.
    ValueError
        If a file does not contain what it should.
    """
    folder = Path(folder)
    missing = [name for name in (GENES, MEANS, SYMBOLS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}; download them with the released weights"
        )
    genes = _read_genes(folder / GENES)
    means = _read_means(folder / MEANS)
    if means.shape != (len(genes),):
        raise ValueError(
            f"{folder / MEANS} has means of shape {means.shape} for the {len(genes)} genes of "
            f"{GENES}"
        )
    symbol_of = dict.fromkeys(genes, "")
    aliases: dict[str, tuple[str, ...]] = {}
    for symbol, gene in read_symbols(folder / SYMBOLS).items():
        if gene not in symbol_of:
            continue
        if symbol_of[gene]:
            aliases[symbol] = (gene,)
        else:
            symbol_of[gene] = symbol
    return Vocabulary(
        np.array(genes, object),
        np.array(list(symbol_of.values()), object),
        means=means,
        aliases=aliases,
        round_means=True,
        corpus=("the authors' release",),
    )


def read_symbols(path: Path) -> dict[str, str]:
    """Return the Ensembl id of each symbol, from a pickle of one dict; no code in it is run.

    Raises
    ------
    ValueError
        If the pickle contains anything but a dict of strings, or the dict is empty.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes; no list of symbols is so long")
    try:
        symbols = _StringsUnpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:
        raise ValueError(
            f"{path} contains more than a dict of str; nothing in it was run ({error!r})"
        ) from error
    if not isinstance(symbols, dict) or not symbols:
        raise ValueError(f"{path} contains no dict of str, symbol to Ensembl id")
    for symbol, gene in symbols.items():
        if not isinstance(symbol, str) or not isinstance(gene, str):
            raise ValueError(f"{path} contains no dict of str, symbol to Ensembl id")
    return symbols


class _StringsUnpickler(pickle._Unpickler):
    """Unpickler that can build dicts and strings only: it has no instruction to import or call.

    It extends the unpickler that is written in Python. The one written in C allocates gigabytes
    if a pickle of ten bytes asks it to store a value under a large number.
    """

    dispatch = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in INSTRUCTIONS}

    def find_class(self, module: str, name: str) -> type:
        """Raise an error: a dict of strings needs no class."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_genes(path: Path) -> list[str]:
    import anndata

    try:
        return [str(name) for name in anndata.read_h5ad(path, backed="r").var_names]
    except Exception as error:
        raise ValueError(
            f"{path} is not an AnnData whose var_names are the genes ({error})"
        ) from error


def _read_means(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False).astype(np.float64)
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise ValueError(f"{path} is not an array of means ({error})") from error
