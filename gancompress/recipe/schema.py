"""The recipe: everything that decides the numbers of a run, as pydantic models. Imports no torch.

Every key has a default or is required, a description, and a range; unknown keys are errors at every level. The
*component* nodes (``data``, ``model``, ``discriminator``, ``objective.loss``, ``sparsity.method``,
``sparsity.pattern``) are written as ``{name: dst, …}`` or just ``dst``; their other keys belong to the component's own
``Config`` and are validated against it when a recipe is loaded (:mod:`gancompress.recipe.load`), which imports only the
components that the recipe names.

A recipe carries published figures as data; they change no number of a run. Figures that were measured under other
conditions are not comparable, so a reader gets the conditions field by field and never a verdict.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SHORT_PATTERNS",
    "AdaptiveConfig",
    "ChangedSetting",
    "Component",
    "ConsistencyConfig",
    "DistillationConfig",
    "EMAConfig",
    "EvaluationConfig",
    "GradientPenaltyConfig",
    "InitFromConfig",
    "LeCamConfig",
    "NetSparsityConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "OptimizersConfig",
    "OrthogonalConfig",
    "PathLengthConfig",
    "PublishedFigure",
    "PublishedProtocol",
    "Recipe",
    "SparsityConfig",
    "TrainingConfig",
    "name_alone",
    "owner_of",
    "pattern_alone",
    "short_form",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ChangedSetting(_Strict):
    """One setting that is not what it is in the published row."""

    key: str = Field(description="dotted, as --set takes it")
    published: str = Field(description="its value there, as text")


class PublishedProtocol(_Strict):
    """How a published figure was measured; what is left out is not known."""

    extractor: str | None = Field(None, description="network that made the features, such as inception")
    samples: int | None = Field(None, ge=1, description="generated images")
    reference_count: int | None = Field(None, ge=1, description="real images")
    weights: Literal["ema", "live"] | None = Field(None, description="which generator was measured")
    batch_norm: str | None = Field(
        None, description="statistics of batch norm: 'running averages', or 'each batch of 100'"
    )
    selection: str | None = Field(None, description="which evaluation: 'last', or 'best of 20 by FID'")
    seeds: int | None = Field(None, ge=1, description="runs that the figure is the mean of")


class PublishedFigure(_Strict):
    """One number of a published table or figure."""

    metric: Literal["FID", "IS"] = Field(description="what was measured")
    value: float = Field(description="the number")
    spread: float | None = Field(None, ge=0, description="standard deviation over seeds")
    bound: Literal["exact", "below"] = Field("exact", description="below: only said to be lower than the value")
    protocol: PublishedProtocol = Field(PublishedProtocol(), description="how it was measured")
    source: str = Field(description="where it stands")
    note: str = Field("", description="what to know before trusting it")

    @property
    def text(self) -> str:
        """The figure without its metric: ``10.11``, ``8.79 ± 0.37``, ``below 8.79``."""
        below = "below " if self.bound == "below" else ""
        if self.spread is None:
            return f"{below}{self.value:g}"
        digits = max(len(f"{number:g}".partition(".")[2]) for number in (self.value, self.spread))
        return f"{below}{self.value:.{digits}f} ± {self.spread:.{digits}f}"


class Component(BaseModel):
    """A named component and its own settings. Concrete recipes narrow this to the component's ``Config``."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="registered name of the component")


def name_alone(value: Any) -> Any:
    """Return ``{"name": value}`` for a component written as its bare name.

    ``hf:uoft-cs/cifar10`` is short for ``{"name": "hf", "dataset": "uoft-cs/cifar10"}``.
    """
    if not isinstance(value, str):
        return value
    name, colon, dataset = value.partition(":")
    return {"name": name, "dataset": dataset} if colon and name == "hf" else {"name": value}


#: what else may stand for a pattern, as messages say it
SHORT_PATTERNS = ", or short for one: 1x4 (a block of outputs x inputs) or 2:4"


