"""Which convolutions of a run are folded (:mod:`gancompress.backbones.folding`): measured when the run starts.

Folding saves products, but not always time: some shapes lose in bf16. ``auto`` times every convolution beside a change
of resolution both ways, forward and backward, once per machine and shape, and keeps the answers in the user's cache.
Where the sparse kernels run, they are timed as well: the answer is the density above which folded dense is the fastest
of the three.

The answers that a run has used travel in its checkpoints, so a resumed run computes what it began with and ends with
the same bytes. Several processes use those of the first.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gancompress import kernels
from gancompress.backbones import folding
from gancompress.kernels.layout import to_batch_last
from gancompress.kernels.measured import DENSITIES, Figures, crossing, drawn, fastest, processor_key, rounded_batch
from gancompress.kernels.resample import average2, upsample2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gancompress.backbones.folding import FoldKind
    from gancompress.training.groups import Group

__all__ = ["FIGURES", "FoldMode", "FoldedLayer", "Folding", "folded_above"]

#: ``auto``: as measured; ``always`` and ``never``: all or none
FoldMode = Literal["auto", "always", "never"]

#: the densities of this machine above which folding pays
FIGURES = Figures("folding.json")

#: calls per turn on a GPU, where one call is shorter than its launch
_CALLS = 20
#: a gain smaller than this is noise
_WORTH = 0.98
_BELOW_ONE = 0.9999
#: in keys, so that what was measured of the 4x4 kernels of earlier versions is not taken for this
_PRODUCTS = "in 9 products,"


@dataclasses.dataclass(frozen=True)
class FoldedLayer:
    """All that the times depend on.

    Attributes:
        kind: what stands beside the convolution.
        channels: of its output and of its input.
        batch: images.
        size: height and width of its input (of the small map for ``up``).
        device: type of the device.
        bf16: under autocast.
        channels_last: memory format.
        sparse: the sparse kernels are an alternative.
    """

    kind: FoldKind
    channels: tuple[int, int]
    batch: int
    size: tuple[int, int]
    device: str = "cpu"
    bf16: bool = False
    channels_last: bool = False
    sparse: bool = False

    @property
    def in_pairs(self) -> bool:
        """Whether the sparse kernels multiply pairs of channels in bf16: both numbers are even."""
        return self.sparse and self.bf16 and not any(count % 2 for count in self.channels)

    @property
    def key(self) -> str:
        """The layer in words."""
        precision = "bf16" if self.bf16 else "float32"
        if self.bf16 and self.device == "cpu" and not self.channels_last:
            precision += ", boxes in float32"  # they were torch's in earlier versions, and much slower
        return (
            f"{self.kind} {_PRODUCTS} {self.channels[0]}x{self.channels[1]} "
            f"on {self.batch}x{self.size[0]}x{self.size[1]}, "
            f"{precision}, {'channels last' if self.channels_last else 'contiguous'}"
            f"{', or sparse folded' if self.sparse else ''}{' in pairs' if self.in_pairs else ''}, "
            + (f"{torch.get_num_threads()} threads" if self.device == "cpu" else self.device)
        )


class Folding:
    """How the convolutions of one run are computed.

    Args:
        mode: ``auto`` or ``always``; a run that folds nothing has no such object.
        device: where the networks are.
        bf16: they run under autocast.
        channels_last: their memory format.
        sparse: masked layers run on the sparse kernels where that is measured to be faster.

    Attributes:
        table: the density above which each layer is folded, by layer; part of the run's checkpoints.
    """

    def __init__(
        self,
        mode: Literal["auto", "always"],
        *,
        device: torch.device | str = "cpu",
        bf16: bool = False,
        channels_last: bool = False,
        sparse: bool = False,
    ) -> None:
        self.mode = mode
        self.device = torch.device(device)
        self.bf16, self.channels_last, self.sparse = bf16, channels_last, sparse
        self.table: dict[str, float] = {}
        self._open: list[nn.Conv2d] = []

    def attach(self, networks: Iterable[nn.Module]) -> int:
        """Take over the convolutions of live networks and return how many there are; :meth:`decide` comes next."""
        always = self.mode == "always"
        found = [(conv, kind) for network in networks for _, conv, kind in folding.resampling(network)]
        for conv, kind in found:
            folding.attach(conv, kind, 0.0 if always else None)
        self._open = [] if always else [conv for conv, _ in found]
        return len(found)

    @property
    def undecided(self) -> bool:
        """Whether convolutions wait for :meth:`decide`."""
        return bool(self._open)

    def decide(self, batches: Mapping[nn.Module, int], group: Group, say: Callable[[str], None] | None = None) -> None:
        """Choose for every convolution that one forward pass of its network has shown its input.

        Args:
            batches: images of a training pass, by network.
            group: all processes call; the first one's measurements hold for all.
            say: told before anything is measured that no cache remembers, which takes seconds.
        """
        batch_of = {conv: batch for network, batch in batches.items() for conv in network.modules()}
        layers = {conv: self._layer(conv, batch_of[conv]) for conv in self._open}
        if group.is_main:
            asked = {layer.key: layer for layer in layers.values() if layer is not None and layer.key not in self.table}
            unknown = sum(FIGURES.known(_machine(layer.device), layer.key) is None for layer in asked.values())
            if unknown and say is not None:
                say(f"timing {unknown} layer{'s' if unknown > 1 else ''} to choose their kernels, once on this machine")
            self.table |= {key: folded_above(layer) for key, layer in asked.items()}
        shared, _ = group.share({"table": self.table}, {})
        self.restore(shared["table"])
        self._settle({conv: self.table[layer.key] for conv, layer in layers.items() if layer is not None})

    def _settle(self, above: Mapping[nn.Conv2d, float]) -> None:
        for conv in self._open:
            how = folding.attached(conv)
            if how is not None:
                how.above = above.get(conv, 1.0)
        self._open = []

    def restore(self, table: Mapping[str, float] | None) -> None:
        """Go on with the answers that a checkpoint holds; call it before the first training step.

        Args:
            table: None is what checkpoints say that are older than folding: those runs fold nothing.
        """
        if table is None:
            self._settle({})
        else:
            self.table = {_key_now(key): float(value) for key, value in table.items()}

    def _layer(self, conv: nn.Conv2d, batch: int) -> FoldedLayer | None:
        how = folding.attached(conv)
        if how is None or how.seen is None:
            return None
        batch = rounded_batch(batch) if self.device.type == "cpu" else batch
        return FoldedLayer(
            how.kind, (conv.out_channels, conv.in_channels), batch, how.seen,
            self.device.type, self.bf16, self.channels_last, self.sparse,
        )  # fmt: skip


def _key_now(key: str) -> str:
    """Return a layer's key, given it or that of a checkpoint from when layers were folded into 4x4 kernels."""
    kind, _, rest = key.partition(" ")
    return key if rest.startswith(_PRODUCTS) else f"{kind} {_PRODUCTS} {rest}"


