"""``gancompress bench``: measured ratios on this machine, sparse against the dense alternatives."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gancompress.cli.app import RecipeArgument, SetOption, add_command, group
from gancompress.errors import RecipeError
from gancompress.storage.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gancompress.bench.timing import Ratio

__all__ = ["bench", "infer", "numbers", "train"]


bench = group(
    "bench",
    "Time this machine: sparse against the dense alternatives, side by side in one run.",
    "gancompress bench train quickstart --rounds 3",
)

RoundsOption = Annotated[int, typer.Option("--rounds", min=2, help="Timed turns of every variant.")]
DensityOption = Annotated[
    str | None, typer.Option("--density", help="Densities, e.g. 0.05,0.1; as 0.05/0.3 for G and D apart.")
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")]


def train(
    recipe: RecipeArgument,
    set_: SetOption = None,
    density: DensityOption = None,
    rounds: RoundsOption = 5,
    threads: ThreadsOption = 1,
    bf16: Annotated[bool, typer.Option("--bf16", help="Time bf16 too.")] = False,
    compile_: Annotated[bool, typer.Option("--compile", help="Time torch.compile too (minutes to start).")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Leave out the switches one by one.")] = False,
    device: Annotated[Literal["cpu", "cuda"], typer.Option("--device", help="Where to train.")] = "cpu",
    json_: JsonOption = None,
) -> None:
    """Time one training step of a recipe: the plain style of the field, each switch alone, all together, sparse.

    Steps of a task other than images of latents have no plain style; they are timed against the best dense one.

    Example: gancompress bench train quickstart --rounds 3
    """
    from gancompress import api
    from gancompress.bench.train import parse_densities

    _check_place("--json", json_)

    result = api.bench_train(
        recipe,
        set_ or (),
        densities=parse_densities(density) if density else (),
        rounds=rounds,
        threads=threads,
        bf16=bf16,
        compile=compile_,
        brief=brief,
        device=device,
    )
    _say(result.settings)
    if result.against_plain:
        _table("one training step", result.against_plain, {f"than {result.best_dense}": result.against_best})
    else:  # nobody's plain style is known for this task
        _table("one training step", result.against_best, {})
    if any(name.startswith("sparse") for name in result.against_best):
        _say_dense()
    if device == "cuda":
        rates = ", ".join(f"{name} {result.images_per_second(name):.0f}" for name in result.against_best)
        typer.echo(f"\nreal images per second: {rates}")
    chosen = sum(above < 1 for above in result.folded.values())
    typer.echo(f"\nfolded where measured to be faster: {chosen} of {len(result.folded)} shapes")
    _table("optimizers of all networks", result.optimizer, {})
    spread = [100 * (result.masking[key] - 1) for key in ("median", "first", "third")]
    typer.echo("\nmasks cost {:+.1f} % [{:+.1f} to {:+.1f}] of a dense step without them".format(*spread))
    typer.echo(f"timed alone, those of all networks are {100 * result.masking['alone']:.2f} % of it")
    counted = ", ".join(f"{name} {count}" for name, count in result.operations.items())
    typer.echo(f"dispatched operations of all networks: {counted}")
    _write(json_, result.to_dict())


def infer(
    recipe: RecipeArgument,
    set_: SetOption = None,
    density: Annotated[str, typer.Option("--density", help="Densities of the generator.")] = "0.05,0.1,0.2,0.3,0.5",
    batch: Annotated[str, typer.Option("--batch", help="Images per call.")] = "1,16,64",
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="For FILE.onnx or my_net.py:make: shape of an input, as 1x3x128x128. Repeat for several.",
        ),
    ] = None,
    rounds: RoundsOption = 7,
    threads: ThreadsOption = 1,
    compile_: Annotated[bool, typer.Option("--compile", help="Time torch.compile too (minutes to start).")] = False,
    json_: JsonOption = None,
) -> None:
    """Time the generator of a recipe: dense in every way that is installed, and compiled sparse.

    A network from elsewhere (bench infer upscaler.onnx --input 1x3x128x128 --density 0.1,0.3) is timed with its
    smallest weights taken out, so the figures are about speed alone.

    Example: gancompress bench infer quickstart --batch 1,16 --rounds 3
    """
    from gancompress import api
    from gancompress.api.networks import is_foreign

    _check_place("--json", json_)

    densities = numbers(density, "--density", float, 1.0)
    if is_foreign(recipe):
        from gancompress.bench.networks import ONNXRUNTIME
        from gancompress.bench.timing import machine

        found = api.bench_network(recipe, densities=densities, inputs=input_ or (), rounds=rounds, threads=threads)
        shapes = ", ".join(" x ".join(map(str, shape)) for shape in found.shapes)
        known = {**machine(), "threads": threads}
        typer.echo(f"{recipe}, input {shapes}, " + ", ".join(f"{key} {value}" for key, value in known.items()))
        typer.echo("the smallest weights are taken out and nothing is refitted: this is about speed, not quality")
        others = {"than onnxruntime": found.against(ONNXRUNTIME)} if ONNXRUNTIME in found.rows else {}
        _table("one call", found.rows, others)
        _say_dense()
        for reason in found.missing:
            typer.echo(f"left out: {reason}")
        _write(json_, {"machine": known, **dataclasses.asdict(found)})
        return
    if input_:
        raise RecipeError("--input is for a network from elsewhere: FILE.onnx, or my_net.py:make")
    batches = [int(value) for value in numbers(batch, "--batch", int, 1e6)]
    result = api.bench_infer(
        recipe,
        set_ or (),
        densities=densities,
        batches=batches,
        rounds=rounds,
        threads=threads,
        compile=compile_,
    )
    _say(result.settings)
    for size, rows in result.batches.items():
        engines = [name for name in ("onnxruntime", "openvino") if name in rows]
        _table(f"batch {size}", rows, {f"than {name}": result.against(size, name) for name in engines})
        done = ", ".join(f"{name}: {result.gflops(size, name):.0f}" for name in result.macs)
        typer.echo(f"GFLOP/s of the kept weights: {done}")
    _say_dense()
    typer.echo(f"\nlargest difference to eager: {max(result.error.values()):.1e}")
    for reason in dict.fromkeys(result.missing.values()):
        names = "; ".join(name for name, why in result.missing.items() if why == reason)
        typer.echo(f"left out: {names}: {reason}")
    _write(json_, result.to_dict())


add_command("train", train, to=bench)
add_command("infer", infer, to=bench)


def numbers(text: str, option: str, kind: type, largest: float) -> list[float]:
    """Read positive numbers with commas between them.

    Raises:
        RecipeError: naming the option and the part that is none.
    """
    found = []
    for part in text.split(","):
        try:
            value = kind(part)
        except ValueError:
            value = 0
        if not 0 < value <= largest:
            raise RecipeError(f"{option}: {part.strip()!r} is not a number above 0, at most {largest:g}")
        found.append(value)
    return found


def _check_place(option: str, path: Path | None) -> None:
    """Refuse before minutes of measuring what could not be written after them."""
    if path is not None and not path.parent.is_dir():
        raise RecipeError(f"{option}: there is no folder {path.parent}: make it first")


def _say_dense() -> None:
    from gancompress.kernels import status

    if not status().available:
        typer.echo(f"the sparse rows ran dense: no native kernels, {status().reason}")


def _say(settings: Mapping[str, Any]) -> None:
    model = dict(settings["model"])
    name = model.pop("name")
    typer.echo(", ".join(f"{key} {name if key == 'model' else value}" for key, value in settings.items()))
    typer.echo(f"{name}: " + ", ".join(f"{key} {json.dumps(value)}" for key, value in model.items()))


def _table(title: str, rows: Mapping[str, Ratio], others: Mapping[str, Mapping[str, Ratio]]) -> None:
    reference = next(iter(rows))
    width = max(len(name) for name in (*rows, title))
    heads = [f"than {reference}", *others]
    typer.echo(f"\n{title:<{width}} {'ms':>10}  " + "  ".join(f"{head:>24}" for head in heads))
    for name, row in rows.items():
        cells = [_cell(found[name]) for found in (rows, *others.values())]
        typer.echo(f"{name:<{width}} {1e3 * row.seconds:10.1f}  " + "  ".join(f"{cell:>24}" for cell in cells))


def _cell(ratio: Ratio) -> str:
    return f"{ratio.faster:.2f}x [{ratio.quartiles[0]:.2f}-{ratio.quartiles[1]:.2f}]"


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        write_json(path, content)
        typer.echo(f"\nwritten: {path}")