def pattern_alone(value: Any) -> Any:
    """Return the component that ``1x4`` (outputs x inputs of a block), ``2:4`` or a bare name is short for."""
    for pattern, name, keys in (
        (r"(\d+)x(\d+)", "block", ("outputs", "inputs")),
        (r"(\d+):(\d+)", "nm", ("n", "m")),
    ):
        found = re.fullmatch(pattern, value) if isinstance(value, str) else None
        if found:
            return {"name": name, **{key: int(number) for key, number in zip(keys, found.groups(), strict=True)}}
    return name_alone(value)


#: ``hinge`` is short for ``{name: hinge}``.
ComponentField = Annotated[SerializeAsAny[Component], BeforeValidator(name_alone)]
#: the same, where there may be none
OptionalComponentField = Annotated[SerializeAsAny[Component] | None, BeforeValidator(name_alone)]
#: ``1x4`` is short for ``{name: block, outputs: 1, inputs: 4}``.
PatternField = Annotated[SerializeAsAny[Component], BeforeValidator(pattern_alone)]

Density = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(ge=1)]


class GradientPenaltyConfig(_Strict):
    """Zero-centred gradient penalty of the discriminator (Mescheder et al., 2018)."""

    weight: float = Field(0.0, ge=0, description="gamma; the penalty is gamma / 2 * |grad D(x)|^2; 0 turns it off")
    every: int = Field(16, ge=1, description="discriminator steps between penalties; the weight is scaled up to match")
    final: float | None = Field(
        None, gt=0, description="gamma where schedules end, reached along a cosine; default: as at the start"
    )

    @model_validator(mode="after")
    def _contradiction(self) -> GradientPenaltyConfig:
        if self.final is not None and not self.weight:
            raise ValueError("final is where a weight ends; give the weight as well")
        return self


class OrthogonalConfig(_Strict):
    """Orthogonal regularisation (Brock et al., 2019, eq. 3): filters of a layer point apart, their norms stay free."""

    weight: float = Field(
        0.0, ge=0, description="beta of eq. 3; 0 turns it off. The published code's 1e-4 is 5e-5 here: it halves eq. 3"
    )
    networks: Literal["generator", "discriminator", "both"] = Field("generator", description="whose filters")


class PathLengthConfig(_Strict):
    """Path length regularisation of a generator with styles (Karras et al., 2020)."""

    weight: float = Field(0.0, ge=0, description="of the mean squared deviation; 0 turns it off, published is 2")
    every: int = Field(4, ge=1, description="generator steps between penalties; the weight is scaled up to match")
    decay: float = Field(0.01, gt=0, le=1, description="share of the running mean length that a batch takes over")
    share: int = Field(2, ge=1, description="one of so many images of a batch is looked at")


class LeCamConfig(_Strict):
    """LeCam regularisation of the discriminator (Tseng et al., 2021)."""

    weight: float = Field(0.0, ge=0, description="of the squared distances to the running means; 0 turns it off")
    decay: float = Field(0.99, ge=0, lt=1, description="decay of the running means of logits, per batch")


class ConsistencyConfig(_Strict):
    """Consistency of the discriminator under flips and shifts: CR (Zhang et al., 2020), bCR (Zhao et al., 2021)."""

    real: float = Field(0.0, ge=0, description="weight at real images: CR and bCR take 10; 0 turns it off")
    fake: float = Field(0.0, ge=0, description="weight at generated ones: bCR takes 10, CR 0")
    shift: int = Field(4, ge=0, description="pixels that an image is shifted by at most, each way")


