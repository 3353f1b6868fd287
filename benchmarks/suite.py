"""The whole benchmark suite, one thread, paired ratios on process CPU time: a table of targets and what is reached.

    python benchmarks/suite.py --json suite.json --markdown suite.md     # everything, about ten minutes
    python benchmarks/suite.py --only M1,S3 --rounds 5                    # some entries
    python benchmarks/suite.py --list

Every figure is a ratio inside one run. Engines that are not installed (``pip install 'gancompress[bench]'``) give empty
rows. The same code in the manner of others is an imitation (``peers.py``): none of it is theirs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import traceback
from pathlib import Path

import suite_inference  # noqa: F401  (fills ENTRIES)
import suite_training  # noqa: F401
import torch
from entries import ENTRIES, Row

from gancompress.bench.timing import keep_memory, machine

HEAD = "| id | what | measured | target | met | stretch |\n|---|---|---|---|---|---|"


def number(value: float | str | None) -> str:
    """A figure in as few digits as say something."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}" if abs(value) >= 100 else f"{value:.2f}"


def line(name: str, what: str, row: Row) -> str:
    """One line of the table."""
    measured = "not measured" if row.value is None else number(row.value)
    if row.quartiles is not None:
        measured += f" [{number(row.quartiles[0])}–{number(row.quartiles[1])}]"
    sign = "≤ " if row.lower else "≥ "
    target = "" if row.target is None else sign + f"{row.target:g}"
    met = "" if row.met is None else "yes" if row.met else "**no**"
    stretch = row.stretch if isinstance(row.stretch, str) else "" if row.stretch is None else f"{row.stretch:g}"
    note = f" ({row.note})" if row.note else ""
    return f"| {name} | {what}: {row.case}{note} | {measured} | {target} | {met} | {stretch} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="ids, separated by commas")
    parser.add_argument("--rounds", type=int, default=3, help="timed turns of every variant (quick ones take more)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--list", action="store_true", help="list the entries and stop")
    options = parser.parse_args()
    wanted = [name.strip() for name in options.only.split(",")] if options.only else list(ENTRIES)
    unknown = [name for name in wanted if name not in ENTRIES]
    if unknown:
        parser.error(f"no entry {unknown[0]}; there are {', '.join(ENTRIES)}")
    if options.list:
        for name in wanted:
            print(f"{name:4} {ENTRIES[name].what}")
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    described = ", ".join(f"{key} {value}" for key, value in machine().items())
    print(described, HEAD, sep="\n\n", flush=True)
    lines, figures, began = [HEAD], [], time.perf_counter()
    for name in wanted:
        entry, start = ENTRIES[name], time.perf_counter()
        try:
            rows = list(entry.measure(options.rounds))
        except Exception as error:  # one entry that cannot be measured must not cost the others
            traceback.print_exc()
            rows = [Row("failed", None, note=f"{type(error).__name__}: {error}")]
        seconds = time.perf_counter() - start
        for row in rows:
            lines.append(line(name, entry.what, row))
            print(lines[-1], flush=True)
            figures.append({"id": name, "what": entry.what, **dataclasses.asdict(row), "met": row.met})
        figures[-1]["seconds"] = round(seconds, 1)
    print(f"\n{time.perf_counter() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rounds": options.rounds, "rows": figures}, indent=1))
    if options.markdown:
        options.markdown.write_text("\n".join((described, "", *lines)) + "\n")


if __name__ == "__main__":
    main()
