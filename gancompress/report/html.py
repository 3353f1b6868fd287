"""The report of a run: one HTML file that needs nothing else, made from the run directory's files alone.

It can be made again at any time, also from a copied directory, and at any stage of the run: what is missing is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from gancompress.report.charts import metric_charts, training_charts
from gancompress.report.compression import compression_section, int8_section
from gancompress.report.costs import cost_cards
from gancompress.report.pages import fill, png_uri, write_page
from gancompress.report.player import player_part
from gancompress.report.protocols import few_images, shared_protocol
from gancompress.report.published import answers_of_run
from gancompress.report.summary import cost_rows, headline
from gancompress.report.words import count, density, metric_value, plain_reason, ratio, scaled
from gancompress.runs.record import RunRecord, mapping, number, read_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["build_report", "render"]

#: Sample grids shown; with more, they are spread evenly over the run, the first and the last among them.
_GRIDS = 12


def build_report(run_dir: Path) -> Path:
    """Write ``report.html`` into the directory of a run, finished or not, and return its path.

    Raises:
        RunError: there is no run directory, or the page cannot be written.
    """
    return write_page(run_dir / "report.html", render(read_run(run_dir)))


def render(run: RunRecord) -> str:
    """Return the page as text: UTF-8, no address outside itself, and no script but the player's."""
    grids, total = _samples(run)
    rows, shared = _metric_rows(run)
    return fill(
        "report.html.j2",
        run=run,
        warnings=_warnings(run),
        facts=headline(run),
        metrics=rows,
        shared_protocol=shared,
        published=[("", answer) for answer in answers_of_run(run)],
        few_images=few_images(run.last[1]) if run.last is not None else "",
        metric_charts=metric_charts(run),
        training_charts=training_charts(run),
        compression=compression_section(run),
        int8=int8_section(run),
        player=player_part(run.path),
        grids=grids,
        grid_total=total,
        grid_shows=run.log.shows,
        networks=[network for role in run.networks if (network := _network(run, role))],
        costs=cost_cards(run.cost),
        recipe=_recipe_text(run),
        environment=cost_rows(run.environment),
        facts_of_run=_about(run),
    )


@dataclasses.dataclass(frozen=True)
class _Grid:
    step: int
    uri: str


def _warnings(run: RunRecord) -> list[str]:
    """Return what a reader must know before the numbers."""
    warnings = []
    if run.is_smoke:
        warnings.append(
            "This is a smoke run: it shows that everything works, on images that it drew itself. Its numbers mean "
            "nothing."
        )
    state = run.status.state
    if state != "done":
        words = {
            "pending": "has not been started",
            "running": "was still running when this page was made,",
            "interrupted": "was interrupted",
            "failed": "failed",
        }
        what = words.get(state, "is in an unknown state")
        reason = f": {plain_reason(run.status.reason)}" if run.status.reason else ""
        steps = number(mapping(run.recipe.get("training")).get("steps"))
        of = f" of {count(steps)}" if steps is not None else ""
        at = f"at step {count(run.last_step)}{of}{reason}"
        warnings.append(f"Unfinished: this run {what} {at}. The numbers are those so far.")
    for step, changes in run.log.images.items():
        warnings.append(f"The images changed at step {step}: {changes}. The numbers are of two datasets.")
    return [*warnings, *(f"Left out, because it could not be read: {notice}" for notice in run.notices)]


def _about(run: RunRecord) -> list[tuple[str, str]]:
    """Return the line under the title: what was trained on what, with which seed, when."""
    recipe = run.recipe
    training, started = mapping(recipe.get("training")), run.status.started
    facts = [
        ("method", mapping(mapping(recipe.get("sparsity")).get("method")).get("name")),
        ("pattern", _pattern(mapping(mapping(recipe.get("sparsity")).get("pattern")))),
        ("model", mapping(recipe.get("model")).get("name")),
        ("discriminator", mapping(recipe.get("discriminator")).get("name")),
        ("data", mapping(recipe.get("data")).get("name")),
        ("steps", f"{count(run.last_step)} of {count(training['steps'])}" if number(training.get("steps")) else None),
        ("batch", training.get("batch_size")),
        ("seed", recipe.get("seed")),
        ("run", run.status.id or None),
        ("started", started.replace("T", " ").replace("+00:00", " UTC") if started else None),
    ]
    return [(name, str(value)) for name, value in facts if value is not None]