class AdaptiveConfig(_Strict):
    """Augmentation of ADA (Karras et al., 2020): more of it the better real images are told, or along a schedule."""

    pipe: tuple[Literal["blit", "geometry", "colour", "cutout"], ...] = Field(
        ("blit", "geometry", "colour"), min_length=1, description="groups of augmentations"
    )
    target: float | None = Field(
        0.6, ge=-1, le=1, description="mean sign of the logits of real images to hold; null: probability stays"
    )
    every: int = Field(4, ge=1, description="discriminator steps between two changes of the probability")
    kimg: float = Field(500.0, gt=0, description="thousands of real images in which it could go from 0 to 1")
    probability: float = Field(0.0, ge=0, le=1, description="of each augmentation at the start")
    final: float | None = Field(
        None,
        ge=0,
        le=1,
        description="where schedules take the probability along a cosine, with target: null; default: nowhere",
    )
    colours: float = Field(1.0, ge=0, le=1, description="share of the probability at which colours change")

    @model_validator(mode="after")
    def _contradiction(self) -> AdaptiveConfig:
        if self.final is not None and self.target is not None:
            raise ValueError(
                "final is where a schedule takes the probability, and target moves it by what the discriminator tells: "
                "give target: null with final"
            )
        return self


class ObjectiveConfig(_Strict):
    """What the two networks optimise."""

    loss: ComponentField = Field(Component(name="hinge"), description="adversarial loss")
    r1: GradientPenaltyConfig = Field(GradientPenaltyConfig(), description="gradient penalty on real images")
    r2: GradientPenaltyConfig = Field(GradientPenaltyConfig(), description="the same on generated images")
    orthogonal: OrthogonalConfig = Field(OrthogonalConfig(), description="orthogonal regularisation of the weights")
    diffaugment: tuple[Literal["color", "translation", "cutout"], ...] = Field(
        (), description="DiffAugment policies applied to real and generated images alike (Zhao et al., 2020)"
    )
    ada: AdaptiveConfig | None = Field(None, description="adaptive augmentation instead; default: none")
    path_length: PathLengthConfig = Field(PathLengthConfig(), description="path length regularisation of a generator")
    lecam: LeCamConfig = Field(LeCamConfig(), description="LeCam regularisation of the discriminator")
    consistency: ConsistencyConfig = Field(
        ConsistencyConfig(), description="consistency of the discriminator under flips and shifts (CR, bCR)"
    )

    @model_validator(mode="after")
    def _twice(self) -> ObjectiveConfig:
        if self.ada is not None and self.diffaugment:
            raise ValueError("ada and diffaugment both augment what the discriminator sees: give one of them")
        return self


class NetSparsityConfig(_Strict):
    """Sparsity of one network."""

    density: Density | None = Field(
        None, description="share of prunable weights kept; default: sparsity.density, else 1"
    )
    allocation: Literal["uniform", "er", "erk", "global"] = Field(
        "erk", description="rule that spreads the density over layers"
    )
    min_layer_density: float = Field(
        0.0, ge=0, lt=1, description="no layer is given less than this share of its weights, whatever the rule"
    )
    dense: tuple[str, ...] = Field((), description="glob patterns of weights that are never masked, e.g. 'output.*'")


class SparsityConfig(_Strict):
    """Which weights are kept, and how they are found."""

    method: ComponentField = Field(Component(name="dense"), description="sparsity method")
    pattern: PatternField = Field(
        Component(name="unstructured"),
        description="units in which weights are kept: single ones, blocks (1x4, 16x1), kernels, 2:4, channels",
    )
    density: Density | None = Field(None, description="one density for both networks ('balanced')")
    total_density: Density | None = Field(
        None,
        description="density of both networks together; with generator.density given, the discriminator gets the rest",
    )
    generator: NetSparsityConfig = Field(NetSparsityConfig(), description="sparsity of the generator")
    discriminator: NetSparsityConfig = Field(NetSparsityConfig(), description="sparsity of the discriminator")
    weights: Literal["convolutions", "all"] = Field(
        "convolutions",
        description="which weights a density counts and masks: convolutions only (STU-GAN) or linear layers too",
    )
    moments: Literal["masked", "compact", "dense"] = Field(
        "masked",
        description="optimizer moments off the mask: exactly 0; compact: the same results bit for bit, stored at kept "
        "weights only; dense: as in the published codes (fidelity only)",
    )
    check_every: int = Field(1, ge=1, description="topology updates between two checks of all invariants")

    @model_validator(mode="after")
    def _contradictions(self) -> SparsityConfig:
        if self.total_density is not None:
            if self.density is not None:
                raise ValueError("total_density and density contradict each other: give one of them")
            if self.generator.density is None:
                raise ValueError("total_density needs sparsity.generator.density, to know how to split it")
            if self.discriminator.density is not None:
                raise ValueError("total_density and discriminator.density contradict each other: give one of them")
        return self


