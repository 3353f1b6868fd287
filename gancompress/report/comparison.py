"""The page of a comparison: one HTML file that needs nothing else, made again from its runs at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gancompress.comparison.results import short_names
from gancompress.errors import RunError
from gancompress.recipe.identity import resolved_yaml
from gancompress.report.comparison_charts import Style, cost_charts, density_chart, learning_charts, styles
from gancompress.report.comparison_table import (
    COLUMNS,
    LOADS,
    difference_rows,
    how_best_is_picked,
    how_differences_are_made,
    how_times_are_measured,
    loads_differ,
    notes_of,
    row_texts,
    say_spread,
    write_tables,
)
from gancompress.report.held import held_equal
from gancompress.report.pages import fill, png_uri, write_page
from gancompress.report.player import PlayerPart, comparison_part
from gancompress.report.published import answers_of_comparison
from gancompress.report.verdict import group_words
from gancompress.report.widths import sweep_table
from gancompress.report.words import scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gancompress.comparison.grid import Grid, Row
    from gancompress.comparison.results import Results, RowResult

__all__ = ["build_comparison", "render_comparison", "shown_generators"]


def build_comparison(results: Results, command: str = "", *, player: bool = True) -> Path:
    """Write ``compare.json``, ``compare.csv``, ``cells.csv`` and ``compare.html`` into its directory; return the page.

    Args:
        results: of the comparison.
        command: what repeats it, as it is typed.
        player: put the generators into the page, where they run.

    Raises:
        RunError: the disk refuses.
    """
    try:
        write_tables(results)
    except OSError as error:
        raise RunError(f"cannot write the comparison: {error.strerror}", where=str(results.path)) from error
    return write_page(results.path / "compare.html", render_comparison(results, command, player=player))


class _Picture(NamedTuple):
    label: str
    detail: str
    uri: str


def render_comparison(results: Results, command: str = "", *, player: bool = True) -> str:
    """Return the page as text: UTF-8, no address outside itself, and no script but the player's."""
    rows = results.grid.rows
    looks = styles((row.choice.label for row in rows), {row.choice.label for row in rows if row.baseline})
    return fill(
        "comparison.html.j2",
        results=results,
        grid=results.grid,
        title=_title(results),
        facts=_about(results),
        warnings=_warnings(results),
        equal=held_equal(results.grid),
        picked=how_best_is_picked(results),
        paired=how_differences_are_made(results),
        columns=COLUMNS,
        tables=[_table(results, key, rows, looks) for key, rows in results.tables.items()],
        published=[(row.label, answer) for row, answer in answers_of_comparison(results)],
        recipe=resolved_yaml(results.grid.base, defaults=False),
        command=command,
        widths=sweep_table(results.grid, results.primary),
        loads=LOADS if loads_differ(results) else "",
        runs=_runs(results),
        player=comparison_part(shown_generators(results)) if player else PlayerPart(),
    )


def shown_generators(results: Results) -> list[tuple[str, Path]]:
    """Return name and run directory of every row's first seed, the rows that others are held against last."""
    rows = sorted((row for table in results.tables.values() for row in table), key=lambda row: row.baseline)
    return [(row.label, cell.path) for row in rows for cell in row.cells[:1] if cell.path is not None]


def _runs(results: Results) -> list[tuple[str, str, str]]:
    """Return name, state and, where it is, the report of every run, as seen from the page."""
    found = {}
    for cell in results.cells:
        if cell.path is not None:
            there = (cell.path / "report.html").is_file()
            found[cell.path.name] = (cell.name, cell.state, f"../runs/{cell.path.name}/report.html" if there else "")
    return list(found.values())


def _title(results: Results) -> str:
    names = short_names(row.choice for row in results.grid.rows)
    contenders = dict.fromkeys(row.choice.label for row in results.grid.rows if not row.baseline)
    return " · ".join(names[label] for label in contenders) or "dense"


def _about(results: Results) -> list[tuple[str, str]]:
    grid = results.grid
    densities = dict.fromkeys(
        f"{row.density:g}" for row in grid.rows if row.density is not None and not _fits_width(row)
    )
    of = "of both networks" if grid.density_of == "both" else "of the generator"
    return [
        ("data", grid.base.data.name),
        ("model", grid.base.model.name),
        *(() if grid.base.discriminator is None else (("discriminator", grid.base.discriminator.name),)),
        (f"density {of}", ", ".join(densities) or "1"),
        ("seeds", ", ".join(str(seed) for seed in grid.seeds)),
        ("runs", f"{len({cell.path for cell in results.cells if cell.done})} of {len(grid.cells)} done"),
        ("dense training", f"{scaled(grid.dense.training_flops)} FLOPs"),
    ]


def _fits_width(row: Row) -> bool:
    return row.planned is not None and row.planned.channels is not None


def _warnings(results: Results) -> list[str]:
    warnings = []
    if results.grid.base.smoke:
        warnings.append(
            "These are smoke runs: they show that everything works, on images that they drew themselves. Their numbers "
            "mean nothing."
        )
    if len(results.grid.seeds) == 1:
        warnings.append(
            "One seed: an anecdote. Differences may be chance; three seeds or more show how large chance is."
        )
    if len(results.tables) > 1:
        warnings.append(
            "The runs were evaluated under different protocols. Each has a table of its own; values must not be "
            "compared across them."
        )
    for cell in results.missing:
        reason = f": {cell.reason}" if cell.reason else ""
        warnings.append(f"Missing: {cell.name} ({cell.state}{reason}).")
    return warnings


def _table(results: Results, key: str, rows: Sequence[RowResult], looks: Mapping[str, Style]) -> dict[str, Any]:
    figures = [
        density_chart(results, rows, looks),
        *cost_charts(results, rows, looks),
        *learning_charts(results, rows, looks),
    ]
    return {
        "protocol": results.protocols[key],
        "rows": [
            {
                "swatch": looks[row.method].swatch,
                "texts": row_texts(row, len(results.grid.seeds), loads=loads_differ(results)),
                "metrics": [say_spread(row.last[label]) for label in results.metrics],
                "label": row.label,
                "group": row.group,
            }
            for row in rows
        ],
        "verdicts": notes_of(results, rows),
        "times": how_times_are_measured(rows),
        "differences": difference_rows(results, rows) if len(results.grid.seeds) > 1 else ([], []),
        "figures": [figure for figure in figures if figure is not None],
        "groups": _pictures(results.grid, rows),
    }


def _pictures(grid: Grid, rows: Sequence[RowResult]) -> list[tuple[str, list[_Picture]]]:
    """Return the last sample grid of every row's first seed, by density; dense stands at the head of each group."""
    seed = min((cell.seed for row in rows for cell in row.cells), default=0)
    found: dict[float | None, list[_Picture]] = {}
    for row in rows:
        cell = next((cell for cell in row.cells if cell.seed == seed), None)
        grids = sorted((cell.path / "samples").glob("*.png")) if cell is not None and cell.path is not None else ()
        picture = png_uri(grids[-1]) if grids else None
        if picture is not None:
            detail = f"{row.kept_ratio:.3g}× the weights"
            found.setdefault(row.group, []).append(_Picture(row.name, detail, picture))
    dense = found.pop(None, [])
    if not found:
        return [(f"seed {seed}", dense)] if dense else []
    return [(f"{group_words(grid, group)}, seed {seed}", [*dense, *pictures]) for group, pictures in found.items()]
