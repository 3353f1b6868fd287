"""What was published about a row of somebody's table: the figure, how it was measured, where it stands.

A recipe carries figures as data; they change no number of a run. Figures that were measured under other conditions are
not comparable, so a reader gets the conditions field by field and never a verdict.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ChangedSetting", "PublishedFigure", "PublishedProtocol"]


class ChangedSetting(BaseModel):
    """One setting that is not what it is in the published row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(description="dotted, as --set takes it")
    published: str = Field(description="its value there, as text")


class PublishedProtocol(BaseModel):
    """How a published figure was measured; what is left out is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extractor: str | None = Field(None, description="network that made the features, such as inception")
    samples: int | None = Field(None, ge=1, description="generated images")
    reference_count: int | None = Field(None, ge=1, description="real images")
    weights: Literal["ema", "live"] | None = Field(None, description="which generator was measured")
    batch_norm: str | None = Field(
        None, description="statistics of batch norm: 'running averages', or 'each batch of 100'"
    )
    selection: str | None = Field(None, description="which evaluation: 'last', or 'best of 20 by FID'")
    seeds: int | None = Field(None, ge=1, description="runs that the figure is the mean of")


class PublishedFigure(BaseModel):
    """One number of a published table or figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: Literal["FID", "IS"] = Field(description="what was measured")
    value: float = Field(description="the number")
    spread: float | None = Field(None, ge=0, description="standard deviation over seeds")
    bound: Literal["exact", "below"] = Field("exact", description="below: only said to be lower than the value")
    protocol: PublishedProtocol = Field(PublishedProtocol(), description="how it was measured")
    source: str = Field(description="where it stands")
    note: str = Field("", description="what to know before trusting it")

    @property
    def text(self) -> str:
        """The figure without its metric: ``10.11``, ``8.79 ± 0.37``, ``below 8.79``."""
        below = "below " if self.bound == "below" else ""
        if self.spread is None:
            return f"{below}{self.value:g}"
        digits = max(len(f"{number:g}".partition(".")[2]) for number in (self.value, self.spread))
        return f"{below}{self.value:.{digits}f} ± {self.spread:.{digits}f}"
