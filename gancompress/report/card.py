"""The model card of a generator: what it is, how small it is, how good, under which protocol, and how to load it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from gancompress.recipe.document import dump_yaml
from gancompress.report.protocols import few_images, shared_protocol
from gancompress.report.words import count, density, metric_value, quantity
from gancompress.runs.record import mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.runs.record import Metric, RunRecord

__all__ = ["CardFacts", "model_card"]


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """What a card says of the file beside it.

    Attributes:
        address: what ``load`` takes.
        step: of the checkpoint.
        values: of the weights in the file.
        backbone: its name.
        channels: of the images.
        resolution: of the images.
        classes: names of the classes it was trained for; empty for an unconditional one.
        translates: whether it makes images from images instead of latents.
        styled: whether it has styles with an average, which a truncation draws them to.
        density: share of the weights that is kept.
        kept: weights that are kept.
        weights: all of them.
        size: bytes of the file.
        dense: bytes of the same tensors, dense and in float32.
        quality: lines about what other values than float32 cost.
        license: as the hub calls it; empty to say nothing.
        samples: name of the picture beside the card.
    """

    address: str
    step: int
    values: str
    backbone: str
    channels: int
    resolution: int
    classes: Sequence[str]
    density: float
    kept: int
    weights: int
    size: int
    dense: int
    translates: bool = False
    styled: bool = False
    quality: Sequence[str] = ()
    license: str = ""
    samples: str = "samples.png"


def model_card(run: RunRecord, facts: CardFacts) -> str:
    """Return a model card in Markdown, with the hub's metadata in front.

    Args:
        run: that the generator is of; its evaluations of that step are told, of no other.
        facts: of the file.
    """
    metrics = next((found for step, found in reversed(run.evaluations) if step == facts.step), [])
    return "\n".join([*_metadata(run, facts, metrics), *_body(run, facts, metrics), ""])


def _dataset(run: RunRecord) -> str:
    return str(mapping(run.recipe.get("data")).get("name", "images"))


def _method(run: RunRecord) -> str:
    return str(mapping(mapping(run.recipe.get("sparsity")).get("method")).get("name", "dense"))


def _metadata(run: RunRecord, facts: CardFacts, metrics: Sequence[Metric]) -> list[str]:
    kind = "image-to-image" if facts.translates else "unconditional-image-generation"
    head: dict[str, Any] = {"library_name": "gancompress", "pipeline_tag": kind}
    if facts.license:
        head["license"] = facts.license
    head["tags"] = ["gan", "sparse", facts.backbone, _method(run)]
    known = [metric for metric in metrics if metric.value is not None]
    if known and not run.is_smoke:
        head["model-index"] = [
            {
                "name": run.name,
                "results": [
                    {
                        "task": {"type": kind},
                        "dataset": {"type": _dataset(run), "name": _dataset(run)},
                        "metrics": [
                            {"type": one.key or one.label, "name": one.label, "value": one.value, "args": one.protocol}
                            for one in known
                        ],
                    }
                ],
            }
        ]
    return ["---", dump_yaml(head).rstrip("\n"), "---", ""]


def _body(run: RunRecord, facts: CardFacts, metrics: Sequence[Metric]) -> list[str]:
    what = f"{facts.channels}x{facts.resolution}x{facts.resolution}"
    of = f", {len(facts.classes)} classes" if facts.classes else ""
    made = f"images from images, both {what}" if facts.translates else f"{what} images{of}"
    lines = [f"# {_plain(run.name)}", ""]
    if run.is_smoke:
        lines += ["**This is a smoke run: it shows that everything works, and its numbers mean nothing.**", ""]
    said = str(run.recipe.get("description", "")).strip()
    lines += [_plain(said), ""] if said else []
    lines += [
        f"A `{facts.backbone}` generator of {made}, trained with `{_method(run)}` on `{_dataset(run)}` by gancompress.",
        "",
        f"![samples]({facts.samples})",
        "",
        "## Use",
        "",
        "```python",
        *_use(facts),
        "```",
        "",
        "The file holds no pickle, and loading it runs no code of this repository.",
        "",
        "## Size",
        "",
        "| | |",
        "|---|---|",
        f"| density of its weights | {density(facts.density)} ({count(facts.kept)} of {count(facts.weights)}) |",
        f"| file | {quantity('bytes', facts.size)}, {facts.values} |",
        f"| dense, float32 | {quantity('bytes', facts.dense)} |",
        f"| step | {count(facts.step)} |",
        "",
        "## Quality",
        "",
        *_quality(run, facts, metrics),
    ]
    return [*lines, "", "## Training", "", "`recipe.yaml` has every setting; paths of the machine are left out of it."]


def _use(facts: CardFacts) -> list[str]:
    """Return code that runs as it stands, of what this generator takes."""
    shape = f"{facts.channels}, {facts.resolution}, {facts.resolution}"
    loaded = f'g = gancompress.load("{facts.address}")'
    if facts.translates:
        return [
            "import gancompress",
            "import torch",
            "",
            loaded,
            f"given = torch.rand(4, {shape}) * 2 - 1  # your images instead: float in [-1, 1], or uint8",
            "images = g(given)  # as many, of the same shape, float32 in [-1, 1]",
        ]
    lines = [
        "import gancompress",
        "",
        loaded,
        f"images = g(n=64, seed=0)  # (64, {shape}), float32 in [-1, 1]",
    ]
    if facts.classes:
        # json's quotes, so that a name with quotes of its own is still one
        name = json.dumps(facts.classes[0], ensure_ascii=False)
        lines.append(f"of_one = g(n=16, seed=0, classes={name})  # one class; left out, all in turn")
    if facts.styled:
        lines.append("plainer = g(n=16, seed=0, truncation=0.7)  # less varied; 1 leaves styles as they are")
    return lines


def _quality(run: RunRecord, facts: CardFacts, metrics: Sequence[Metric]) -> list[str]:
    if not metrics:
        return ["This step was not evaluated."]
    shared, own = shared_protocol([metric.protocol for metric in metrics])
    lines = ["| metric | value | |", "|---|---|---|"]
    for metric, settings in zip(metrics, own, strict=True):
        lines.append(f"| {_plain(metric.label)} | {metric_value(metric.value, metric.std)} | {_plain(settings)} |")
    lines += ["", f"Protocol: {_plain(shared) or 'see beside each metric'}", ""]
    lines.append("Only numbers of the same protocol, whose hash stands in brackets, can be compared.")
    warning = few_images(metrics)
    lines += ["", f"Warning: {_plain(warning)}."] if warning else []
    if facts.values != "float32":
        lines += ["", f"They were measured with weights in float32; those of the file are {facts.values}."]
    return lines + (["", "```text", *facts.quality, "```"] if facts.quality else [])


def _plain(text: str) -> str:
    """Return a text as one line of a table that Markdown leaves as it is."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
