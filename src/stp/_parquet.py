"""The parquet file of a vocabulary: columns of equal length, and what is about all of them in the metadata."""

import json
from pathlib import Path
from typing import Any

_METADATA = b"stp_vocabulary"
MOST = 2**28  # bytes; the human vocabulary has 2 million


def write_columns(path: str | Path, columns: dict[str, list], about: dict[str, Any]) -> None:
    """Write columns, and `about` as JSON beside them."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"aliases": pa.list_(pa.string())}
    table = pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})
    parquet.write_table(table.replace_schema_metadata({_METADATA: json.dumps(about)}), path, compression="zstd")


def read_columns(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write_columns` wrote; ValueError where it did not."""
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MOST:
            raise ValueError(f"it unpacks to more than {MOST} bytes")
        table = file.read()
        return table.to_pydict(), json.loads(table.schema.metadata[_METADATA])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no vocabulary ({error}); Vocabulary.save writes one") from error
