"""What config.json says about a saved model: its class, config and card."""

import json
from pathlib import Path
from typing import Any

CONFIG = "config.json"
MAX_CONFIG_BYTES = 2**22


def read_description(file: Path) -> dict[str, Any]:
    """Return the class, config and card of a model from its config.json."""
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes")
        description = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(description["config"], dict):
            raise TypeError("its config is no list of names and values")
        return {"class": description["class"], **description, "config": description["config"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file} describes no model ({error!r}); save_pretrained writes a valid one"
        ) from error
