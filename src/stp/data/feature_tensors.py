"""Files of CLAM with a bare tensor of features."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.data.feature_layout import Extraction, Layout, TileScale, matrix_shape, require_float

if TYPE_CHECKING:
    import torch

CLAM_TENSOR = "CLAM pt"


@dataclass(frozen=True)
class TensorArrays:
    """Features in a file of a tensor, which has no places.

    Parameters
    ----------
    path
        The file.
    """

    path: Path

    def features(self) -> np.ndarray:
        """Return the features (n_tiles, width) in the order of the file."""
        values = _as_array(_load(self.path))
        return values.reshape(matrix_shape(values.shape, "features"))

    def places(self) -> np.ndarray | None:
        """Return None."""
        return None


def open_tensor(path: Path, tile_um: float | None) -> Layout:
    """Return the layout of a file with a tensor.

    Raises
    ------
    ValueError
        The file holds anything else, or numbers that are no features.
    """
    import torch

    content = _load(path)
    if not isinstance(content, torch.Tensor):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a tensor of features; save the tensor "
            "alone"
        )
    label = f"the features of {path}"
    shape = matrix_shape(tuple(content.shape), label)
    values = _as_array(content[:0])
    require_float(values.dtype, label)
    model = Extraction(CLAM_TENSOR, "", "", "", shape[1]).model_record()
    scale = TileScale(tile_um)
    return Layout(CLAM_TENSOR, TensorArrays(path), shape, values.dtype, scale, model)


def _load(path: Path) -> Any:
    """Load a file without running code in it; map its values if the format allows that."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # a file of PyTorch before 1.6
        return torch.load(path, map_location="cpu", weights_only=True)


def _as_array(tensor: "torch.Tensor") -> np.ndarray:
    """Return a tensor as an array; NumPy has no bfloat16, so that becomes float32."""
    import torch

    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
