"""A comparison as numbers: its tables, ``compare.csv``, ``cells.csv`` and ``compare.json``."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import TYPE_CHECKING, Any

from gancompress.comparison.paired import FEWEST, references
from gancompress.report.held import held_equal, shipped_apart
from gancompress.report.published import answers_of_comparison
from gancompress.report.shown import Shown, Table
from gancompress.report.verdict import narrow_notes, noise_notes, verdicts
from gancompress.report.widths import sweep_notes, sweep_table
from gancompress.report.words import density, duration, metric_value, size
from gancompress.storage.atomic import write_file, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gancompress.comparison.paired import Difference
    from gancompress.comparison.results import CellResult, Results, RowResult, Spread

__all__ = [
    "COLUMNS",
    "LOADS",
    "density_text",
    "difference_rows",
    "how_best_is_picked",
    "how_differences_are_made",
    "how_times_are_measured",
    "loads_differ",
    "notes_of",
    "row_texts",
    "say_difference",
    "say_spread",
    "shown_comparison",
    "write_tables",
]

#: heading, and what is in the column
COLUMNS = (
    ("method", "with its own settings"),
    ("density", "asked for; dense keeps everything"),
    ("seeds", "runs that ended"),
    ("best", "of the same number of looks for every run"),
    ("last", "at the end of training"),
    ("G density", "exact"),
    ("D density", "exact"),
    ("G weights", "kept, against the dense generator"),
    ("train FLOPs", "counted, against dense"),
    ("infer FLOPs", "counted, against dense"),
    ("infer time", "measured: an image, as shipped"),
    ("train time", "measured"),
    ("G bytes", "of the exported file"),
)

#: what is said where they do
LOADS = "Train times are of different loads: runs that other comparisons began kept the threads that they had there."


def how_best_is_picked(results: Results) -> str:
    """Return in a sentence among which evaluations a best value is picked."""
    if results.looks == 1:
        return (
            "Best is last here: only one evaluation of every run can count, the last. A method reaches its final "
            "density after the one before it, or generators are evaluated as exported, once."
        )
    return (
        f"Best: of the last {results.looks} of {results.grid.evaluations} evaluations, for every run the same number; "
        "so many every method made at its final density."
    )


def say_spread(found: Spread | None, write: Any = None) -> str:
    """Return mean and sample standard deviation as text: ``12.4 ± 0.3``; a lone seed has no spread."""
    if found is None:
        return "—"
    if write is None:
        return metric_value(found.mean, found.std)
    # counts that no seed changes have no spread worth a column's width
    shown = found.std is not None and found.std > 0.02 * abs(found.mean)
    return f"{write(found.mean)} ± {write(found.std)}" if shown else str(write(found.mean))


def _ratio(value: float) -> str:
    return f"{value:.3f}×"


def loads_differ(results: Results) -> bool:
    """Return whether runs were trained on different numbers of threads, so that their times say little."""
    return len({cell.threads for cell in results.cells if cell.done and cell.threads}) > 1


def density_text(row: RowResult) -> str:
    """Return what was asked of a row's generator: a density, or a width where that was fitted."""
    if row.channels is not None:
        return f"{row.channels} channels"
    return "—" if row.density is None else f"{density(row.density)}{row.wide}"


def row_texts(row: RowResult, seeds: int, *, loads: bool = False) -> list[str]:
    """Return a row's cells in the order of :data:`COLUMNS`; with ``loads`` the threads of every training time."""
    threads = sorted({cell.threads for cell in row.cells if cell.threads})
    load = f" on {' or '.join(map(str, threads))} thread{'s' if threads != [1] else ''}" if loads and threads else ""
    return [
        row.method,
        density_text(row),
        f"{len(row.cells)}/{seeds}" if len(row.cells) < seeds else str(seeds),
        say_spread(row.best),
        say_spread(next(iter(row.last.values()), None)),
        say_spread(row.densities["generator"], density),
        say_spread(row.densities["discriminator"], density),
        _ratio(row.kept_ratio),
        say_spread(row.training_ratio, _ratio),
        say_spread(row.inference_ratio, _ratio),
        "—" if row.shipped is None else f"{duration(row.shipped.milliseconds / 1e3)} {row.shipped.runtime}",
        say_spread(row.seconds, duration) + load,
        say_spread(row.bytes, size) if row.shipped is None else size(row.shipped.bytes),
    ]


def how_times_are_measured(rows: Iterable[RowResult]) -> str:
    """Return in a sentence what stands in the column of inference times; nothing where none was measured."""
    shipped = [row.shipped for row in rows if row.shipped is not None]
    if not shipped:
        return ""
    worst = max(one.unsure for one in shipped)
    return (
        f"Infer time: of an image, batches of {shipped[0].batch}, process CPU time of one thread, all timed in turn on "
        "one machine: masks as our compiled program, a network that keeps everything in the fastest runtime installed, "
        f"named beside it; medians, unsure by up to {worst:.1%}."
    )


