"""Before and after of a compressed run, beside its metrics: milliseconds, and pictures from the same latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gancompress.experiment.compress import Compression

__all__ = ["measure_compression"]

#: images of a timed call, and of a grid: columns, rows
_BATCH, _GRID = 16, (8, 4)
_PIXELS = (-1.0, 1.0)


def measure_compression(done: Compression) -> None:
    """Time the generator before and after, draw both, and add what came of it to ``compress.json``.

    Args:
        done: a compression that has just ended; its run directory gains ``compress/before.png`` and ``after.png``.
    """
    import torch

    from gancompress.backbones.base import prunable_weights
    from gancompress.bench.networks import time_network
    from gancompress.bench.timing import machine, with_threads
    from gancompress.evaluation.samples import sample_grid
    from gancompress.experiment.compress import starting_generator
    from gancompress.experiment.finished import open_run
    from gancompress.export.compiled import compile_generator
    from gancompress.export.plain import example_inputs
    from gancompress.foreign.agreement import psnr

    opened = open_run(done.directory)
    before, after = starting_generator(opened.recipe), opened.generator()
    inputs = tuple(example_inputs(before, _BATCH, "compress").values())
    masks = {name: weight.parameter.detach() != 0 for name, weight in prunable_weights(after).items()}
    with torch.no_grad():
        values = [psnr(a, b, _PIXELS) for a, b in zip(before(*inputs), after(*inputs), strict=True)]
    compiled = compile_generator(after, masks)
    with with_threads(1):
        found = time_network(before, {"sparse": compiled}, inputs)
        measured_on = machine()
    pictures = {}
    (done.directory / "compress").mkdir(exist_ok=True)
    for name, network in (("before", before), ("after", after)):
        pictures[name] = f"compress/{name}.png"
        if network.translates:
            opened.translate(network, done.directory / pictures[name], _GRID[1])
        else:
            sample_grid(network, done.directory / pictures[name], columns=_GRID[0], rows=_GRID[1])
    measured: dict[str, Any] = {
        **found.before_and_after("sparse"),
        "call": f"{_BATCH} images",
        "machine": measured_on,
        "notes": list(found.missing),
        "psnr": {"mean": sum(values) / len(values), "images": len(values)},
        "pictures": pictures,
    }
    record = opened.directory.read_json("compress.json")
    opened.directory.write_json("compress.json", {**record, "measured": measured})
