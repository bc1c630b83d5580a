"""Numbers in the text of tags."""

import re

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")


def parse_number(text: object) -> float | None:
    """Return the number that a text is, with a decimal point or comma; None if it is none."""
    stripped = str(text).strip()
    if not NUMBER.fullmatch(stripped):
        return None
    return float(stripped.replace(",", "."))
