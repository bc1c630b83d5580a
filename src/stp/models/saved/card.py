"""The model card: what a model was trained on, how well it does, and what it may be used for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from stp._version import __version__

PAGE = """---
library_name: stp-spatial
license: {license}
tags: ["spatial-transcriptomics", "pathology", "stp"]
---

# {title}

A {kind} of stp {version}, digest `{digest}`. Load it with `stp.models.{kind}.from_pretrained(path)`.

## Intended use

{intended_use}

## Trained on

{trained_on}

## Metrics

{metrics}

## License

{license_text}
"""


@dataclass(frozen=True)
class ModelCard:
    """What is said of a model beside its weights; `save_pretrained` writes it as README.md and into config.json.

    Parameters
    ----------
    trained_on
        A line per stage of training; written by `stp.train`.
    metrics
        Scores by name; those of validation, written by `stp.train`.
    license
        Of the weights; an identifier of SPDX, or words.
    intended_use
        What it is for, and what not.
    version
        The stp that trained it.
    untrained_genes
        Ids of genes that the vocabulary grew by and no training has seen; see :func:`stp.models.grow`.

    Examples
    --------
    >>> stp.models.ModelCard(license="CC-BY-4.0", intended_use="Breast cancer sections.").license
    'CC-BY-4.0'
    """

    trained_on: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    license: str = "not stated"
    intended_use: str = "Research on tissue like that of its training slides. Not for diagnosis."
    version: str = __version__
    untrained_genes: tuple[str, ...] = ()

    def page(self, kind: str, title: str, digest: str) -> str:
        """Return the card as the page that hubs show."""
        trained_on = [*self.trained_on] or ["Not stated."]
        if self.untrained_genes:
            genes = ", ".join(self.untrained_genes[:10]) + (
                ", ..." if len(self.untrained_genes) > 10 else ""
            )
            trained_on.append(
                f"{len(self.untrained_genes)} genes were added and not trained: {genes}"
            )
        scores = [f"{name}: {value:.4g}" for name, value in self.metrics.items()] or ["Not stated."]
        return PAGE.format(
            license=json.dumps(self.license),
            title=title,
            kind=kind,
            version=self.version,
            digest=digest,
            intended_use=self.intended_use,
            trained_on="\n".join(f"- {line}" for line in trained_on),
            metrics="\n".join(f"- {line}" for line in scores),
            license_text=self.license,
        )
