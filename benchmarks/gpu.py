"""What a GPU makes of a training step, switch by switch, and of STU-GAN's SNGAN against its dense twin.

    python benchmarks/gpu.py --minutes 25 --json gpu.json --set data.path=cifar10_train.zip

First the generators of SNGAN with 256 channels and of BigGAN in bf16: dense, with half of their channels (what
`compress --method channels --density 0.5` leaves), and in 2:4 on the units for sparse matrices; images per second and
ratios, in turns. Then the step of `sngan_cifar10` in every way, as images per second and as ratios in one run
(`gancompress bench train --device cuda`). Last, for what is left of the time, two runs of the same number of steps with
the fastest settings: dense, and the recipe's own (generator density 0.1, stu-gan). The JSON holds all of it, and how
long the whole recipe would take. With `--device cpu` the same happens on a CPU, where only tiny settings make sense.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancompress.bench.generators import bench_generators
from gancompress.bench.train import BF16, COMPILED, GRAPHS, TOGETHER, bench_train
from gancompress.evaluation.extractors import build_extractor
from gancompress.experiment.assemble import build_dataset
from gancompress.experiment.run import Experiment
from gancompress.recipe.load import load_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gancompress.bench.train import BenchTrain
    from gancompress.recipe.schema import Recipe

#: settings of a run that computes its step as the named variant of the bench does
FASTEST = {
    TOGETHER: ("training.channels_last=true",),
    BF16: ("training.channels_last=true", "training.precision=bf16"),
    COMPILED: ("training.channels_last=true", "training.precision=bf16", "training.compile=true"),
    GRAPHS: ("training.channels_last=true", "training.precision=bf16", "training.cuda_graphs=true"),
}
DENSE = "sparsity={method: dense}"
#: recipes whose generators are timed, and what is drawn in place of their data
GENERATORS = ("sngan_cifar10", "stgan_biggan")
DRAWN = "data={name: shapes, resolution: 32, images: 20, classes: 10}"
#: of the time that is left, what the two runs get; the rest is for starting and evaluating
SHARE = 0.8


def run(recipe: Recipe, evaluates: bool) -> dict[str, Any]:
    """Run one recipe from scratch in a directory that is thrown away; return what it took and gave."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = Experiment(recipe, Path(folder), evaluates=evaluates).run()
        wall = time.perf_counter() - began
        log = [json.loads(line) for line in (result.path / "log.jsonl").read_text().splitlines()]
    trained = [record for record in log if record["kind"] == "train"]
    return {
        "steps": recipe.training.steps,
        "wall_seconds": wall,
        "training_seconds": trained[-1]["seconds"],
        "last": trained[-1],
        "metrics": result.metrics,
        "theory": result.cost["theory"],
    }


def generators(overrides: Sequence[str], device: str, batch: int, rounds: int) -> dict[str, Any]:
    """Time generators in every way; print a line each."""
    found: dict[str, Any] = {}
    for name in GENERATORS:
        recipe = load_recipe(name, overrides=(DRAWN, *overrides)).recipe
        bench = bench_generators(recipe, device=device, batch=batch, rounds=rounds)
        found[name] = dataclasses.asdict(bench)
        for row, ratio in bench.rows.items():
            speed = f"{bench.images_per_second(row):>10.0f} images/s {ratio.faster:>6.2f} x dense"
            print(f"{name:<14} {row:<20} {speed} [{ratio.quartiles[0]:.2f}, {ratio.quartiles[1]:.2f}]", flush=True)
        for row, why in bench.missing.items():
            print(f"{name:<14} {row:<20} not timed: {why.splitlines()[0]}", flush=True)
    return found


def fastest(bench: BenchTrain) -> str:
    """Return the fastest variant that a recipe can ask for."""
    rows = bench.against_plain
    return min((name for name in FASTEST if name in rows), key=lambda name: rows[name].seconds)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, write the JSON and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="sngan_cifar10")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=25.0, help="time for everything")
    parser.add_argument("--steps", type=int, help="steps of both runs; default: what fits")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--generators", type=int, default=256, metavar="BATCH", help="batch of generators; 0: not timed"
    )
    parser.add_argument("--narrower", action="append", default=[], metavar="KEY=VALUE", help="setting of generators")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--no-evaluation", action="store_true")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes

    found: dict[str, Any] = {}
    if options.generators:
        found["generators"] = generators(options.narrower, options.device, options.generators, options.rounds)
        options.json.write_text(json.dumps(found, indent=1))
    whole = load_recipe(options.recipe, overrides=tuple(options.overrides)).recipe
    bench = bench_train(
        whole, rounds=options.rounds, bf16=True, compile=options.compile, alone=True, device=options.device
    )
    variant = fastest(bench)
    seconds = bench.against_plain[variant].seconds
    for name in bench.against_plain:
        print(f"{name:<32} {bench.images_per_second(name):>10.0f} images/s", flush=True)
    found |= {
        "bench": bench.to_dict(),
        "fastest": variant,
        "minutes_for_the_whole_recipe": whole.training.steps * seconds / 60,
        "runs": {},
    }
    options.json.write_text(json.dumps(found, indent=1))
    print(f"{found['minutes_for_the_whole_recipe']:.1f} minutes for all {whole.training.steps:,} steps, {variant}")
    if not options.no_evaluation:
        # what it takes once, minutes on a CPU, is not the runs' time
        build_extractor(whole.evaluation.extractor, build_dataset(whole), device=options.device)

    left = max(0.0, deadline - time.monotonic()) * SHARE / 2
    steps = options.steps or max(1, min(whole.training.steps, int(left / seconds)))
    common = (
        *options.overrides,
        *FASTEST[variant],
        f"training.device={options.device}",
        f"training.steps={steps}",
        f"training.log_every={min(steps, whole.training.log_every)}",
        "training.checkpoint_every=0",
        "training.sample_every=0",
        "evaluation.every=0",
    )
    # the dense run has no use for what the sparse one was told
    unmasked = (*(setting for setting in common if not setting.startswith("sparsity")), DENSE)
    for name, overrides in (("dense", unmasked), ("recipe", common)):
        recipe = load_recipe(options.recipe, overrides=overrides).recipe
        found["runs"][name] = run(recipe, not options.no_evaluation)
        options.json.write_text(json.dumps(found, indent=1))
        print(f"{name}: {steps} steps in {found['runs'][name]['training_seconds']:.1f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
