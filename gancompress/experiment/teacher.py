"""Teachers: trained generators that a run learns from, read and held against its own networks."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gancompress.architecture.description import Architecture
from gancompress.components.plugins import command_line
from gancompress.errors import GancompressError, RecipeError, RunError
from gancompress.experiment.initial import InitialWeights, whole_generator
from gancompress.experiment.networks import stored_architecture
from gancompress.export.container import kind_of
from gancompress.export.packed import KIND, load_packed
from gancompress.recipe.load import load_recipe
from gancompress.recipe.schema import DistillationConfig
from gancompress.runs.directory import RunDirectory
from gancompress.sparsity.weights import to_channels_last
from gancompress.storage.checkpoint import checkpoints, load, put_to_use
from gancompress.training.distillation import TERMS, GeneratorDistillation, last_maps
from gancompress.training.ema import averaged_state

if TYPE_CHECKING:
    from collections.abc import Collection

    from gancompress.backbones.base import Generator
    from gancompress.experiment.networks import Networks
    from gancompress.recipe.schema import Recipe
    from gancompress.training.distillation import Size

__all__ = ["Teacher", "build_distillation", "learning_from", "read_teacher", "teacher_of"]


#: of a term that is named without one: the default of the recipe, where that has it
_WEIGHTS = {term: float(DistillationConfig.model_fields[term].default) or 1.0 for term in TERMS}


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained generator.

    Attributes:
        generator: the average of a run, or what a file holds; in eval mode and frozen.
        hash: 16 hexadecimal digits of its weights.
    """

    generator: Generator
    hash: str


def read_teacher(path: Path) -> Teacher:
    """Read the generator of a finished run, of a checkpoint directory or of an exported file.

    Raises:
        RunError: there is nothing of these kinds, or the run is not finished.
        CheckpointError, ExportError: it is truncated or altered.
    """
    if not path.is_dir():
        if not path.exists():
            raise RunError("no such run, checkpoint or file", where=str(path))
        if kind_of(path) != KIND:
            raise RunError(
                "is no generator with its architecture: give a run, one of its checkpoints, or a file of "
                "`gancompress export`",
                where=str(path),
            )
        packed = load_packed(path)
        return Teacher(packed.generator().eval().requires_grad_(False), InitialWeights(packed.state, None).hash)
    folder = path
    if (path / "recipe.yaml").is_file():
        state = RunDirectory(path).read_status().state
        if state != "done":
            end = command_line("run", path)
            raise RunError(f"this run is not finished ({state}): end it with `{end}`", where=str(path))
        folder = max(checkpoints(RunDirectory(path).checkpoints), default=path)
    snapshot = load(folder, groups=("ema",))
    with put_to_use(folder):
        average = InitialWeights(averaged_state(snapshot.groups["ema"]), None)
        if "architecture" in snapshot.scalars:
            architecture = Architecture.from_json(snapshot.scalars["architecture"])
        else:  # old ones say it through their run only
            architecture = stored_architecture(snapshot.scalars, load_recipe(folder.absolute().parents[1]).recipe)
    return Teacher(whole_generator(architecture, average, str(folder)).requires_grad_(False), average.hash)


def learning_from(path: Path, terms: str) -> tuple[str, ...]:
    """Return as ``key.path=value`` that a run is to learn ``terms`` from the generator at ``path``.

    Args:
        path: see :func:`read_teacher`.
        terms: names of terms, with weights if wanted: ``images,features``, ``images=10,discriminator=1``.

    Raises:
        RecipeError: there is no such term, or no such weight.
        GancompressError: there is no such teacher.
    """
    weights = dict.fromkeys(TERMS, 0.0)
    for one in terms.split(","):
        term, equals, text = (part.strip() for part in one.partition("="))
        try:
            weights[term] = float(text) if equals else _WEIGHTS[term]
            known = term in TERMS and weights[term] > 0 and math.isfinite(weights[term])
        except (KeyError, ValueError):
            known = False
        if not known:
            raise RecipeError(
                f"distill {terms!r}: name what a run learns, of {', '.join(TERMS)}, with weights above 0 if wanted: "
                "'images,features' or 'images=10,discriminator=1'; how long is said by steps"
            )
    found = {"teacher": str(path.absolute()), "hash": read_teacher(path).hash, **weights}
    return tuple(f"training.distillation.{key}={value!r}" for key, value in found.items())


