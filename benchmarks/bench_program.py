"""A whole SNGAN-shaped generator: the compiled sparse program against the same network in eager torch.

    python benchmarks/bench_program.py [--channels 256] [--batch 16] [--rounds 7]

Weights are random: times do not depend on them. Every density is that of all convolutions alike. Both sides get the
folded batch norms and the shortcut at low resolution; ratios are paired inside one run, one thread, process CPU time.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from bench_kernels import alternate, keep_memory

from gancompress import kernels

DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5)


def generator(channels: int, density: float) -> kernels.Program:
    """Three residual up blocks from 4x4 to 32x32 and a last convolution, as SNGAN for 32x32 images."""
    net = kernels.Program((channels, 4, 4))
    h = net.input

    def layer(out: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weight = torch.randn(out, channels, size, size) * 0.02
        return weight, torch.rand(weight.shape) < density, torch.randn(out) * 0.1

    def affine() -> dict[str, torch.Tensor]:
        return {"scale": torch.rand(channels) + 0.5, "shift": torch.randn(channels) * 0.1}

    for _ in range(3):
        shortcut = net.conv(h, *layer(channels, 1))
        t = net.conv(h, *layer(channels, 3), padding=1, upsample=True, pre_relu=True, relu=True, **affine())
        h = net.conv(t, *layer(channels, 3), padding=1, add=shortcut, add_upsample=True)
    net.output(net.conv(h, *layer(3, 3), padding=1, pre_relu=True, **affine()))
    return net


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    x = torch.randn(options.batch, options.channels, 4, 4)
    nets = {d: generator(options.channels, d) for d in DENSITIES}
    print(f"kernels: {kernels.status()}; torch {torch.__version__}; C{options.channels} B{options.batch}")
    with torch.no_grad():
        error = max(float((net(x) - net.dense(x)).abs().max()) for net in nets.values())
        last = x.to(memory_format=torch.channels_last)
        dense = nets[0.5]
        steps = {"dense": lambda: dense.dense(x), "dense channels_last": lambda: dense.dense(last)}
        steps |= {f"sparse {d}": lambda net=net: net(x) for d, net in nets.items()}
        times = alternate(steps, options.rounds)
    for name, own in times.items():
        ratios = [d / t for d, t in zip(times["dense"], own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:22} {1e3 * statistics.median(own):9.2f} ms {middle:7.2f}x [{low:.2f}-{high:.2f}]")
    print(f"largest difference to dense: {error:.1e}")


if __name__ == "__main__":
    main()
