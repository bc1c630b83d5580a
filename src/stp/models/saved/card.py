"""The model card: training data, scores, license and intended use of a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stp._log import preview
from stp._version import __version__

PAGE = """---
library_name: stp-spatial
license: {license}
tags: ["spatial-transcriptomics", "pathology", "stp"]
---

# {title}

A {kind} of stp {version}, digest `{digest}`.
Load it with `stp.models.{kind}.from_pretrained(path)`.

## Intended use

{intended_use}

## Trained on

{trained_on}{source}
{base_models}
## Metrics

{metrics}

## License

{license_text}
"""
# Licenses that the hub of Hugging Face knows; every other one is "other" in the header of the page.
HUB_LICENSES = (
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gpl-3.0",
    "lgpl-3.0",
    "mit",
    "mpl-2.0",
)
NO_DERIVATIVES = re.compile(
    r"BY-(NC-)?ND\b|\bno[ -]?deriv|\bforbids?\b[^.]*\bderivatives", re.IGNORECASE
)


@dataclass(frozen=True)
class ModelCard:
    """Facts about a model for its users, which `save_pretrained` writes to its folder.

    Parameters
    ----------
    trained_on
        The training data, a line per stage of training; `stp.train` fills them in.
    metrics
        Scores by name; `stp.train` fills in those of the validation.
    license
        License of the weights: an SPDX identifier or free text.
    intended_use
        Uses that the model is meant for, and uses that it is not meant for.
    version
        Version of stp that trained the model.
    untrained_genes
        Ids of genes that :func:`stp.models.grow` added and that no training run has included yet.
    terms
        What the license asks of users, a sentence each.
    base_models
        The models of others that this one was trained from, each with its digest, license and
        terms; `stp.train` fills them in.
    source
        Origin of the weights, if they were loaded from the hub: its id there and the commit.

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
    terms: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    source: str = ""

    def no_derivatives(self) -> list[str]:
        """Return the lines of the card that forbid to share derivatives of the weights."""
        lines = (self.license, *self.terms, *self.trained_on, *self.base_models)
        return [line for line in lines if NO_DERIVATIVES.search(line)]

    def page(self, kind: str, title: str, digest: str) -> str:
        """Return the card as a Markdown page, which a hub shows.

        Parameters
        ----------
        kind
            Class of the model.
        title
            Title of the page.
        digest
            Digest of the model.
        """
        trained_on = list(self.trained_on) or ["Not stated."]
        if self.untrained_genes:
            genes = preview(self.untrained_genes, 10)
            n_genes = len(self.untrained_genes)
            trained_on.append(f"{n_genes} genes were added and not trained: {genes}")
        scores = [f"{name}: {value:.4g}" for name, value in self.metrics.items()]
        scores = scores or ["Not stated."]
        hub_license = self.license.lower()
        license_text = [self.license, *(f"- {line}" for line in self.terms)]
        base_models = "".join(f"- {line}\n" for line in self.base_models)
        return PAGE.format(
            license=hub_license if hub_license in HUB_LICENSES else "other",
            title=title,
            kind=kind,
            version=self.version,
            digest=digest,
            intended_use=self.intended_use,
            trained_on="\n".join(f"- {line}" for line in trained_on),
            base_models=f"\n## Trained from\n\n{base_models}" if base_models else "",
            metrics="\n".join(f"- {line}" for line in scores),
            license_text="\n".join(license_text),
            source=f"\n\nThe weights come from {self.source}." if self.source else "",
        )
