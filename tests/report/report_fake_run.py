"""A run directory as a run leaves it, with numbers that are easy to recompute."""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING

from gancompress.runs.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = {
    "name": "quickstart",
    "description": "Sparse class-conditional GAN on handwritten digits.",
    "seed": 0,
    "data": {"name": "digits"},
    "model": {"name": "dcgan", "width": 64},
    "sparsity": {
        "method": {"name": "dst", "drop": "magnitude", "grow": "gradient"},
        "density": None,
        "generator": {"density": 0.2045, "allocation": "erk"},
        "discriminator": {"density": 0.46, "allocation": "erk"},
    },
    "training": {"steps": 2000, "batch_size": 64},
}

PROTOCOL = (
    "classifier-1f3a9c2d (held-out accuracy 0.989), 1,000 generated against 1,797 real, uniform classes, EMA weights, "
    "batch norm: running, seed 0"
)

GENERATOR = [
    # name, shape, kept, dense MACs, sparse MACs
    ("input.weight", [1024, 74], 75776, 75776, 75776),
    ("blocks.0.conv1.weight", [256, 256, 3, 3], 90832, 9437184, 1453312),
    ("blocks.0.conv2.weight", [256, 256, 3, 3], 90832, 9437184, 1453312),
    ("blocks.1.conv1.weight", [256, 256, 3, 3], 90832, 37748736, 5813248),
    ("blocks.1.shortcut.weight", [256, 256, 1, 1], 40632, 4194304, 2600448),
    ("output.weight", [1, 256, 3, 3], 2304, 147456, 147456),
]
DISCRIMINATOR = [
    ("blocks.0.conv1.weight", [128, 1, 3, 3], 1152, 73728, 73728),
    ("blocks.0.conv2.weight", [128, 128, 3, 3], 67584, 9437184, 4325376),
    ("blocks.1.conv1.weight", [128, 128, 3, 3], 67584, 2359296, 1081344),
]


def png(side: int, level: int) -> bytes:
    """A grey square with rings, as a real PNG."""
    rows = b"".join(
        b"\0" + bytes((level + 40 * int(math.hypot(x - side / 2, y - side / 2))) % 256 for x in range(side))
        for y in range(side)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def metrics_at(step: int) -> list[dict]:
    distance = 12.0 + 180 * math.exp(-step / 300) + (3.5 if step == 2000 else 0)
    return [
        {"name": "fd", "label": "FD[classifier-1f3a9c2d]", "value": distance, "std": None, "higher_is_better": False,
         "protocol": f"{PROTOCOL} [51bf0c77aa10]"},
        {"name": "is", "label": "IS[classifier-1f3a9c2d]", "value": 9 - 8 * math.exp(-step / 400), "std": 0.081,
         "higher_is_better": True, "protocol": f"{PROTOCOL}, 10 splits [92cd1a34be77]"},
        {"name": "precision", "label": "precision[classifier-1f3a9c2d]", "value": 0.9 * (1 - math.exp(-step / 500)),
         "std": None, "higher_is_better": True, "protocol": f"{PROTOCOL}, 3 neighbours [0b7c6d5e4f32]"},
    ]  # fmt: skip


def write_log(run: RunDirectory, last: int = 2000) -> None:
    for step in range(50, last + 1, 50):
        wave = math.sin(step / 90) * math.exp(-step / 2500)
        run.log(
            {
                "kind": "train", "step": step, "round": 0, "loss_generator": 0.4 + 0.5 * wave,
                "loss_discriminator": 1.6 - 0.3 * wave, "d_real": 0.5 + 0.2 * wave, "d_fake": -0.5 - 0.25 * wave,
                "density_generator": 391208 / 1913088, "density_discriminator": 136320 / 296064,
                "seconds": step * 0.038,
                "rate": 26 + wave, "learning_rate": 2e-4 * (1 - step / 2200),
            }
        )  # fmt: skip
        if step % 100 == 0:
            for role, start in (("generator", 0.2), ("discriminator", 0.5)):
                share = 0.5 * (1 + math.cos(math.pi * step / 2000)) / 2
                run.log(
                    {"kind": "update", "step": step, "role": role, "grown": 100, "dropped": 100, "churn": share * 0.8,
                     "exploration": 1 - (1 - start) * math.exp(-step / 1500), "density": start, "drop_fraction": share}
                )  # fmt: skip
        if step % 250 == 0:
            run.log({"kind": "evaluation", "step": step, "metrics": metrics_at(step), "seconds": 2.5})
        if step % 100 == 0:
            path = run.sample_path(step)
            path.write_bytes(png(80, step // 10))
            run.log({"kind": "sample", "step": step, "file": f"samples/{path.name}"})


def layers() -> list[dict]:
    return [
        {"role": role, "name": name, "shape": shape, "numel": math.prod(shape), "nonzeros": kept, "macs_dense": dense,
         "macs_sparse": sparse}
        for role, table in (("generator", GENERATOR), ("discriminator", DISCRIMINATOR))
        for name, shape, kept, dense, sparse in table
    ]  # fmt: skip


def make_run(path: Path) -> RunDirectory:
    run = RunDirectory.claim(path, RECIPE, "ab12cd34-s0")
    run.status("running")
    write_log(run)
    steps = range(250, 2001, 250)
    evaluations = [{"step": step, "metrics": metrics_at(step)} for step in steps]
    run.write_json(
        "metrics.json",
        {
            "primary": "FD[classifier-1f3a9c2d]",
            "best": evaluations[-2],
            "last": evaluations[-1],
            "evaluations": evaluations,
        },
    )
    run.write_json(
        "cost.json",
        {
            "theory": {
                "inference": {
                    "generator": {"flops": 23_087_104, "dense_flops": 122_081_280, "flops_ratio": 0.189},
                    "discriminator": {"flops": 10_960_896, "dense_flops": 23_740_416, "flops_ratio": 0.4617},
                },
                "counted": "MACs of kept weights. Activations are not counted.",
                "training": {
                    "flops": 2_021_000_000_000,
                    "dense_flops": 10_000_000_000_000,
                    "parts_flops": {"generator": 1.5e12, "discriminator": 5.2e11, "dense_gradients": 1e9, "fisher": 0},
                    "convention": "steps",
                    "executed": {"flops": 2_021_000_000_000, "dense_flops": 10_000_000_000_000},
                },
            },
            "time": {
                "training_seconds": 76.0,
                "generator_latency": {
                    "median_seconds": 0.00124,
                    "quartiles_seconds": [0.00121, 0.00131],
                    "batch": 1,
                    "repeats": 11,
                    "device": "cpu",
                    "threads": 2,
                    "dtype": "float32",
                    "autocast": "off",
                    "kernels": "dense",
                },
            },
            "bytes": {
                "generator": {"dense": 7877632, "packed": 1811008, "masks": 229912, "optimizer": 15_755_264},
                "discriminator": {"dense": 1_184_256, "packed": 577_896},
                "training": {"peak": 48_000_000, "masks": 1},
            },
            "layers": layers(),
        },
    )
    run.write_json(
        "environment.json",
        {"python": "3.11.9", "processor": "An Imaginary CPU", "device": "cpu", "threads": 2, "commit": "e295bca",
         "versions": {"torch": "2.15.0", "gancompress": "0.1.0"}},
    )  # fmt: skip
    run.status("done")
    return run
