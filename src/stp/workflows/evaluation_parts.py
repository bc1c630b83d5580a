"""The parts of an evaluation: scores of each slide and method, and their means."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Methods, and whether they are a model's; the others are baselines.
METHODS = {
    "retrieval": ("images find genes", True),
    "chance": ("chance", False),
    "expression_by_retrieval": ("retrieval of reference spots", True),
    "ridge_on_images": ("ridge on image features", True),
    "ridge_on_color_and_texture": ("ridge on color and texture", False),
    "mean_profile": ("mean profile of the references", False),
    "position": ("nearest spots by position, same patient", False),
    "genes": ("gene embedding", True),
    "images": ("image embedding", True),
    "fused": ("genes and images together", True),
    "components_of_expression": ("principal components of expression", False),
    "color_and_texture": ("color and texture", False),
    "largest_class": ("largest class of the references", False),
}


@dataclass(frozen=True)
class Part:
    """One comparison of a model with baselines.

    Parameters
    ----------
    name
        Name in JSON.
    title
        Title in the report.
    text
        What the table shows, for the report.
    metrics
        Title of each metric, by its name in JSON.
    rows
        A row per slide and method with the columns `slide`, `patient`, `method`, `n_spots` and the
        metrics.
    notes
        What is not scored and why, a sentence each.
    """

    name: str
    title: str
    text: str
    metrics: Mapping[str, str]
    rows: "pd.DataFrame"
    notes: tuple[str, ...] = ()

    def means(self) -> "pd.DataFrame":
        """Return the mean over slides of each method: `method`, `kind`, `n_slides` and metrics."""
        groups = self.rows.groupby("method", sort=False)
        table = groups[list(self.metrics)].mean().reset_index()
        table.insert(1, "kind", [kind_of(method) for method in table["method"]])
        table.insert(2, "n_slides", groups.size().to_numpy())
        return table

    def describe(self) -> dict[str, Any]:
        """Return all as JSON values, apart from numbers that are not defined."""
        return {
            "means": self.means().to_dict("records"),
            "slides": self.rows.to_dict("records"),
            "notes": list(self.notes),
        }


def kind_of(method: str) -> str:
    """Return whether a method is the model's or a baseline."""
    return "model" if METHODS[method][1] else "baseline"


def make_part(
    name: str,
    title: str,
    text: str,
    metrics: Mapping[str, str],
    rows: list[dict[str, Any]],
    notes: tuple[str, ...] = (),
) -> Part:
    """Return a part; `rows` have the columns that `Part.rows` describes."""
    import pandas as pd

    columns = ["slide", "patient", "method", "n_spots", *metrics]
    return Part(name, title, text, metrics, pd.DataFrame(rows, columns=columns), notes)