def folded_above(layer: FoldedLayer) -> float:
    """Return the density above which folded dense is fastest here: 0 always, 1 never. Measured on the first call."""
    return FIGURES.get(_machine(layer.device), layer.key, lambda: _crossing(*_times(layer)))


def _machine(device: str) -> str:
    return f"{torch.cuda.get_device_name() if device == 'cuda' else processor_key()}, torch {torch.__version__}"


def _crossing(plain: float, fold: float, sparse: tuple[float, float] | None) -> float:
    """Turn seconds into the density above which folded dense wins.

    Args:
        plain: as written.
        fold: folded.
        sparse: folded on the sparse kernels, at two densities of the 3x3 kernel; None where they do not run.
    """
    if fold > _WORTH * plain:
        return 1.0
    if sparse is None:
        return 0.0
    # a layer without masks has density 1 and never runs sparse: it is folded whatever the line says
    return crossing(fold, *sparse, most=_BELOW_ONE)


def _times(layer: FoldedLayer) -> tuple[float, float, tuple[float, float] | None]:
    """Time forward and backward as written, folded and, at two densities, sparse; the best of a few turns each."""
    random = torch.Generator().manual_seed(0)  # never the user's generator: a measurement must not change a run
    memory = torch.channels_last if layer.channels_last else torch.contiguous_format

    def leaf(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=random).to(layer.device)
        return (drawn.contiguous(memory_format=memory) if len(shape) == 4 else drawn).requires_grad_()

    rows, columns = layer.channels
    weight, bias, x = leaf(rows, columns, 3, 3), leaf(rows), leaf(layer.batch, columns, *layer.size)
    up = layer.kind == "up"

    def written(x: Tensor) -> Tensor:
        return F.conv2d(upsample2(x), weight, bias, padding=1) if up else average2(F.conv2d(x, weight, bias, padding=1))

    def fold(x: Tensor) -> Tensor:
        return folding.combined(layer.kind, x, weight, bias)

    def sparse(density: float) -> Callable[[Tensor], Tensor]:
        mask = drawn(tuple(weight.shape), density, random, in_blocks=layer.in_pairs)
        pattern = kernels.Pattern(folding.turned(mask) if up else mask)
        # as the maps of a network lie whose layers run sparse
        own = to_batch_last(x.detach()).requires_grad_() if layer.batch % 16 == 0 else x
        return lambda _: folding.combined(layer.kind, own, weight, bias, pattern=pattern)

    ways = [written, fold, *((sparse(density) for density in DENSITIES) if layer.sparse else ())]
    best = fastest([partial(_turn, way, x, layer) for way in ways])
    return best[0], best[1], (best[2], best[3]) if layer.sparse else None


def _turn(way: Callable[[Tensor], Tensor], x: Tensor, layer: FoldedLayer) -> float:
    on_gpu = layer.device == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(_CALLS if on_gpu else 1):
        with torch.enable_grad(), torch.autocast(layer.device, torch.bfloat16, enabled=layer.bf16):
            # inside a network the map before is in the type of autocast already
            out = way(x.bfloat16() if layer.bf16 else x)
        out.backward(torch.ones_like(out))  # type: ignore[no-untyped-call]
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