class OptimizerConfig(_Strict):
    """One optimizer, built by timm's factory. A setting that the optimizer does not take is an error, not dropped."""

    name: str = Field("adam", description="timm optimizer name (adam, adamw, sgd, rmsprop, lion, …)")
    lr: float = Field(2e-4, gt=0, description="learning rate")
    betas: tuple[float, float] | None = Field((0.0, 0.9), description="Adam-like moment decays; null = default")
    eps: float | None = Field(1e-8, gt=0, description="Adam-like epsilon; null = default")
    momentum: float | None = Field(None, ge=0, lt=1, description="momentum of SGD-like optimizers; null = default")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="way from lr to final_lr, and from the second beta to final_beta2"
    )
    final_lr: float = Field(0.0, ge=0, description="learning rate where schedules end, unless the schedule is constant")
    final_beta2: float | None = Field(
        None, ge=0, lt=1, description="second beta where schedules end; default: as at the start"
    )

    @model_validator(mode="after")
    def _contradictions(self) -> OptimizerConfig:
        for key, given in (("final_lr", self.final_lr), ("final_beta2", self.final_beta2)):
            if given and self.schedule == "constant":
                raise ValueError(f"{key} is where a schedule ends, and the schedule is constant: set schedule: cosine")
        if self.final_beta2 is not None and self.betas is None:
            raise ValueError("final_beta2 is where the second of betas ends: give betas too")
        return self


class OptimizersConfig(_Strict):
    """One optimizer per role."""

    generator: OptimizerConfig = Field(OptimizerConfig(), description="optimizer of the generator")
    discriminator: OptimizerConfig = Field(OptimizerConfig(), description="optimizer of the discriminator")


class EMAConfig(_Strict):
    """Moving average of the generator, sparse: a newly grown weight starts from its live value."""

    decay: float = Field(0.999, ge=0, lt=1, description="decay per training step; 0 = the live weights")
    half_life: float | None = Field(
        None, gt=0, description="thousands of real images after which a weight counts half, in place of decay"
    )
    ramp_up: float | None = Field(
        None, gt=0, description="the half-life is at most this share of the images seen so far; default: no ramp"
    )
    start: int = Field(0, ge=0, description="training steps before which the average is a copy")
    sparse: bool = Field(True, description="false: newly grown weights ramp up from 0, as plain EMA does")
    growing: bool = Field(
        False, description="the half-life grows from 0 along a cosine, to that of decay where schedules end"
    )

    @model_validator(mode="after")
    def _contradictions(self) -> EMAConfig:
        if self.ramp_up is not None and self.half_life is None:
            raise ValueError("ramp_up bounds a half-life in images: give half_life too")
        # a run's own recipe writes every default out
        if self.half_life is not None and (self.growing or self.decay != type(self).model_fields["decay"].default):
            other = "growing" if self.growing else "decay"
            raise ValueError(f"half_life and {other} contradict each other: give one of them")
        return self


