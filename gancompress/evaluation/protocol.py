"""Everything that fixes a metric. Two numbers may be compared only when the hashes of their protocols are equal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

__all__ = ["Protocol"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a metric was measured.

    ``str(protocol)`` is the line that is printed next to every number.

    Attributes:
        extractor: label of the feature extractor, e.g. ``inception`` or ``classifier-1f3a9c2d``.
        weights_hash: hash of the extractor's weights themselves.
        resize: how images are brought to the extractor's size.
        reference: fingerprint of the dataset that is compared with.
        reference_count: number of real images; 0 of a metric that looks at none.
        samples: number of generated images.
        weights: which generator was measured, ``ema`` or ``live``.
        batch_norm: statistics of batch norm while sampling, with whatever they depend on.
        labels: how the classes of the generated images were chosen: ``none``, ``balanced``, or as often as in the data.
        seed: seed of latents and labels.
        libraries: versions of the libraries whose formulas or features are used.
        metric: settings of one metric (subset sizes, neighbours); empty in the protocol of a whole evaluation.
        norms: what the spectrally normed weights of an averaged generator were divided by; empty, and then neither
            hashed nor kept, for every other generator.
        notes: facts to show that fix nothing, such as the held-out accuracy of the classifier; not hashed.
    """

    extractor: str
    weights_hash: str
    resize: str
    reference: str
    reference_count: int
    samples: int
    weights: str
    batch_norm: str
    labels: str
    seed: int
    libraries: str
    metric: str = ""
    norms: str = ""
    notes: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Short hash of every attribute but ``notes``."""
        fixed = self._fields()
        del fixed["notes"]
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:12]

    def for_metric(self, settings: str) -> Protocol:
        """Return this protocol with the settings of one metric."""
        return dataclasses.replace(self, metric=settings)

    def of_generator(self, extractor: str, weights_hash: str, resize: str) -> Protocol:
        """Return this protocol for a metric that has a network of its own and looks at no real images."""
        return dataclasses.replace(
            self,
            extractor=extractor,
            weights_hash=weights_hash,
            resize=resize,
            reference="",
            reference_count=0,
            notes=(),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with every attribute, the hash and the printed line."""
        fields = self._fields()
        return {**fields, "notes": list(self.notes), "hash": self.hash, "text": str(self)}

    def _fields(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        if not self.norms:
            del fields["norms"]
        return fields

    def __str__(self) -> str:
        noted = f" ({', '.join(self.notes)})" if self.notes else ""
        parts = [
            f"{self.extractor}{noted}",
            f"{self.samples:,} generated" + f" against {self.reference_count:,} real" * bool(self.reference_count),
            {"none": "no classes", "balanced": "balanced classes"}.get(self.labels, f"classes {self.labels}"),
            f"{'EMA' if self.weights == 'ema' else self.weights} weights",
            f"batch norm: {self.batch_norm}",
            f"seed {self.seed}",
        ]
        if self.norms:
            parts.insert(4, self.norms)
        if self.metric:
            parts.append(self.metric)
        return ", ".join(parts) + f" [{self.hash}]"