def _pattern(node: Mapping[str, Any]) -> str | None:
    """Return how a pattern is written; nothing for single weights."""
    settings = ", ".join(f"{key} {value}" for key, value in node.items() if key != "name")
    name = node.get("name", "unstructured")
    return None if name == "unstructured" else f"{name} ({settings})" if settings else str(name)


def _metric_rows(run: RunRecord) -> tuple[list[dict[str, str]], str]:
    """Return one row per metric, best and last value with what is its protocol's own, and what all protocols share."""
    if run.last is None:
        return [], ""
    best_step, best = run.best if run.best is not None else run.last
    last_step, last = run.last
    rows = []
    for metric in last:
        chosen = next((other for other in best if other.label == metric.label), None)
        protocols = list(dict.fromkeys(m.protocol for m in (chosen, metric) if m is not None and m.protocol))
        rows.append(
            {
                "label": metric.label,
                "way": "higher is better" if metric.higher_is_better else "lower is better",
                "best": f"{metric_value(chosen.value, chosen.std)}" if chosen else "—",
                "best_step": count(best_step),
                "last": metric_value(metric.value, metric.std),
                "last_step": count(last_step),
                "protocol": "; ".join(protocols) or "protocol not recorded",
            }
        )
    shared, own = shared_protocol([row["protocol"] for row in rows])
    if len(rows) < 2 or not shared or not all(own):
        return rows, ""
    return [{**row, "protocol": text} for row, text in zip(rows, own, strict=True)], shared


def _samples(run: RunRecord) -> tuple[list[_Grid], int]:
    """Return the grids to show, oldest first, and how many there are. Only PNG files inside the directory are shown."""
    root = run.path.resolve()
    found: dict[int, Path] = {}
    for step, file in run.log.samples.items():
        with contextlib.suppress(OSError, ValueError):  # names that no file can have
            path = (root / file).resolve()
            if path.is_relative_to(root) and path.is_file():
                found[step] = path
    steps = sorted(found)
    chosen = steps
    if len(steps) > _GRIDS:
        chosen = [steps[round(i * (len(steps) - 1) / (_GRIDS - 1))] for i in range(_GRIDS)]
    return [_Grid(step, uri) for step in chosen if (uri := png_uri(found[step])) is not None], len(steps)


def _network(run: RunRecord, role: str) -> dict[str, Any] | None:
    """Return the table of one network's layers, and its totals."""
    layers = run.layers(role)
    counts, macs = run.counts(role), run.macs(role)
    if not layers or counts is None:
        return None
    most = max((number(layer.get("macs_sparse")) or 0 for layer in layers), default=0)
    rows = []
    for layer in layers:
        kept, all_ = number(layer.get("nonzeros")), number(layer.get("numel"))
        dense, sparse = number(layer.get("macs_dense")), number(layer.get("macs_sparse"))
        share = sparse / macs[1] if macs and macs[1] and sparse is not None else None
        rows.append(
            {
                "name": str(layer.get("name", "")),
                # a layer that the pattern of the recipe does not fit; without a pattern there is no such key
                "single": "unit" in layer and layer["unit"] is None,
                "shape": "×".join(map(str, layer["shape"])) if isinstance(layer.get("shape"), list) else "—",
                "numel": count(all_) if all_ is not None else "—",
                "nonzeros": count(kept) if kept is not None else "—",
                "density": density(kept / all_) if kept is not None and all_ else "—",
                "density_bar": f"{100 * kept / all_:.2f}" if kept is not None and all_ else "0",
                "dense": scaled(dense) if dense is not None else "—",
                "sparse": scaled(sparse) if sparse is not None else "—",
                "share": f"{100 * share:.1f} %" if share is not None else "—",
                "share_bar": f"{100 * sparse / most:.2f}" if sparse is not None and most else "0",
            }
        )
    return {
        "role": role,
        "rows": rows,
        "numel": count(counts[1]),
        "nonzeros": count(counts[0]),
        "density": density(counts[0] / counts[1]),
        "dense": scaled(macs[0]) if macs else "—",
        "sparse": scaled(macs[1]) if macs else "—",
        "ratio": ratio(macs[1] / macs[0]) if macs and macs[0] else "—",
    }


def _recipe_text(run: RunRecord) -> str:
    try:
        return (run.path / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
