"""A captured network that computes only its kept weights, on the CPU, for inputs of any size."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancompress.graphs.build import CapturedModule
from gancompress.graphs.graph import Stored
from gancompress.graphs.values import constants_of, values_of
from gancompress.kernels import Pattern, status
from gancompress.kernels.measured import fastest
from gancompress.kernels.tuning import chosen_mode
from gancompress.lowering.plan import Plan
from gancompress.lowering.programs import RegionProgram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gancompress.graphs.graph import Node
    from gancompress.kernels import Mode, Program
    from gancompress.quantization.ranges import LayerBytes

__all__ = ["Part", "Profile", "SparseNetwork"]

#: Sizes of inputs whose programs are kept.
_SIZES = 8
#: Rows and columns of the piece of the first inputs that programs are tried on.
_PIECE = 64
#: Largest difference to torch, of the largest output, that is taken for rounding; a wrong fusion gives 0.1 and more.
_TOLERANCE = 1e-3
#: Layers that keep more are tried in torch too: the sparse kernels do not pay for them alone.
_NEARLY_DENSE = 0.5


@dataclass(frozen=True)
class Part:
    """A share of the time of a call.

    Attributes:
        name: of the operation in the graph; of a program, its first and last layer.
        operation: such as ``tanh``; ``program``.
        share: of the time of the call.
        layers: names of the weights of its convolutions.
    """

    name: str
    operation: str
    share: float
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """How a network ran.

    Attributes:
        seconds: of the fastest call.
        parts: in the order in which they ran.
        dense: convolutions that run in torch, by the name of the weight, and why.
    """

    seconds: float
    parts: tuple[Part, ...]
    dense: Mapping[str, str]

    @property
    def sparse(self) -> list[str]:
        """Names of the weights of convolutions that ran in programs."""
        return [layer for part in self.parts if part.operation == "program" for layer in part.layers]

    @property
    def programs(self) -> int:
        """How many there were."""
        return sum(part.operation == "program" for part in self.parts)

    def __str__(self) -> str:
        total = len(self.sparse) + len(self.dense)
        lines = [f"{len(self.sparse)} of {total} convolutions sparse, in {_count(self.programs, 'program')}"]
        slowest = sorted(self.parts, key=lambda part: -part.share)[:12]
        lines += [f"{part.share:6.1%}  {part.operation:20} {part.name}" for part in slowest]
        return "\n".join(lines + [f"dense: {name}: {why}" for name, why in self.dense.items()])


@dataclass(frozen=True)
class _Choice:
    """Which operations stay in torch, by name and reason; ``torch`` when all do."""

    stays: Mapping[str, str]
    torch: str = ""


class SparseNetwork:
    """Calls a captured network, on the CPU by sparse programs where these are faster.

    The programs are made for the sizes of the inputs when these are first met, and kept. On the first call, a piece of
    the inputs goes through torch too: outputs that differ leave the network in torch, and so does the clock.

    Args:
        network: in eval mode; weights that a mask leaves out are zero.
        masks: by the names of weights; True is kept. Of a weight without one, what is not zero is kept.
        sparse: ``always`` uses programs wherever they fit, ``never`` leaves all in torch, ``auto`` takes what is
            measured to be faster; None takes ``GANCOMPRESS_SPARSE``, then ``auto``.
        ranges: how convolutions compute in bytes, by the names of their weights. Programs are then used whatever is
            faster, with native kernels or without, unless ``sparse`` is ``never``.
    """

    def __init__(
        self,
        network: CapturedModule,
        masks: Mapping[str, Tensor],
        sparse: Mode | None = None,
        ranges: Mapping[str, LayerBytes] | None = None,
    ) -> None:
        self.network, self.masks, self.sparse, self.ranges = network, masks, sparse, ranges
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._choices: dict[Any, _Choice] = {}
        self._patterns: dict[str, Pattern] = {}
        self._constants: dict[str, Tensor] | None = None
        self._meta: CapturedModule | None = None
        self._weights: Any = None
        self._sized: tuple[Any, dict[str, Any]] = ((), {})

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the one output, or a tuple of them; without gradients."""
        with torch.no_grad():
            plan = self._plan(inputs)
            return self.network(*inputs) if plan is None else plan(*inputs)

    def profile(self, *inputs: Tensor, repeats: int = 3) -> Profile:
        """Call it a few times and say where the time goes.

        Args:
            *inputs: as for a call.
            repeats: calls; the fastest counts.
        """
        convolutions = dict(self._convolutions())
        with torch.no_grad():
            plan = self._plan(inputs)
            if plan is None:
                why, seconds = self._why_torch(inputs), []
                for _ in range(repeats):
                    start = time.perf_counter()
                    self.network(*inputs)
                    seconds.append(time.perf_counter() - start)
                return Profile(min(seconds), (Part("network", "torch", 1.0),), dict.fromkeys(convolutions, why))
            taken = min((plan.timed(*inputs) for _ in range(repeats)), key=sum)
        dense = self._left_to_torch(plan, self._choices[self._kind(inputs)].stays)
        parts = tuple(self._part(step, own / sum(taken)) for step, own in zip(plan.steps, taken, strict=True))
        return Profile(sum(taken), parts, dense)

    def calls(self, inputs: Sequence[Sequence[Tensor]]) -> list[tuple[tuple[str, ...], Program, list[Any]]]:
        """Return every float program with the names of its weights, and what it is called with for all inputs.

        The programs are those of the sizes of the first inputs; ``dense`` of these takes all sizes.
        """
        found: list[tuple[tuple[str, ...], Program, list[Any]]] = []
        with torch.no_grad():
            for given in inputs:
                plan = self._made(given, {})
                if not found:
                    found = [(one.layers, one.program, []) for one in plan.programs]
                for (layers, _, calls), one, own in zip(found, plan.programs, plan.calls(*given), strict=False):
                    if layers == one.layers:
                        calls.append(own)
        return found

    def plan(self, inputs: Sequence[Tensor]) -> Plan:
        """Return what inputs of these sizes are computed by, programs wherever they fit, for others to run.

        Raises:
            Exception: the sizes do not go together; torch says so in many ways.
        """
        with torch.no_grad():
            return self._made(inputs, {}, self.ranges)

    def dense(self, *inputs: Tensor) -> dict[str, str]:
        """Return why each convolution that torch computes for such inputs is left to it, by the name of its weight."""
        convolutions = dict(self._convolutions())
        with torch.no_grad():
            plan = self._plan(inputs)
        if plan is None:
            return dict.fromkeys(convolutions, self._why_torch(inputs))
        return self._left_to_torch(plan, self._choices[self._kind(inputs)].stays)

    def _left_to_torch(self, plan: Plan, stays: Mapping[str, str]) -> dict[str, str]:
        sparse = set(plan.sparse)
        return {
            name: stays.get(node.name, "programs have no place for it")
            for name, node in self._convolutions()
            if name not in sparse
        }

    @property
    def convolutions(self) -> list[str]:
        """Names of the weights of all convolutions."""
        return [name for name, _ in self._convolutions()]

    def __repr__(self) -> str:
        if not self._plans:
            return f"<{len(list(self._convolutions()))} convolutions; nothing has been called yet>"
        plan = next(reversed(self._plans.values()))
        total = len(list(self._convolutions()))
        return f"<{len(plan.sparse)} of {total} convolutions sparse, in {_count(len(plan.programs), 'program')}>"

    # ---------------------------------------------------------------------------------------------- plans

    def _plan(self, inputs: Sequence[Tensor]) -> Plan | None:
        """Return the programs for these inputs, None when torch is to compute them."""
        mode = chosen_mode(self.sparse)
        state = [*self.network.parameters(), *self.network.buffers()]
        elsewhere = any(one.device.type != "cpu" or not one.numel() for one in inputs)
        elsewhere = elsewhere or any(one.device.type != "cpu" for one in state)
        if mode == "never" or elsewhere or not (status().available or self.ranges):
            return None
        weights = [(one.data_ptr(), 0 if one.is_inference() else one._version) for one in state]
        if weights != self._weights:  # fine-tuned since
            self._weights = weights
            self._plans.clear()
            self._choices.clear()
            self._patterns.clear()
            self._constants = None
        choice = self._choices.get(self._kind(inputs))
        if choice is None:
            choice = self._choices[self._kind(inputs)] = self._choose(inputs, mode)
        if choice.torch:
            return None
        key = (*(tuple(x.shape) for x in inputs), mode)
        try:
            plan = self._plans.pop(key, None) or self._made(inputs, choice.stays, self.ranges)
        except Exception:  # sizes that do not go together: torch says so, in its words, when it is called
            return None
        self._plans[key] = plan
        while len(self._plans) > _SIZES:
            self._plans.popitem(last=False)
        return plan

    def _made(
        self, inputs: Sequence[Tensor], stays: Mapping[str, str], ranges: Mapping[str, LayerBytes] | None = None
    ) -> Plan:
        return Plan(self.network, self._values(inputs), self._known(), self._pattern, stays, ranges)

    def _values(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        if self._meta is None:
            graph, state = self.network.captured, self.network.state_dict()
            self._meta = CapturedModule(graph, {name: state[name].to("meta") for name in graph.tensors})
        key = [(x.shape, x.dtype) for x in inputs]
        if self._sized[0] != key:
            self._sized = (key, values_of(self._meta, inputs))
        return self._sized[1]

    def _known(self) -> dict[str, Tensor]:
        if self._constants is None:
            self._constants = constants_of(self.network)
        return self._constants

    def _kind(self, inputs: Sequence[Tensor]) -> tuple[str, int]:
        """What one choice holds for: a few images run in other kernels than many."""
        return chosen_mode(self.sparse), min(len(inputs[0]) if inputs and inputs[0].dim() else 1, 16)

    def _choose(self, inputs: Sequence[Tensor], mode: str) -> _Choice:
        piece = self._piece(inputs)
        state = self.network.state_dict() | self._known()
        densities = {name: self._pattern(name, state[name]).density for name, _ in self._convolutions()}
        nearly = {
            node.name: f"{densities[name]:.2f} of its weights are left, which is faster in torch"
            for name, node in self._convolutions()
            if densities[name] > _NEARLY_DENSE
        }
        candidates = [_Choice({})]
        if mode == "auto" and nearly and not self.ranges:
            candidates.append(_Choice(nearly))
        try:
            plans = [self._made(piece, one.stays) for one in candidates]
            difference = max(_difference(self.network(*piece), plan(*piece)) for plan in plans)
        except Exception as error:  # the same; or an operation whose sizes torch cannot tell without computing it
            return _Choice({}, f"{type(error).__name__}: {' '.join(str(error).split())[:120]}")
        if not difference <= _TOLERANCE:
            return _Choice({}, f"the outputs of the programs differ by {difference:.1e}")
        if not plans[0].programs:
            return _Choice({}, "programs have no place for it")
        if mode == "always" or self.ranges:
            return candidates[0]

        def timed(call: Any) -> float:
            start = time.perf_counter()
            call(*piece)
            return time.perf_counter() - start

        in_torch, *times = fastest([partial(timed, call) for call in (self.network, *plans)])
        best = min(range(len(times)), key=times.__getitem__)
        if times[best] >= in_torch:
            return _Choice({}, f"torch takes {in_torch / times[best]:.2f} times as long as programs, measured")
        return candidates[best]

    def _piece(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Cut the inputs along all axes that are open, but for the first, if the network takes pieces."""
        graph = self.network.captured
        piece = list(inputs)
        for place, one in enumerate(graph.inputs):
            for axis, size in enumerate(one.shape):
                if axis and isinstance(size, str):
                    piece[place] = piece[place].narrow(axis, 0, min(_PIECE, piece[place].shape[axis]))
        try:
            self._values(piece)
        except Exception:  # torch says in many ways that sizes do not go together
            return list(inputs)
        return piece

    # ---------------------------------------------------------------------------------------------- layers

    def _convolutions(self) -> list[tuple[str, Node]]:
        return [
            (node.args[1].name, node)
            for node in self.network.captured.nodes
            if node.op.startswith("aten.conv")
            and (isinstance(node.args[1], Stored) or node.args[1].name in self._known())
        ]

    def _pattern(self, name: str, weight: Tensor) -> Pattern:
        """Return what is kept of a weight; it is the same however much the weight was scaled since."""
        if name not in self._patterns:
            mask = self.masks.get(name)
            mask = weight != 0 if mask is None else mask.cpu()
            self._patterns[name] = Pattern(mask.unsqueeze(2) if mask.dim() == 3 else mask)
        return self._patterns[name]

    def _why_torch(self, inputs: Sequence[Tensor]) -> str:
        if chosen_mode(self.sparse) == "never":
            return "asked for"
        if not status().available:
            return f"no native kernels: {status().reason}"
        choice = self._choices.get(self._kind(inputs))
        return choice.torch if choice is not None else "it or its inputs are empty or not on the CPU"

    def _part(self, step: int | RegionProgram, share: float) -> Part:
        if isinstance(step, RegionProgram):
            layers = tuple(filter(None, step.layers))
            ends = dict.fromkeys((layers[0], layers[-1]))
            return Part(" to ".join(one.removesuffix(".weight") for one in ends), "program", share, layers)
        node = self.network.captured.nodes[step]
        return Part(node.name, node.op.removeprefix("aten.").removesuffix(".default"), share)


def _difference(wanted: Any, found: Any) -> float:
    """Return the largest difference of two outputs, of the largest number in the first; NaN are alike."""
    pairs = zip(wanted, found, strict=True) if isinstance(wanted, tuple) else [(wanted, found)]
    worst = 0.0
    for one, other in pairs:
        same = torch.isclose(one, other, rtol=0, atol=0, equal_nan=True)
        apart = torch.where(same, 0.0, (one - other).abs().double())
        largest = float(one.double().nan_to_num(0, 0, 0).abs().max()) if one.numel() else 0.0
        worst = max(worst, float(apart.nan_to_num(float("inf")).max()) / (largest or 1.0) if one.numel() else 0.0)
    return worst


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