def build_distillation(
    recipe: Recipe, networks: Networks, device: torch.device | None = None
) -> GeneratorDistillation | None:
    """Return what the generator of a recipe learns from its teacher, if it has one.

    Args:
        recipe: of the run.
        networks: its own, as they train.
        device: where they are; default: the CPU.

    Raises:
        GancompressError: the teacher is not there, is not the one that the recipe means, or makes other images.
    """
    wanted = recipe.training.distillation
    if wanted is None:
        return None
    teacher = teacher_of(recipe)
    if wanted.hash not in (None, teacher.hash):
        raise RecipeError(
            f"training.distillation: {wanted.teacher} holds another generator ({teacher.hash}) than the recipe means "
            f"({wanted.hash}); set training.distillation.hash={teacher.hash} to learn from this one"
        )
    _check_alike(wanted.teacher, teacher.generator, networks.generator)
    network = teacher.generator.to(device or torch.device("cpu"))
    if recipe.training.channels_last:
        to_channels_last(network)
    weights = {term: getattr(wanted, term) for term in TERMS if getattr(wanted, term)}
    maps = {}
    if "features" in weights:
        own, theirs = last_maps(networks.generator), last_maps(network)
        maps = {size: (own[size], theirs[size]) for size in own if size in theirs}
        if not maps:
            raise _without_maps(
                "features", f"the generator makes maps of {_sizes(own)}, its teacher of {_sizes(theirs)}"
            )
    judged = last_maps(networks.discriminator) if "discriminator" in weights else {}
    if "discriminator" in weights and not judged:
        raise _without_maps("discriminator", "no module of the discriminator gives a map")
    return GeneratorDistillation(network, weights, maps, judged)


def teacher_of(recipe: Recipe) -> Teacher:
    """Read the teacher of a recipe that has one.

    Raises:
        GancompressError: there is no such teacher.
    """
    wanted = recipe.training.distillation
    assert wanted is not None
    try:
        return read_teacher(Path(wanted.teacher))
    except GancompressError as error:
        raise type(error)(f"training.distillation.teacher: {error.message}", where=error.where) from error


def _check_alike(where: str, teacher: Generator, student: Generator) -> None:
    """Raise if the two do not make the same kind of images of the same latents and classes."""
    theirs, own = _described(teacher), _described(student)
    if theirs != own:
        raise RecipeError(
            f"training.distillation: the teacher {where} makes {theirs}, the generator of this run {own}; one can "
            "learn from the other only where these are the same"
        )
    for number, names in enumerate(zip(teacher.image.classes, student.image.classes, strict=False)):
        if student.num_classes and len(set(names)) > 1:
            raise RecipeError(
                f"training.distillation: class {number} is {names[0]!r} to the teacher {where}, {names[1]!r} to this "
                "run; classes must be the same, in the same order"
            )


def _described(network: Generator) -> str:
    image = network.image
    classes = f"{network.num_classes} classes" if network.num_classes else "no classes"
    size = f"{image.channels}x{image.resolution}x{image.resolution}"
    return f"{size} images of latents of {network.latent_dim} and {classes}"


def _without_maps(term: str, why: str) -> RecipeError:
    return RecipeError(
        f"training.distillation.{term}: {why}, so there is nothing to compare; leave the term out with "
        f"training.distillation.{term}=0"
    )


def _sizes(maps: Collection[Size]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in maps) or "no size"