class InitFromConfig(_Strict):
    """Weights to start from instead of random ones. A run is what these weights are, not where they lie."""

    path: str = Field(description="checkpoint directory of a run, or a generator's weights as .safetensors")
    hash: str = Field(
        pattern=r"^[0-9a-f]{16}$",
        description="hash of the weights; `gancompress compress` writes it, a wrong one is told",
    )
    masks: Literal["keep", "draw"] = Field(
        "keep", description="masks of a run that keeps as many weights: keep them, or let the method draw new ones"
    )


class DistillationConfig(_Strict):
    """A trained generator to learn from, beside the adversarial loss. A run is what it learns from, not where it lies.

    ``compare`` trains its dense row without: that is what the others are held against.
    """

    teacher: str = Field(
        description="finished run, checkpoint directory of a run (its averaged generator), or exported file"
    )
    hash: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{16}$",
        description="hash of the teacher's weights; written when a run starts, a wrong one is told",
    )
    images: float = Field(3.0, ge=0, description="weight of the mean absolute difference of both images of one latent")
    features: float = Field(
        1.0, ge=0, description="weight of 1 less the kernel alignment of both generators' maps, the last per resolution"
    )
    discriminator: float = Field(
        0.0, ge=0, description="weight of the relative difference of what the run's discriminator makes of both images"
    )

    @model_validator(mode="after")
    def _nothing(self) -> DistillationConfig:
        if not (self.images or self.features or self.discriminator):
            raise ValueError("all three weights are 0; leave the section out, or set it to null")
        return self


