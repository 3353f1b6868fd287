"""What the checks of backbones look at: one pair of networks at a time."""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save
from torch import nn

from gancompress.backbones.base import Backbone, Discriminator, Generator
from gancompress.backbones.base import prunable_weights as weights_of
from gancompress.data.base import ImageSpec
from gancompress.errors import BackboneError, ExportError
from gancompress.evaluation.sandbox import forked_rng
from gancompress.export.onnx import NEEDED, export_onnx
from gancompress.export.plain import plain_copy
from gancompress.export.tracing import trace
from gancompress.graphs.build import CapturedModule
from gancompress.graphs.capture import capture
from gancompress.sparsity.weights import LAYERS, duplicate, to_channels_last
from gancompress.testing.conformance import Suite, promise, require, skip_check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from gancompress.sparsity.state import Role

__all__ = ["CLASSES", "Case", "build"]

#: classes of the images that networks are built for
CLASSES = ("ant", "bee", "cat")
_BATCH = 3
#: settings of the Adam step after which classes must differ
_LEARNING_RATE = 0.01


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to build the backbone of a suite: for images of a resolution, with classes or without."""

    suite: Suite
    resolution: int
    conditional: bool
    channels: int = 3

    def __str__(self) -> str:
        return f"{self.resolution} pixels, {'conditional' if self.conditional else 'unconditional'}"

    @property
    def image(self) -> ImageSpec:
        """Images with three classes."""
        return ImageSpec(self.channels, self.resolution, CLASSES)

    def backbone(self, **more: Any) -> Backbone[Any]:
        """Build the backbone, with other settings if given."""
        return build(self.suite, self.image, self.conditional, **more)

    def networks(self, seed: int = 0) -> tuple[Generator, Discriminator]:
        """Build both networks; the seed is that of torch's global generator, which they draw from."""
        with forked_rng(seed):
            backbone = self.backbone()
            return backbone.generator(), backbone.discriminator()

    def each(self) -> Iterator[tuple[Role, nn.Module, Tensor, Tensor | None]]:
        """Yield role, network and a batch for it, of freshly built networks."""
        for role, network in _roles(self.networks()):
            yield role, network, *self.inputs(network)

    def inputs(self, network: nn.Module, labels: tuple[int, ...] = (0, 1, 2)) -> tuple[Tensor, Tensor | None]:
        """Return a batch for one of the networks."""
        rng = torch.Generator().manual_seed(1)
        known = torch.tensor(labels) if self.conditional else None
        shape = (_BATCH, *network.input_shape)  # type: ignore[misc]
        if isinstance(network, Generator) and not network.translates:
            return torch.randn(shape, generator=rng), known
        return torch.rand(shape, generator=rng) * 2 - 1, known


def build(suite: Suite, image: ImageSpec, conditional: bool, **more: Any) -> Backbone[Any]:
    """Build a backbone, conditional where it has such a setting."""
    if "conditional" in suite.target.Config.model_fields:
        more["conditional"] = conditional
    built: Backbone[Any] = suite.target(suite.config(**more), image)
    return built


def shown(discriminator: nn.Module, given: Tensor, images: Tensor) -> Tensor:
    """Return what a discriminator sees of images: these, or what they were made from beside them."""
    pairs = discriminator.input_shape[0] == 2 * images.shape[1]  # type: ignore[index]
    return torch.cat((given, images), 1) if pairs else images


