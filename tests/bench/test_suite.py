"""The suite's arithmetic and its tables, by hand: nothing is timed."""

from __future__ import annotations

import importlib
import sys

import pytest

#: the reference's second turn was slow: it must not reach the ratio of the other two
TIMES = {
    "reference": [(10.0, 10.0), (25.0, 25.0), (10.0, 10.0)],
    "dense": [(6.0, 6.0), (6.0, 6.0), (6.3, 6.3)],
    "sparse": [(2.0, 2.0), (2.0, 2.0), (2.0, 2.0)],
}


def test_two_variants_are_paired_with_each_other(benchmarks):
    from entries import over

    value, quartiles = over(TIMES, "dense", "sparse")
    assert value == 3.0
    assert quartiles == (3.0, pytest.approx(3.075))  # of 3, 3 and 3.15


def test_a_result_gives_ratios_to_any_variant():
    from gancompress.bench.infer import BenchInfer

    result = BenchInfer(settings={}, batches={}, times={16: TIMES}, macs={}, error={}, missing={})
    found = result.against(16, "dense")["sparse"]
    assert (found.faster, found.quartiles[0]) == (3.0, 3.0)
    assert found.quartiles[1] < 3.1  # 7 and more if paired through the reference


def test_figures_stand_in_one_table_per_group(benchmarks):
    from entries import Row
    from tables import markdown

    rows = [
        ("I1", Row("batch 16", "density 0.05", 8.634, 8, 12, (8.5, 8.75))),
        ("I1", Row("batch 16", "density 0.1", 5.2, 5.5)),
        ("I2", Row("batch 64", "density 0.05", None, 4, note="not installed")),
        ("M1", Row("ours", "32 channels", 0.52, 0.6, lower=True)),
        ("M1", Row("ours, compact", "32 channels", 0.4, None, 0.35, lower=True)),
        ("M5", Row("operations", "", 8, 20, lower=True, note="counted")),
    ]
    text = markdown(rows, {"I1": "as exported", "I2": "narrower", "M1": "optimizers", "M5": "operations"})
    for line in (
        "- I1: as exported",
        "| id | case | density 0.05 | density 0.1 |",
        "| I1 | batch 16 | 8.63 [8.50–8.75] (8; 12) | **5.20** (5.5) |",
        "| I2 | batch 64 | not measured (4), not installed |  |",
        "| id | case | 32 channels |",
        "| M1 | ours | 0.52 (≤ 0.6) |",
        "| M1 | ours, compact | 0.40 (stretch ≤ 0.35) |",
        "| id | case | measured |",
        "| M5 | operations | 8.00 (≤ 20), counted |",
        "### Missed: 1 of 4 targets",
        "- I1, batch 16, density 0.1: 5.20 for 5.5",
    ):
        assert line in text.splitlines()
    assert "### Files" not in text


def test_tables_go_between_the_marks_of_a_page(benchmarks):
    from tables import BEGIN, END, into

    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    new = into(page, "tables\n")
    assert new == f"above\n{BEGIN}\n\ntables\n\n{END}\nbelow\n"
    assert into(new, "tables\n") == new
    assert into("no marks", "tables\n") == into("", "tables\n") == "tables\n"


def test_the_suite_lists_what_it_measures(benchmarks, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["suite.py", "--list"])
    importlib.import_module("suite").main()
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    ids = "I0 I1 I1b I2 I3 I4 I5 I6 I7 Q1 Q2 N1 F1 E1 E2 M1 M2 M3 M4 M5 M6 T1 S1 S2 S3 S4 S5 S6 S7 D1 D2 P0 P1 P2"
    assert sorted(names) == sorted(ids.split())


def test_files_are_smaller_in_blocks(benchmarks):
    from bench_export import measure

    single, inputs, blocks = (
        measure(32, 0.1, "int8", False, pattern)[0] for pattern in ("single weights", "1x4", "2x4")
    )
    assert single < inputs < blocks < 40  # a tenth of the weights in a byte each


def test_a_file_is_described_as_it_was_written(benchmarks, tmp_path):
    from bench_export import describe

    from gancompress.backbones.base import prunable_weights
    from gancompress.backbones.sngan import SNGAN, SNGANConfig
    from gancompress.data.base import ImageSpec
    from gancompress.export.packed import export_packed

    generator, path = SNGAN(SNGANConfig(channels=8), ImageSpec(3, 32)).generator(), tmp_path / "g.safetensors"
    masks = {name: weight.parameter != 0 for name, weight in prunable_weights(generator).items()}
    sizes = export_packed(generator, path, model={"name": "sngan", "channels": 8}, masks=masks, values="bf16").values()
    own = [size for size in sizes if size.kind == "convolution"]
    ratio, elements = sum(one.dense for one in own) / sum(one.packed for one in own), sum(one.elements for one in own)
    kept = sum(one.kept for one in own)
    assert describe(path).startswith(f"convolutions {ratio:.1f}x, {kept} of {elements} weights kept in ")
    assert describe(path).endswith(f"scales 0.00 bits a kept one; file {path.stat().st_size} bytes")


def test_sizes_in_int8_have_their_target_at_a_tenth(benchmarks, monkeypatch):
    import suite_inference  # noqa: F401  # registers the entry
    from entries import ENTRIES

    monkeypatch.setattr("bench_export.measure", lambda *given: (37.9,))
    rows = {(row.case, row.at): row for row in ENTRIES["F1"].measure(1)}
    assert len(rows) == 15
    for pattern in ("single weights", "1x4", "2x4"):
        aims = [rows[f"values in int8, {pattern}", f"density {density}"] for density in (0.05, 0.1, 0.2)]
        assert [(row.target, row.stretch, row.met) for row in aims] == [
            (None, None, None),
            (38, 45, False),
            (None,) * 3,
        ]
    assert [rows["values in bf16", f"density {density}"].target for density in (0.05, 0.1, 0.2)] == [35, 20, 11]