class TrainingConfig(_Strict):
    """The training loop. A step is one generator step with its ``discriminator_steps`` discriminator steps."""

    steps: Steps = Field(description="training steps (generator steps)")
    batch_size: int = Field(64, ge=1, description="real images per discriminator step, over all ranks")
    generator_batch_size: int | None = Field(None, ge=1, description="images per generator step; default: batch_size")
    discriminator_steps: int = Field(1, ge=1, description="discriminator steps per generator step (n_d)")
    accumulate: int = Field(1, ge=1, description="micro-batches per step; the batch must divide by it")
    optimizers: OptimizersConfig = Field(OptimizersConfig(), description="one optimizer per role")
    schedule_until: float = Field(
        1.0, gt=0, le=1, description="share of a round's steps at which schedules end; what they end at stays"
    )
    schedule_from: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a round's steps at which schedules begin; what they begin at is held until then",
    )
    ema: EMAConfig = Field(EMAConfig(), description="moving average of the generator")
    flip: bool = Field(False, description="mirror real images at random")
    images: int | None = Field(
        None,
        ge=2,
        description="train on so many of the images, drawn from the seed; evaluation compares with all of them; "
        "default: all",
    )
    init_from: InitFromConfig | None = Field(
        None, description="trained weights to start from; default: initialise at random from the seed"
    )
    distillation: DistillationConfig | None = Field(
        None, description="a trained generator that the run's own learns from as well; default: none"
    )
    joint_batch: bool = Field(
        True,
        description="one discriminator call on real and generated images together; false, or where the discriminator "
        "looks at batches as a whole: one call each",
    )
    precision: Literal["float32", "bf16"] = Field("float32", description="bf16: autocast; weights stay float32")
    values: Literal["float32", "int8"] = Field(
        "float32",
        description="int8: in the second half of the last round the generator's weights and what its convolutions read "
        "are rounded as by an int8 export",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda when there is one")
    threads: int = Field(0, ge=0, description="CPU threads; 0 = torch's default")
    channels_last: bool = Field(False, description="memory format of images and convolutions")
    kernels: Literal["auto", "dense", "sparse"] = Field(
        "auto",
        description="masked layers on the sparse CPU kernels: where measured to be faster, never, or always; "
        "results agree to rounding",
    )
    fold: Literal["auto", "always", "never"] = Field(
        "auto",
        description="upsampling or pooling and the convolution beside it as one: where measured to be faster, "
        "everywhere, or nowhere; results agree to rounding",
    )
    fused: bool = Field(True, description="fused Adam, AdamW and SGD; false: torch's default, the same to rounding")
    feed: Literal["auto", "direct", "prefetch", "device"] = Field(
        "auto",
        description="batches: made when they are due, by a thread ahead of time, or from images held on the device; "
        "the same numbers. auto: on a GPU the last if they are small enough, else the thread; on a CPU the first",
    )
    compile: bool = Field(False, description="torch.compile of both networks; results agree to rounding")
    cuda_graphs: bool = Field(
        False, description="record a step's forward and backward passes on a GPU once and replay them"
    )
    log_every: Steps = Field(50, description="steps between two lines of log.jsonl")
    sample_every: int = Field(0, ge=0, description="steps between two sample grids; 0 = only at the end")
    checkpoint_every: int = Field(0, ge=0, description="steps between two checkpoints; 0 = every ten minutes")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept beside the best one")

    @model_validator(mode="after")
    def _no_time(self) -> TrainingConfig:
        if self.schedule_from >= self.schedule_until:
            raise ValueError("schedule_from is where schedules begin, and must lie before schedule_until")
        return self


class EvaluationConfig(_Strict):
    """What is measured, when, and under which protocol. Everything here is part of the metric's name."""

    metrics: tuple[str, ...] = Field(
        ("fd", "kd", "is", "pr"), min_length=1, description="registered metrics; the first picks the best"
    )
    extractor: str = Field(
        "auto", description="feature extractor: inception, classifier, …; auto: inception if its weights are at hand"
    )
    samples: int = Field(10_000, ge=10, le=1_000_000, description="generated images per evaluation")
    every: int = Field(0, ge=0, description="steps between two evaluations; 0 = only at the end")
    weights: Literal["ema", "live"] = Field("ema", description="which generator is measured")
    batch_norm: Literal["running", "batch", "standing"] = Field(
        "running",
        description="statistics of batch norm while sampling: running averages, each batch's own, or re-estimated",
    )
    batch_size: int = Field(100, ge=1, description="images per forward pass of the generator")
    seed: int = Field(0, ge=0, description="seed of the latents and labels of evaluation")


class Recipe(_Strict):
    """Everything that decides the numbers of a run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="short name; the run directory starts with it"
    )
    description: str = Field("", description="one sentence for `gancompress ls`")
    seed: int = Field(0, ge=0, description="seed of initialisation, latents, data order and masks")
    data: ComponentField = Field(description="dataset")
    model: ComponentField = Field(description="backbone")
    discriminator: OptionalComponentField = Field(
        None, description="backbone whose discriminator plays against the model's generator; default: the model's own"
    )
    task: ComponentField = Field(Component(name="latent"), description="what the generator is trained for")
    objective: ObjectiveConfig = Field(ObjectiveConfig(), description="losses and regularisation")
    sparsity: SparsityConfig = Field(SparsityConfig(), description="sparsity")
    training: TrainingConfig = Field(description="training loop")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="evaluation")
    published: tuple[PublishedFigure, ...] = Field((), description="what was published about exactly these settings")
    changed: tuple[ChangedSetting, ...] = Field(
        (), description="settings that are not those of the published row; written by the loader"
    )
    smoke: bool = Field(
        False, description="written by --smoke: shrunk until its numbers mean nothing, to see everything work"
    )


def owner_of(path: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model that has the component node at ``path``: the recipe, or one of its sections."""
    owner = Recipe.model_fields[str(path[0])].annotation if path[1:] else Recipe
    assert isinstance(owner, type)
    assert issubclass(owner, BaseModel)
    return owner


def short_form(path: tuple[str | int, ...]) -> Callable[[Any], Any]:
    """Return what writes the component node at ``path`` out in full when it is only named."""
    field = owner_of(path).model_fields[str(path[-1])]
    found = next(validator.func for validator in field.metadata if isinstance(validator, BeforeValidator))
    return cast("Callable[[Any], Any]", found)