def how_differences_are_made(results: Results) -> str:
    """Return in a few sentences what stands in a table of differences."""
    before = {count for rows in results.tables.values() for one in results.differences(rows) for count in one.interim}
    counts = " and ".join(filter(None, [", ".join(map(str, sorted(before)[:-1])), *map(str, sorted(before)[-1:])]))
    interim = f" Shown before with {counts} seeds, and each earlier table doubles p." if before else ""
    return (
        f"{results.primary} of the last evaluation less that of the method above the column, paired by seed: mean and "
        "95 % interval (Student's t). Better and worse: p below 0.05 after Holm's correction over the column, with "
        f"{FEWEST} seeds or more. Undecided: in brackets, about how many seeds would decide it, by the spread so "
        "far and with this table as a look."
        f"{interim}"
    )


def say_difference(found: Difference | None) -> str:
    """Return a difference as text: ``-1.3 [-2.1, -0.5] better``."""
    if found is None:
        return ""
    digits = 2 if abs(found.mean) < 10 else 1
    mean = f"{found.mean:+.{digits}f}"
    if found.low is None:
        return f"{mean} one seed"
    text = f"{mean} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
    if found.verdict in ("better", "worse"):
        return f"{text} {found.verdict}"
    if found.needed is None:
        return f"{text} undecided (over 1000 seeds)"
    return f"{text} undecided ({max(found.needed, FEWEST, len(found.seeds) + 1)} seeds)"


def difference_rows(results: Results, rows: Sequence[RowResult]) -> tuple[list[str], list[list[str]]]:
    """Return a table of differences: its header, and method, density and a text per reference of every row."""
    found = results.differences(rows)
    by = {(one.method, one.group, one.against): one for one in found}
    against = [name for name in references(rows) if any(one.against == name for one in found)]
    texts = [
        [
            row.method,
            density_text(row),
            *(say_difference(by.get((row.method, row.group, name))) for name in against),
        ]
        for row in rows
        if row.group is not None
    ]
    return ["method", "density", *(f"less {name}" for name in against)], texts if against else []


def notes_of(results: Results, rows: Sequence[RowResult]) -> list[str]:
    """Return what a table says in sentences: verdicts, and what they are to be read with."""
    return [
        *verdicts(results, rows),
        *shipped_apart(results.grid, rows),
        *sweep_notes(results.grid),
        *narrow_notes(results, rows),
        *noise_notes(results, rows),
    ]


def shown_comparison(results: Results) -> Shown:
    """Return a comparison as it is written everywhere but on its own page; the best sparse row of each stands out."""
    above = [held_equal(results.grid)]
    if len(results.tables) > 1:
        above.append(
            "The runs were evaluated under different protocols: their values must not be compared across the tables."
        )
    below = [line for rows in results.tables.values() for line in notes_of(results, rows)]
    if results.tables:
        below.append(how_best_is_picked(results))
        if len(results.grid.seeds) == 1:
            below.append("One seed: an anecdote. Differences may be chance; compare 3 seeds or more.")
        else:
            below.append(f"Mean ± sample standard deviation over {len(results.grid.seeds)} seeds.")
        below += filter(None, {how_times_are_measured(rows): None for rows in results.tables.values()})
    if loads_differ(results):
        below.append(LOADS)
    below += [f"{row.label}: {answer.line}" for row, answer in answers_of_comparison(results)]
    below += [
        f"missing: {cell.name} ({cell.state}{f': {cell.reason}' if cell.reason else ''})" for cell in results.missing
    ]
    way = "higher is better" if results.higher else "lower is better"
    tables = [
        _table(results, rows, f"{results.primary} ({way}): {results.protocols[key]}")
        for key, rows in results.tables.items()
    ]
    tried = sweep_table(results.grid, results.primary)
    tables += [tried] if tried is not None else []
    if len(results.grid.seeds) > 1:
        for key, rows in results.tables.items():
            header, texts = difference_rows(results, rows)
            if texts:
                tables.append(Table(texts, header, f"differences: {results.protocols[key]}", wraps=range(len(header))))
        below.append(f"Differences: {how_differences_are_made(results)}")
    return Shown(_title(results), tables, above, below)


def _title(results: Results) -> str:
    grid = results.grid
    of = "both networks" if grid.density_of == "both" else "the generator"
    smoke = " (smoke runs: the numbers mean nothing)" if grid.base.smoke else ""
    return f"{grid.base.name}{smoke}: densities are those of {of}"


def _table(results: Results, rows: Sequence[RowResult], title: str) -> Table:
    means = {i: row.best.mean for i, row in enumerate(rows) if not row.baseline and row.best is not None}
    winner = (max if results.higher else min)(means, key=means.__getitem__, default=0)
    return Table(
        [row_texts(row, len(results.grid.seeds), loads=loads_differ(results)) for row in rows],
        [name for name, _ in COLUMNS],
        title,
        numbers=range(1, len(COLUMNS)),
        wraps=range(3),
        bold={winner} if len(means) > 1 else (),
        dim=[index for index, row in enumerate(rows) if row.baseline],
    )


# --------------------------------------------------------------------------- files


