"""The vocabulary, means and symbols of the authors' release, from the folder that a user downloaded."""

import pickle  # noqa: TID251 - their symbols come so; the unpickler below finds no class and admits str and dict alone
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from stp.genes.vocabulary import Vocabulary

GENES, MEANS, SYMBOLS = "model.h5ad", "Visium_mean.npy", "gene_name_id_dict.pkl"
MOST = 2**26  # bytes; the files have 1 million
PLAIN = set(
    "PROTO FRAME MARK STOP EMPTY_DICT DICT SETITEM SETITEMS MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)


def read_assets(folder: str | Path) -> Vocabulary:
    """Make the vocabulary that the released weights need: their genes in order, their means rounded, their symbols.

    Raises
    ------
    FileNotFoundError
        The folder lacks one of the three files.
    ValueError
        A file is not what it should be.
    """
    folder = Path(folder)
    if missing := [name for name in (GENES, MEANS, SYMBOLS) if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}; download them beside the released weights"
        )
    genes, means = _genes(folder / GENES), _means(folder / MEANS)
    if means.shape != (len(genes),):
        raise ValueError(
            f"{folder / MEANS} has means of shape {means.shape} for the {len(genes)} genes of {GENES}"
        )
    known, symbols, aliases = set(genes), dict.fromkeys(genes, ""), {}
    for symbol, gene in read_symbols(folder / SYMBOLS).items():
        if gene in known and not symbols[gene]:
            symbols[gene] = symbol
        elif gene in known:
            aliases[symbol] = (gene,)
    names = np.array(list(symbols.values()), object)
    corpus = ("the authors' release",)
    return Vocabulary(
        np.array(genes, object),
        names,
        means=means,
        aliases=aliases,
        round_means=True,
        corpus=corpus,
    )


def read_symbols(path: Path) -> dict[str, str]:
    """Read symbol -> Ensembl id from a pickle that holds one dict of strings and nothing else; no code in it is run.

    Raises
    ------
    ValueError
        The pickle holds anything else.
    """
    if path.stat().st_size > MOST:
        raise ValueError(f"{path} has more than {MOST} bytes, which no list of gene symbols has")
    content = path.read_bytes()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            numbered = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
            if opcode.name not in PLAIN or (numbered and int(argument or 0) > len(content)):
                raise ValueError(f"it asks for {opcode.name} {argument!r}")
        with path.open("rb") as file:
            symbols = _OnlyPlain(file).load()
    except Exception as error:
        raise ValueError(
            f"{path} holds more than a dict of str; nothing in it was run ({error})"
        ) from error
    if not isinstance(symbols, dict) or not all(
        isinstance(text, str) for pair in symbols.items() for text in pair
    ):
        raise ValueError(f"{path} holds no dict of str, symbol to Ensembl id")
    return symbols


class _OnlyPlain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _genes(path: Path) -> list[str]:
    import anndata

    try:
        return [str(name) for name in anndata.read_h5ad(path, backed="r").var_names]
    except Exception as error:
        raise ValueError(f"{path} is no AnnData whose var_names are the genes ({error})") from error


def _means(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False).astype(np.float64)
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise ValueError(f"{path} is no array of means ({error})") from error