def answer(network: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """Return what a network gives in evaluation mode, in which it stays."""
    with torch.no_grad():
        out: Tensor = network.eval()(x, labels)
    return out


def _roles(networks: tuple[Generator, Discriminator]) -> Iterator[tuple[Role, nn.Module]]:
    yield "generator", networks[0]
    yield "discriminator", networks[1]


@promise
def shapes(case: Case) -> None:
    """Images and logits have the shape, type and range of the contract."""
    generator, discriminator = case.networks()
    require(isinstance(generator, Generator), f"generator() makes a {type(generator).__name__}, no Generator")
    require(
        isinstance(discriminator, Discriminator),
        f"discriminator() makes a {type(discriminator).__name__}, no Discriminator",
    )
    for role, network in _roles((generator, discriminator)):
        wanted = len(CLASSES) if case.conditional else 0
        for name, value in (("num_classes", wanted), ("image", case.image)):
            found = getattr(network, name, "missing")
            require(found == value, f"{name} of the {role} is {found!r}, expected {value!r}")
    z, labels = case.inputs(generator)
    images = generator(z * 10, labels)
    shape = (_BATCH, case.image.channels, case.resolution, case.resolution)
    require(tuple(images.shape) == shape, f"images have the shape {tuple(images.shape)}, expected {shape}")
    require(images.dtype is torch.float32, f"images are {images.dtype}, expected float32")
    made = answer(duplicate(generator), z * 10, labels)
    require(float(made.abs().max()) <= 1, "images leave [-1, 1] in eval mode: end the generator in tanh, or cut off")
    logits = discriminator(shown(discriminator, z, images), labels)
    known = tuple(logits.shape[:1]) == (_BATCH,) and (logits.dim() <= 2 or generator.translates)
    require(known, f"logits have the shape {tuple(logits.shape)}, expected ({_BATCH},) or ({_BATCH}, places)")
    require(logits.dtype is torch.float32, f"logits are {logits.dtype}, expected float32")


@promise
def gradients(case: Case) -> None:
    """Gradients reach every weight of both networks."""
    generator, discriminator = case.networks()
    rng = torch.Generator().manual_seed(2)
    for _, network in _roles((generator, discriminator)):
        for name, parameter in network.named_parameters():
            if not name.endswith("bias") and not parameter.detach().any():
                # a gate that starts closed lets nothing pass
                nn.init.normal_(parameter, std=0.5, generator=rng)
    z, labels = case.inputs(generator)
    # a weighted sum: the plain sum of normalised maps has no gradient at all
    weights = torch.tensor([1.0, -2.0, 0.5])
    logits = discriminator(shown(discriminator, z, generator(z, labels)), labels)
    (logits.reshape(_BATCH, -1).mean(1) * weights).sum().backward()
    for role, network in _roles((generator, discriminator)):
        for name, parameter in network.named_parameters():
            if parameter.grad is None:
                raise AssertionError(f"no gradient reaches {name} of the {role}")
            require(parameter.grad.isfinite().all(), f"the gradient of {name} of the {role} is not finite")
            require(parameter.grad.any(), f"the gradient of {name} of the {role} is 0")


@promise
def prunable_weights(case: Case) -> None:
    """Every layer is listed, one of them as the output."""
    for role, network in _roles(case.networks()):
        weights = weights_of(network)
        own = dict(network.named_parameters())
        layers = [
            module for module in network.modules() if isinstance(module, LAYERS) and getattr(module, "prunable", True)
        ]
        require(len(weights) == len(layers), f"the {role} has {len(layers)} layers, {len(weights)} are listed")
        outputs = [name for name, weight in weights.items() if weight.output]
        require(
            len(outputs) == 1, f"the {role} has {len(outputs)} output layers: output_layer() must return one of them"
        )
        for name, weight in weights.items():
            require(own.get(weight.key) is weight.parameter, f"{name} of the {role} is no parameter of its own")
            require(weight.parameter.is_leaf, f"{name} of the {role} is computed: use torch's parametrizations")
            odd = [word for word in ("norm", "embedding") if word in name]
            require(not odd, f"{name} of the {role} belongs to a norm or an embedding: give its layer prunable = False")


@promise
def seed(case: Case) -> None:
    """The seed decides every weight, and nothing else does."""
    first, again, other = case.networks(0), case.networks(0), case.networks(1)
    for (role, a), (_, b), (_, c) in zip(_roles(first), _roles(again), _roles(other), strict=True):
        mine, same, different = a.state_dict(), b.state_dict(), c.state_dict()
        require(list(mine) == list(same), f"the {role} names its tensors differently each time")
        moved = [name for name, value in mine.items() if not torch.equal(value, same[name])]
        require(
            not moved, f"the {role}'s {', '.join(moved[:3])} differ with the same seed: draw from torch's generator"
        )
        require(
            any(not torch.equal(value, different[name]) for name, value in mine.items()),
            f"the {role} is the same with another seed: draw its weights from torch's global generator",
        )
        x, labels = case.inputs(a)
        outputs = []
        for network in (a, b):
            with torch.no_grad(), forked_rng(0):  # noise is drawn from torch's generator, which a run seeds every step
                outputs.append(network(x, labels))
        require(torch.equal(*outputs), f"the {role} gives other outputs each time")


@promise
def samples_differ(case: Case) -> None:
    """Other inputs give other outputs."""
    for role, network, x, _ in case.each():
        same = torch.zeros(_BATCH, dtype=torch.int64) if case.conditional else None
        out = answer(network, x, same)
        require(float((out[0] - out[1]).abs().max()) > 1e-6, f"the {role} gives two inputs the same output")


@promise
def conditioning(case: Case) -> None:
    """Classes have an effect when asked for, and only then."""
    for role, network, x, labels in case.each():
        if not case.conditional:
            same = torch.equal(answer(network, x, None), answer(network, x, torch.tensor([0, 1, 2])))
            require(same, f"the {role} is unconditional, but labels change its output")
            continue
        # classes may start alike (gain 1 and bias 0); one step of training tells them apart
        optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
        network(x, labels).square().sum().backward()
        optimizer.step()
        ones, twos = (answer(network, x, case.inputs(network, labels=(k, k, k))[1]) for k in (1, 2))
        require(float((ones - twos).abs().max()) > 1e-6, f"the class changes nothing in the {role}")
        try:
            network(x, None)
        except ValueError as error:
            require("labels" in str(error), f"the {role} without labels says {error}: say that it needs labels")
        except Exception as error:
            raise AssertionError(
                f"the {role} is conditional, and without labels it raises {type(error).__name__}: {error}; "
                "raise a ValueError that says it needs labels"
            ) from None
        else:
            raise AssertionError(f"the {role} is conditional, but takes no labels for an answer: raise a ValueError")


@promise
def widths(case: Case) -> None:
    """A narrower network has fewer weights, the other one as many."""
    backbone = case.backbone()
    if not backbone.widths:
        skip_check("it does not say how its networks are made narrower")
    for role, width in backbone.widths.items():
        require(width.field in type(backbone.config).model_fields, f"there is no setting {width.field!r}")
        require(
            width.channels % width.multiple == 0, f"{width.field}={width.channels} is no multiple of {width.multiple}"
        )
        wider = width.channels + width.multiple
        # every width is given: one that follows the other by default would move with it
        settings = {one.field: one.channels for one in backbone.widths.values()} | {width.field: wider}
        built = [(made.generator(), made.discriminator()) for made in (backbone, case.backbone(**settings))]
        for (one, before), (_, after) in zip(*map(_roles, built), strict=True):
            more = sum(p.numel() for p in after.parameters()) - sum(p.numel() for p in before.parameters())
            if one == role:
                require(more > 0, f"{width.field}={wider} makes the {role} no bigger")
            else:
                require(more == 0, f"{width.field} is the width of the {role}, but changes the {one}")


@promise
def stable_names(case: Case) -> None:
    """Names of weights do not depend on spectral norm."""
    if "spectral_norm" not in case.suite.target.Config.model_fields:
        skip_check("it has no setting 'spectral_norm'")
    on, off = (weights_of(case.backbone(spectral_norm=flag).discriminator()) for flag in (True, False))
    require(list(on) == list(off), f"{sorted(set(on) ^ set(off))} are there with or without spectral norm only")
    for name, weight in on.items():
        require(weight.parameter.shape == off[name].parameter.shape, f"{name} has another shape with spectral norm")


@promise
def state_round_trip(case: Case) -> None:
    """A saved and loaded state gives the same outputs."""
    for (role, network), (_, other) in zip(_roles(case.networks(0)), _roles(case.networks(1)), strict=True):
        x, labels = case.inputs(network)
        network(x, labels).sum().backward()  # moves statistics and power iterations
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        other.load_state_dict(load(save(state)))
        same = torch.equal(answer(network, x, labels), answer(other, x, labels))
        require(same, f"the {role} gives other outputs after its state was loaded: keep all of it in buffers")


@promise
def deep_copy(case: Case) -> None:
    """A copy made after training is equal and apart."""
    for role, network, x, labels in case.each():
        network(x, labels).sum().backward()
        twin = duplicate(network)
        before = answer(network, x, labels)
        require(torch.equal(before, answer(twin, x, labels)), f"a copy of the {role} gives other outputs")
        require(list(weights_of(twin)) == list(weights_of(network)), f"a copy of the {role} lists other weights")
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(1.0)
        require(torch.equal(answer(network, x, labels), before), f"a copy of the {role} shares weights with it")
        unused = torch.equal(answer(twin, x, labels), before)
        require(not unused, f"a copy of the {role} does not use its own weights")


@promise
def channels_last(case: Case) -> None:
    """The memory format changes nothing."""
    for role, network, x, labels in case.each():
        expected = answer(network, x, labels)
        to_channels_last(network)
        if x.dim() == 4:
            x = x.to(memory_format=torch.channels_last)
        out = network(x, labels)
        close = torch.allclose(out.detach(), expected, rtol=1e-4, atol=1e-5)
        require(close, f"the {role} gives other outputs in channels-last memory")
        network.train()(x, labels).sum().backward()


@promise
def bf16(case: Case) -> None:
    """Under bf16 outputs are float32 and close, gradients finite."""
    for role, network, x, labels in case.each():
        with torch.autocast("cpu", torch.bfloat16):
            out = network(x, labels)
        require(out.dtype is torch.float32, f"the {role} gives {out.dtype} under bf16: end in .float()")
        out.sum().backward()
        bad = [n for n, p in network.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        require(not bad, f"the gradient of {', '.join(bad)} of the {role} is not finite under bf16")
        expected = answer(network, x, labels)
        with torch.autocast("cpu", torch.bfloat16):
            found = answer(network, x, labels)
        off = float((found - expected).abs().max())
        bound = 0.1 * float(expected.abs().max()) + 0.05
        require(off <= bound, f"the {role} is off by {off:.3g} under bf16, more than {bound:.3g}")


@promise
def evaluation(case: Case) -> None:
    """In eval mode nothing changes, no sample sees another."""
    for role, network, x, labels in case.each():
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.eval()
        with torch.no_grad():
            first = network(x, labels)
            require(torch.equal(network(x, labels), first), f"the {role} draws at random in eval mode")
            moved = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
            require(not moved, f"{', '.join(moved)} of the {role} changed in eval mode")
            if getattr(network, "sees_batch", False):
                continue
            alone = torch.cat(
                [network(x[i : i + 1], None if labels is None else labels[i : i + 1]) for i in range(_BATCH)]
            )
        close = torch.allclose(alone, first, rtol=1e-4, atol=1e-5)
        require(close, f"the {role} gives a sample alone another output than in a batch")


@promise
def refusals(case: Case) -> None:
    """What it cannot make is refused with a BackboneError."""
    odd = case.resolution + 1
    if odd not in case.backbone().resolutions:
        _refused(f"images of {odd} pixels", case, ImageSpec(3, odd, CLASSES))
    if case.conditional:
        for classes in ((), ("only",)):
            _refused(f"{len(classes)} classes", case, ImageSpec(3, case.resolution, classes))


def _refused(what: str, case: Case, image: ImageSpec) -> None:
    """Building may refuse, or leave it to what the program asks: ``resolutions`` and ``conditional``."""
    try:
        backbone = build(case.suite, image, case.conditional)
    except BackboneError:
        return
    except Exception as error:
        raise AssertionError(f"{what} raise {type(error).__name__} ({error}), expected BackboneError") from error
    told = image.resolution not in backbone.resolutions or (backbone.conditional and image.num_classes < 2)
    require(told, f"{what} are taken, and nothing says that they cannot be made")


@promise
def traceable(case: Case) -> None:
    """The generator can be compiled for the sparse kernels."""
    generator = plain_copy(case.networks()[0])
    z, labels = case.inputs(generator)
    inputs = (z,) if labels is None else (z, labels)
    try:
        if generator.translates:  # its graph is read off otherwise
            captured, tensors = capture(generator, {"images": z}, [{0: "N"}])
            graph: nn.Module = CapturedModule(captured, tensors)
        else:
            graph = trace(generator, dict(zip(("z", "labels"), inputs, strict=False)))
    except Exception as error:  # symbols went through its code: anything may be raised
        reason = " ".join(str(error).split())[:120]
        raise AssertionError(
            f"the generator cannot be traced and would run dense ({type(error).__name__}: {reason}): decide by "
            "settings, never by what is in a tensor, and take the batch's size as z.shape[0], not len(z)"
        ) from error
    with torch.no_grad():
        one = [part[:1] for part in inputs]
        same = torch.allclose(graph(*one), generator(*one), rtol=1e-4, atol=1e-5)
    require(same, "the traced generator gives other images in a batch of another size")


@promise(slow=True)
def onnx(case: Case) -> None:
    """The generator can be written as ONNX."""
    if not all(importlib.util.find_spec(name) for name in NEEDED):
        skip_check("the extra [onnx] is not installed")
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_onnx(case.networks()[0], Path(folder) / "generator.onnx")
        except ExportError as error:
            raise AssertionError(str(error)) from error


@promise(slow=True)
def compiles(case: Case) -> None:
    """torch.compile gives the same outputs."""
    for role, network, x, labels in case.each():
        compiled = answer(torch.compile(network.eval()), x, labels)  # type: ignore[arg-type]
        close = torch.allclose(compiled, answer(network, x, labels), rtol=1e-3, atol=1e-4)
        require(close, f"torch.compile changes the outputs of the {role}")