def write_tables(results: Results) -> None:
    """Write ``compare.json``, ``compare.csv`` (a line per row) and ``cells.csv`` (a line per run)."""
    write_json(results.path / "compare.json", to_json(results))
    write_file(results.path / "compare.csv", _csv(_row_lines(results)))
    write_file(results.path / "cells.csv", _csv([_cell_line(results, cell) for cell in results.cells]))


def to_json(results: Results) -> dict[str, Any]:
    """Return everything that was compared, ready for JSON."""
    grid = results.grid
    return {
        **_mark(results),
        "name": grid.base.name,
        "id": grid.id,
        "shown": results.shown,
        "held_equal": {"axis": grid.held.axis, "flops": grid.held.flops, "text": held_equal(grid)},
        "density_of": grid.density_of,
        "seeds": list(grid.seeds),
        "primary": results.primary,
        "higher_is_better": results.higher,
        "evaluations": grid.evaluations,
        "evaluations_that_pick_the_best": results.looks,
        "dense": {"training_flops": grid.dense.training_flops, "inference_flops": grid.dense.inference_flops},
        **({} if grid.plan is None else {"plan": dataclasses.asdict(grid.plan)}),
        "tables": [
            {
                "protocol": results.protocols[key],
                "hash": key,
                "rows": [_row_json(row) for row in rows],
                "verdicts": verdicts(results, rows),
                "differences": [dataclasses.asdict(one) for one in results.differences(rows)],
            }
            for key, rows in results.tables.items()
        ],
        "published": [
            {"method": row.method, "density": row.density, **dataclasses.asdict(answer)}
            for row, answer in answers_of_comparison(results)
        ],
        "cells": [_cell_line(results, cell) for cell in results.cells],
        "hardware": list(results.hardware),
    }


#: what files call the costs of a row
_COSTS = {
    "training_flops": "training_flops",
    "training_flops_against_dense": "training_ratio",
    "inference_flops_against_dense": "inference_ratio",
    "training_seconds": "seconds",
    "generator_bytes_packed": "bytes",
}


def _row_json(row: RowResult) -> dict[str, Any]:
    def plain(found: Spread | None) -> dict[str, Any] | None:
        return dataclasses.asdict(found) if found is not None else None

    return {
        "method": row.method,
        "density": row.density,
        "seeds": [cell.seed for cell in row.cells],
        "anecdote": len(row.cells) == 1,
        "best": plain(row.best),
        "last": {label: plain(found) for label, found in row.last.items()},
        "densities": {role: plain(found) for role, found in row.densities.items()},
        "generator_weights_against_dense": row.kept_ratio,
        **{name: plain(getattr(row, field)) for name, field in _COSTS.items()},
        "shipped": None if row.shipped is None else row.shipped._asdict(),
        **({} if row.target is None else {"target": row.target}),
        **({} if row.width is None else {"width": row.width}),
    }


def _row_lines(results: Results) -> list[dict[str, Any]]:
    lines = []
    for key, rows in results.tables.items():
        for row in rows:
            line: dict[str, Any] = {
                **_mark(results),
                "method": row.method,
                "density_asked": row.density,
                "seeds": len(row.cells),
            }
            for name, found in (
                (f"best {results.primary}", row.best),
                *((f"last {label}", found) for label, found in row.last.items()),
                ("generator_density", row.densities["generator"]),
                ("discriminator_density", row.densities["discriminator"]),
                *((name, getattr(row, field)) for name, field in _COSTS.items()),
            ):
                line[f"{name} mean"] = found.mean if found else None
                line[f"{name} std"] = found.std if found else None
            line["inference_milliseconds"] = row.shipped.milliseconds if row.shipped else None
            line["generator_file_bytes"] = row.shipped.bytes if row.shipped else None
            if results.grid.plan is not None:
                line["target"] = row.target
                line["width"] = row.width
            line["generator_weights_against_dense"] = row.kept_ratio
            line["held_equal"] = str(results.grid.held)
            lines.append({**line, "protocol_hash": key, "protocol": results.protocols[key]})
    return lines


def _cell_line(results: Results, cell: CellResult) -> dict[str, Any]:
    best = cell.best_of(results.looks, results.primary, results.higher) if cell.done else None
    return {
        **_mark(results),
        "cell": cell.name,
        "method": cell.method,
        "density_asked": cell.density,
        "seed": cell.seed,
        "state": cell.state,
        "reason": cell.reason,
        "steps": cell.steps,
        f"best {results.primary}": best.values[results.primary] if best else None,
        "best_step": best.step if best else None,
        **{f"last {label}": cell.last(label) for label in results.metrics},
        "generator_density": cell.densities.get("generator"),
        "discriminator_density": cell.densities.get("discriminator"),
        "training_flops": cell.training_flops or None,
        "inference_flops": cell.inference_flops or None,
        "training_seconds": cell.seconds,
        "threads": cell.threads,
        "generator_bytes_packed": cell.bytes,
        "protocol_hash": cell.protocol_hash,
        "run": cell.path.name if cell.path else "",
    }


def _mark(results: Results) -> dict[str, Any]:
    """Return what stands before the numbers of smoke runs, in every line that can be cut out."""
    return {"smoke": True} if results.grid.base.smoke else {}


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    if lines:
        writer = csv.DictWriter(out, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return out.getvalue()
