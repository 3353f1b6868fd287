"""Whether a time that was asked for is met: channels cut to a time, exported, and timed anew by other processes.

    python benchmarks/channel_times.py --upscaler srvgg_x4.onnx

Every network of ours trains one step on drawn shapes, for times do not ask what weights hold. ``gancompress compress
--method channels --target`` cuts it, to a share of its time and to milliseconds; fresh processes then time what was
written in turn with the whole network in torch: one image, one thread, process CPU time. A line per network and target
says what was asked, what was measured, and how far that is off: the median of the processes, and the nearest and
farthest of them. ``--only NAME`` takes one network, for machines that are quiet for a minute at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPES = Path(__file__).parent.parent / "recipes"
#: what is cut: recipe and settings
RUNS = {
    "DCGAN, 128 channels, 32 x 32": ("sngan_cifar10.yaml", ["model.name=dcgan", "model.channels=128"]),
    "SNGAN, 256 channels, 32 x 32": ("sngan_cifar10.yaml", ["model.channels=256"]),
    "BigGAN, 64 channels, 32 x 32": ("stgan_biggan.yaml", []),
}
#: shares of the whole network's time that are asked for; the first is asked for in milliseconds too
SHARES = (0.4, 0.25)
SIDE = 128


def timed(whole: Path, narrow: Path) -> None:
    """Print milliseconds of the whole network and of the narrow one, in turns."""
    import torch

    import gancompress
    from gancompress.bench.timing import alternate, keep_memory, ratios, with_threads
    from gancompress.export.loading import LoadedGenerator
    from gancompress.foreign.calibration import typical_inputs
    from gancompress.foreign.network import open_onnx

    small = gancompress.load(narrow)
    if isinstance(small, LoadedGenerator):
        large = gancompress.load(whole).packed.generator()
        run, given = small.network, (torch.randn(1, large.latent_dim),)
        if large.num_classes:
            given = (*given, torch.tensor([0]))
    else:
        large = open_onnx(whole)
        run, given = small, typical_inputs(large.captured, SIDE)
    keep_memory()
    with with_threads(1), torch.no_grad():
        steps = {"whole": lambda: large(*given), "narrow": lambda: run(*given)}
        for step in steps.values():
            step()
        found = ratios(alternate(steps, 9, calls=5), "whole")
    print(json.dumps([1e3 * found["whole"].seconds, 1e3 * found["narrow"].seconds, 1 / found["narrow"].faster]))


def told(*command: str) -> str:
    """What a command prints; its words where it fails."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def gancompress(*command: str) -> str:
    """Run the program."""
    return told("-m", "gancompress", *command)


def measured(whole: Path, narrow: Path, processes: int) -> list[list[float]]:
    """Milliseconds of both and the share, once per process."""
    return [json.loads(told(__file__, "--time", str(whole), str(narrow))) for _ in range(processes)]


def newest(directory: Path, pattern: str, before: set[Path]) -> Path:
    """The one match that was not there before."""
    (found,) = set(directory.glob(pattern)) - before
    return found


def cut(whole: Path, source: Path, target: str, options: list[str], place: Path) -> Path:
    """Cut a network to a target and return the file that holds what is left."""
    before = set(place.glob("*"))
    gancompress("compress", str(source), "--method", "channels", "--target", target, "--out", str(place), *options)
    run = newest(place, "*", before)
    if source.suffix == ".onnx":
        (written,) = run.glob("*.safetensors")
        return written
    gancompress("export", str(run))
    return run / "export" / "generator.safetensors"


def lines(name: str, whole: Path, source: Path, options: list[str], place: Path, processes: int) -> None:
    """Print a line per target of one network."""
    asked: list[tuple[str, float, int]] = [(f"ms={share:.0%}", share, 2) for share in SHARES]
    for target, value, column in asked:
        narrow = cut(whole, source, target, options, place)
        turns = measured(whole, narrow, processes)
        if len(asked) == len(SHARES):
            milliseconds = round(SHARES[0] * statistics.median(turn[0] for turn in turns), 3)
            asked.append((f"ms={milliseconds:g}", milliseconds, 1))
        off = sorted((turn[column] / value - 1 for turn in turns), key=abs)
        found = statistics.median(turn[column] for turn in turns)
        print(
            f"{name} | {target} | {found:.3g} | {found / value - 1:+.1%} | {off[0]:+.1%} to {off[-1]:+.1%}", flush=True
        )


def main(asked: argparse.Namespace) -> None:
    """Print a table."""
    if asked.time:
        timed(*asked.time)
        return
    print("network | asked | measured | off, median | nearest and farthest process")
    with tempfile.TemporaryDirectory() as root:
        for index, (name, (recipe, settings)) in enumerate(RUNS.items()):
            if asked.only and not name.startswith(asked.only):
                continue
            place = Path(root) / str(index)
            settings = [*settings, "data={name: shapes, images: 200}", "training.steps=1", "training.batch_size=4"]
            settings += ["training.discriminator_steps=1", "evaluation.samples=64"]
            for network in ("generator", "discriminator"):
                settings.append(f"sparsity.{network}.density=1.0")
            options = [part for one in settings for part in ("--set", one)]
            gancompress("run", str(RECIPES / recipe), "--out", str(place / "runs"), *options)
            (run,) = (place / "runs").glob("*")
            gancompress("export", str(run))
            whole = run / "export" / "generator.safetensors"
            lines(name, whole, run, ["--steps", "1", "--no-player"], place / "cut", asked.processes)
        if asked.upscaler:
            lines("upscaler, 128 x 128", asked.upscaler, asked.upscaler, [], Path(root) / "upscaler", asked.processes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upscaler", type=Path)
    parser.add_argument("--only", help="how the name of one of ours begins")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--time", nargs=2, type=Path, help=argparse.SUPPRESS)
    main(parser.parse_args())
