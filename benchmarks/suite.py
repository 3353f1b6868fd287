"""The whole benchmark suite, one thread, paired ratios on process CPU time: tables of targets and what is reached.

    python benchmarks/suite.py --json suite.json --markdown suite.md     # everything, about half an hour
    python benchmarks/suite.py --only M1,S3 --rounds 5                    # some entries
    python benchmarks/suite.py --only Q1 --where "batch 16" --where "density 0.1"   # and some figures of theirs
    python benchmarks/suite.py --list

Every figure is a ratio inside one run. Engines that are not installed (``pip install 'gancompress[bench]'``) or that
fail give empty cells, and the reason once. MNN gets a temporary environment, or that of the interpreter ``MNN_PYTHON``.
The same code in the manner of others is an imitation (``peers.py``): none of it is theirs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import traceback
from pathlib import Path

import suite_inference  # noqa: F401  (fills ENTRIES)
import suite_limits  # noqa: F401
import suite_training  # noqa: F401
import torch
from entries import ENTRIES, LEFT_OUT, NARROWED, Row, wanted
from tables import cell, into, markdown

from gancompress.bench.timing import keep_memory, machine


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="ids, separated by commas")
    parser.add_argument(
        "--where", action="append", default=[], metavar="WORDS", help="figures whose case or column holds these words"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of every variant (quick ones take more)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--markdown", type=Path, help="write the tables here, or between a page's marks")
    parser.add_argument("--list", action="store_true", help="list the entries and stop")
    options = parser.parse_args()
    names = [name.strip() for name in options.only.split(",")] if options.only else list(ENTRIES)
    unknown = [name for name in names if name not in ENTRIES]
    if unknown:
        parser.error(f"no entry {unknown[0]}; there are {', '.join(ENTRIES)}")
    if options.rounds < 2:
        parser.error("--rounds: quartiles need at least 2")
    if options.list:
        for name in names:
            print(f"{name:4} {ENTRIES[name].what}")
        return
    NARROWED.names, NARROWED.where = tuple(names), tuple(options.where)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    described = ", ".join(f"{key} {value}" for key, value in machine().items()) + f", rounds {options.rounds}"
    print(described, flush=True)
    rows: list[tuple[str, Row]] = []
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    for name in names:
        print(f"\n{name}: {ENTRIES[name].what}")
        start = time.perf_counter()
        try:
            for row in ENTRIES[name].measure(options.rounds):
                if not wanted(row.case, row.at):
                    continue
                rows.append((name, row))
                ran = f" ({row.ran})" if row.ran else ""
                print(f"  {row.case}{', ' if row.case and row.at else ''}{row.at}: {cell(row)}{ran}", flush=True)
        except Exception as error:  # one entry that cannot be measured must not cost the others
            traceback.print_exc()
            rows.append((name, Row("failed", "", None, note=f"{type(error).__name__}: {error}")))
        seconds[name] = round(time.perf_counter() - start, 1)
        write(options, described, rows, seconds)  # what ends in the middle keeps what it has
    print(f"\n{time.perf_counter() - began:.0f} s")


def write(options: argparse.Namespace, described: str, rows: list[tuple[str, Row]], seconds: dict[str, float]) -> None:
    """Write what was measured so far where it was asked for."""
    whats = {name: ENTRIES[name].what for name in seconds}
    if options.json:
        figures = [{"id": name, "what": whats[name], **dataclasses.asdict(row), "met": row.met} for name, row in rows]
        content = {"machine": machine(), "rounds": options.rounds, "seconds": seconds, "left_out": LEFT_OUT}
        options.json.write_text(json.dumps({**content, "rows": figures}, indent=1))
    if options.markdown:
        page = options.markdown.read_text() if options.markdown.exists() else ""
        options.markdown.write_text(into(page, f"{described}\n\n{markdown(rows, whats, LEFT_OUT)}"))


if __name__ == "__main__":
    main()
