"""What trains: ``gancompress.run``, ``train`` and ``compress``.

The command line is a thin layer of words over this module, so both do the same with the same recipe. Interrupt a call
whenever you like: the same call goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

from gancompress.api.networks import Calibration, compress_foreign, distilling, is_foreign
from gancompress.errors import GancompressError, RecipeError, RunError
from gancompress.recipe.identity import directory_name, minimal
from gancompress.recipe.load import LoadedRecipe, load_recipe, parse_recipe, smoke_test
from gancompress.recipe.schema import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gancompress.api.outcomes import CompressionOutcome, RunOutcome
    from gancompress.export.network import NetworkValues
    from gancompress.foreign.compress import CompressedNetwork
    from gancompress.progress import Observer

__all__ = [
    "Overrides",
    "RecipeLike",
    "compress",
    "expressions",
    "is_main_process",
    "plain",
    "resolve",
    "run",
    "train",
]

#: a file, a run directory, the name of a shipped recipe, a recipe, or its contents
RecipeLike: TypeAlias = "str | Path | Recipe | LoadedRecipe | Mapping[str, Any]"

#: ``{"training.steps": 100}``, ``["training.steps=100"]``, or one such text
Overrides: TypeAlias = "Mapping[str, Any] | Sequence[str] | str"


def run(
    recipe: RecipeLike,
    overrides: Overrides = (),
    *,
    out: str | Path = "runs",
    evaluate: bool = True,
    smoke: bool = False,
    player: bool = True,
    track: Sequence[str] = (),
    progress: bool | Observer = True,
) -> RunOutcome:
    """Train, evaluate and report a recipe, or go on with it; as ``gancompress run``.

    Example::

        outcome = gancompress.run("quickstart", {"training.steps": 500, "seed": 1})
        outcome.metrics["fd"].value

    Args:
        recipe: a file, a run directory, the name of a shipped recipe, a recipe, or its contents.
        overrides: settings to change, later ones win.
        out: directory that holds run directories; a run directory given as ``recipe`` stays where it is.
        evaluate: measure the generator as the recipe says.
        smoke: tiny networks, generated images and a few steps, to see that everything works; the numbers mean nothing.
        player: put the generator into ``report.html``, where it runs; not of smoke runs.
        track: trackers that follow the run beside its log: ``["tensorboard", "wandb"]``, ``"wandb:online"``. They
            change no number; the same run goes on as the same run there. One that cannot be used is said once.
        progress: show how it goes: a live line on a terminal or in a notebook, plain lines on standard error
            elsewhere. False is silent; an :class:`~gancompress.progress.Observer` is told.

    Returns:
        The finished run.

    Raises:
        GancompressError: whatever is wrong with the recipe, the data, the directory or the training.
        KeyboardInterrupt: interrupted; a checkpoint was written first.
    """
    from gancompress.tracking.follow import Following, open_trackers

    loaded = resolve(recipe, overrides, smoke=smoke)
    trackers = open_trackers([track] if isinstance(track, str) else track)
    root = Path(out)
    if isinstance(recipe, str | Path) and (Path(recipe) / "recipe.yaml").is_file():
        name = directory_name(loaded.recipe)
        if not smoke or Path(recipe).resolve().name == name:  # a smoke run of a real one stands elsewhere
            root = _parent_of_run(Path(recipe), name)

    from gancompress.api.outcomes import RunOutcome
    from gancompress.api.player import drop_player, make_player
    from gancompress.api.reporting import Reporting
    from gancompress.experiment.acceleration import device_of
    from gancompress.experiment.run import Experiment
    from gancompress.report.html import build_report
    from gancompress.training.groups import Group

    with Group.from_environment(device_of(loaded.recipe)) as group:
        observer: Observer | None = Reporting(_observer(progress)) if group.is_main else None
        if trackers and observer is not None:
            observer = Following(observer, trackers)
        result = Experiment(loaded.recipe, root, observer, evaluates=evaluate, group=group).run()
        if group.is_main:
            (make_player if player else drop_player)(result.path)
            build_report(result.path)
        group.barrier()
    return RunOutcome.read(result.path)


def train(
    recipe: RecipeLike,
    overrides: Overrides = (),
    *,
    out: str | Path = "runs",
    smoke: bool = False,
    player: bool = True,
    track: Sequence[str] = (),
    progress: bool | Observer = True,
) -> RunOutcome:
    """Train a recipe without evaluating it; as ``gancompress train``. See :func:`run`, which evaluates it later."""
    return run(recipe, overrides, out=out, evaluate=False, smoke=smoke, player=player, track=track, progress=progress)


@overload
def compress(
    source: str | Path | nn.Module,
    density: float = 0.1,
    method: str | None = None,
    *,
    example: Tensor | Sequence[Tensor] | None = None,
    dynamic: Mapping[int, str] | Sequence[Mapping[int, str]] | None = None,
    calibration: Calibration,
    pattern: str = "unstructured",
    pixels: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    name: str | None = None,
    distill: str | None = None,
    values: NetworkValues = "float32",
    target: str | None = None,
    importance: str | None = None,
    out: str | Path = "runs",
    progress: bool | Observer = True,
) -> CompressedNetwork: ...


@overload
def compress(
    source: nn.Module,
    density: float = 0.1,
    method: str | None = None,
    *,
    example: Tensor | Sequence[Tensor],
    dynamic: Mapping[int, str] | Sequence[Mapping[int, str]] | None = None,
    pattern: str = "unstructured",
    seed: int = 0,
    name: str | None = None,
    target: str | None = None,
    importance: str | None = None,
    progress: bool | Observer = True,
) -> CompressedNetwork: ...


@overload
def compress(
    source: str | Path | RunOutcome,
    density: float = 0.1,
    method: str | None = None,
    overrides: Overrides = (),
    *,
    steps: int | None = None,
    step: str | int = "last",
    recipe: str | Path | None = None,
    backbone: str | None = None,
    pattern: str = "unstructured",
    values: NetworkValues = "float32",
    distill: str | None = None,
    target: str | None = None,
    importance: str | None = None,
    out: str | Path = "runs",
    player: bool = True,
    progress: bool | Observer = True,
) -> CompressionOutcome: ...


def compress(
    source: str | Path | RunOutcome | nn.Module,
    density: float = 0.1,
    method: str | None = None,
    overrides: Overrides = (),
    *,
    steps: int | None = None,
    step: str | int = "last",
    recipe: str | Path | None = None,
    backbone: str | None = None,
    out: str | Path = "runs",
    example: Tensor | Sequence[Tensor] | None = None,
    dynamic: Mapping[int, str] | Sequence[Mapping[int, str]] | None = None,
    calibration: Calibration | None = None,
    pattern: str = "unstructured",
    pixels: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    name: str | None = None,
    distill: str | None = None,
    values: NetworkValues = "float32",
    target: str | None = None,
    importance: str | None = None,
    player: bool = True,
    progress: bool | Observer = True,
) -> CompressionOutcome | CompressedNetwork:
    """Make a trained generator sparse, and say what that cost; as ``gancompress compress``.

    A run of ours is pruned, fine-tuned as it was trained, and measured before and after. A network from elsewhere, a
    module or an ``.onnx`` file, is pruned from a few of its inputs alone.

    Example::

        outcome = gancompress.compress(gancompress.run("quickstart"), density=0.05)
        outcome.after.metrics["fd"].value

        small = gancompress.compress(module, 0.3, example=(x,), dynamic={0: "n", 2: "h", 3: "w"}, calibration="photos")
        small.save("upscaler.safetensors")

    Args:
        source: a finished run, its directory, a generator's weights as ``.safetensors``; or a module, or ``.onnx``.
        density: share of the generator's weights to keep; with ``channels``, of its channels.
        method: sparsity method; default: ``magnitude`` for a run, ``reconstruct`` for a network from elsewhere.
            ``channels`` keeps whole channels: the result is a narrower dense network.
        overrides: settings of the compressing run to change.
        steps: fine-tuning; default: half of the run's.
        step: checkpoint of the run: ``last``, ``best`` or a number.
        recipe: for weights as ``.safetensors``: recipe with its data and model.
        backbone: for these: backbone to use in place of the recipe's.
        out: directory that holds run directories.
        example: for a module: inputs that it takes, the tensors of one call.
        dynamic: for a module: names of the axes whose sizes may change, for every input, or those of its only one;
            axes of one name have one size. Default: the first axis of each.
        calibration: for a network from elsewhere: inputs as it will meet them, tensors or tuples of tensors; or a
            photograph, a folder of them, or a ``.safetensors`` of inputs. Every fourth is measured by only.
        pattern: units in which weights are kept, as ``sparsity.pattern`` of a recipe.
        pixels: what its images have for black and white.
        seed: of what is looked at of the calibration inputs.
        name: how results call a network from elsewhere.
        distill: for a network from elsewhere: how long to train what is kept to the outputs of the whole one, seconds
            of computing or steps: ``"60s"``, ``"500 steps"``. The same call goes on where one was interrupted. For a
            run: what fine-tuning learns from the whole generator, as ``training.distillation`` of a recipe:
            ``"images,features"``, with weights of one's own ``"images=10,discriminator=1"``.
        values: of the file that it will be written in; with ``int8``, ``distill`` trains with the rounding of bytes,
            and so does the second half of a run's fine-tuning.
        target: with ``channels``, in place of the density: what a call may cost or the network may hold, as in
            ``"ms=10"``, ``"ms=40%"``, ``"macs=1.2G"``, ``"parameters=300k"``, ``"bytes=2M"``.
        importance: with ``channels``: how they are ranked: ``magnitude``, ``lamp``, ``bn-scale``, ``taylor`` or
            ``outputs``; default: ``outputs`` with calibration inputs, ``magnitude`` without.
        player: of a run: put the generator into the report, as in :func:`run`.
        progress: as in :func:`run`.

    Raises:
        GancompressError: whatever is wrong with the source, the density, the data or the training.
        KeyboardInterrupt: interrupted; a checkpoint was written first.
    """
    from gancompress.api.channel_options import channel_options, in_turn
    from gancompress.api.compressed_run import measure_compression
    from gancompress.api.outcomes import CompressionOutcome, RunOutcome
    from gancompress.api.player import drop_player, make_player
    from gancompress.api.reporting import Reporting
    from gancompress.experiment.channels import plan_channels
    from gancompress.experiment.compress import compress as start
    from gancompress.experiment.compress import open_source, plan_compression
    from gancompress.experiment.teacher import learning_from
    from gancompress.progress import Silent
    from gancompress.report.html import build_report

    if is_foreign(source):
        of_runs = {"overrides": overrides, "steps": steps, "recipe": recipe, "backbone": backbone}
        if given := [key for key, value in of_runs.items() if value]:
            raise RecipeError(f"{given[0]} is for runs: a network from elsewhere is pruned without training")
        told = _observer(progress) or Silent()
        stem = Path(source).stem if isinstance(source, str | os.PathLike) else type(source).__name__
        with distilling(distill, Path(out) / f"{name or stem}-d{density:g}", told) as distillation:
            return compress_foreign(
                cast("str | Path | nn.Module", source), density, method, example=example, dynamic=dynamic,
                calibration=calibration, pattern=pattern, pixels=pixels, seed=seed, name=name, observer=told,
                distillation=distillation, values=values, target=target, importance=importance,
            )  # fmt: skip
    of_networks = {
        "example": example, "dynamic": dynamic, "calibration": calibration, "name": name,
        "pixels": None if tuple(pixels) == (0.0, 1.0) else pixels, "seed": seed or None,
    }  # fmt: skip
    if given := [key for key, value in of_networks.items() if value is not None]:
        raise RecipeError(f"{given[0]} is for networks from elsewhere, a module or an .onnx file")
    path = source.directory if isinstance(source, RunOutcome) else Path(cast("str | Path", source))
    opened = open_source(path, recipe=None if recipe is None else str(recipe), backbone=backbone, step=str(step))
    changes = (() if distill is None else learning_from(opened.path, distill)) + expressions(overrides)
    changes += (f"sparsity.pattern={pattern}",) * (pattern != "unstructured")
    if values not in ("float32", "int8"):
        raise RecipeError(f"values: fine-tuning is for float32 or int8, not {values}: export the run with that")
    changes += ("training.values=int8",) * (values == "int8")
    observer = _observer(progress)
    if method == "channels":
        options = channel_options(method, target, importance)
        if pattern != "unstructured":
            options.check(method, pattern)
        planned = plan_channels(
            opened, density, steps, changes, Path(out), target=target, importance=importance, timer=in_turn,
            say=(observer or Silent()).message,
        )  # fmt: skip
    else:
        channel_options(method or "magnitude", target, importance)
        planned = plan_compression(opened, method or "magnitude", density, steps, changes)
    result = start(planned, opened, Path(out), Reporting(observer))
    try:
        measure_compression(result)
    except GancompressError as error:  # hours of training stand, whatever becomes of this
        (observer or Silent()).message(f"warning: not timed before and after: {error}")
    (make_player if player else drop_player)(result.directory)
    build_report(result.directory)
    return CompressionOutcome.of(opened.label, result.before, result.after, result.directory)


# --------------------------------------------------------------------------- recipes and overrides


def resolve(recipe: RecipeLike, overrides: Overrides = (), *, smoke: bool = False) -> LoadedRecipe:
    """Return a recipe, given in any of the ways that people have one, with ``overrides`` laid over it.

    Args:
        recipe: a file, a run directory, the name of a shipped recipe, a recipe, or its contents.
        overrides: settings to change.
        smoke: shrink it to a run of seconds.

    Raises:
        RecipeError: every mistake in it.
    """
    with _in_python(overrides):
        return _resolved(recipe, expressions(overrides), smoke)


@contextlib.contextmanager
def _in_python(overrides: Overrides) -> Iterator[None]:
    """Leave the flag out of what is said of settings that were given as a dict."""
    try:
        yield
    except RecipeError as error:
        if isinstance(overrides, Mapping):
            error.args = (str(error).replace("--set ", ""),)
        raise


def _resolved(recipe: RecipeLike, changes: tuple[str, ...], smoke: bool) -> LoadedRecipe:
    if isinstance(recipe, str | Path):
        return _pinned(load_recipe(recipe, changes, smoke))
    if isinstance(recipe, LoadedRecipe):
        loaded = recipe.with_overrides(*changes)
    elif isinstance(recipe, Recipe):
        loaded = parse_recipe(minimal(recipe), changes, name=recipe.name)
    elif isinstance(recipe, Mapping):
        loaded = parse_recipe(recipe, changes)
    else:
        raise RecipeError(f"a recipe is a file, a name, a Recipe or a dict, not a {type(recipe).__name__}")
    return _pinned(smoke_test(loaded) if smoke else loaded)


def _pinned(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return a recipe with the hash of what it takes from elsewhere, if it does: it decides which run it is."""
    taught = loaded.recipe.training.distillation
    nodes: tuple[Any, ...] = (loaded.recipe.model, loaded.recipe.discriminator)
    if (taught is None or taught.hash is not None) and not any(
        getattr(node, "takes_weights", False) and node.hash is None for node in nodes
    ):
        return loaded  # nothing heavy is imported
    from gancompress.experiment.pinning import pins

    return loaded.with_overrides(*expressions(pins(loaded.recipe)))


def expressions(overrides: Overrides) -> tuple[str, ...]:
    """Return overrides as ``key.path=value``, the way ``--set`` takes them.

    Raises:
        RecipeError: they are no overrides, or a value is no plain one.
    """
    if isinstance(overrides, str):
        return (overrides,)
    if isinstance(overrides, Mapping):
        return tuple(f"{key}={_written(key, value)}" for key, value in overrides.items())
    found = tuple(overrides) if isinstance(overrides, Iterable) else (overrides,)
    if not all(isinstance(one, str) for one in found):
        raise RecipeError("overrides are {'training.steps': 100} or ['training.steps=100']")
    return found


def _written(key: str, value: Any) -> str:
    """Return a value as the YAML of an override; JSON is YAML."""
    try:
        return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, default=os.fspath)
    except (TypeError, ValueError):
        raise RecipeError(f"{key}: {value!r} is no plain value; give a number, a text, a list or a dict") from None


def plain(value: Any) -> Any:
    """Return a number of numpy or torch as one of Python's, anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def _parent_of_run(directory: Path, name: str) -> Path:
    """Return where a run directory lies, so that the run goes on in it and not beside it."""
    if directory.resolve().name != name:
        raise RunError(
            f"its recipe would run in {name}: the recipe was changed; copy the recipe elsewhere and run the copy",
            where=str(directory),
        )
    return directory.resolve().parent


def _observer(progress: bool | Observer) -> Observer | None:
    if isinstance(progress, bool):
        from gancompress.progress import RunProgress

        return RunProgress() if progress else None
    return progress


def is_main_process() -> bool:
    """Return whether this process speaks for its group: the first under torchrun, and any process without it."""
    return int(os.environ.get("RANK", "0")) == 0
