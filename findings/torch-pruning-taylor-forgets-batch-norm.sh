#!/usr/bin/env bash
# torch-pruning 1.6.1: Taylor importance does not see batch norms, in a group that holds one.
#
# Guess before looking: like magnitude and Hessian importance of the same package, which add the term of every batch norm of
# a group to the score of a channel, GroupTaylorImportance adds |weight * gradient| of it.
# Seen (2026-11-28): a batch norm counts for nothing. Its weight and its gradient can be a thousand times those of all other
# channels, and the score of that channel stays as it was, to the last bit; magnitude and Hessian importance rise by five
# powers of ten. The branch that is meant for it is entered by group norms alone. Nothing is said. Convolutions with a batch
# norm behind them, the ordinary case, are ranked by their own weights only.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch-pruning==1.6.1" "torch==2.14.1" "numpy==2.4.6"
cd "$work"
cat > look.py <<'PY'
import torch
import torch_pruning as tp
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))
images = torch.randn(4, 3, 8, 8)
net(images).square().sum().backward()
graph = tp.DependencyGraph().build_dependency(net, images)
group = graph.get_pruning_group(net[0], tp.prune_conv_out_channels, idxs=list(range(6)))
assert any(isinstance(dep.target.module, nn.BatchNorm2d) for dep, _ in group), "the group should hold the batch norm"
norm = net[1]


def rises(importance):
    """Return how many times the score of the first channel is after its norm's weight and gradient were set to 1000."""
    before = importance(group)
    kept = norm.weight.data.clone(), norm.weight.grad.clone()
    norm.weight.data[0] = norm.weight.grad[0] = 1000.0
    after = importance(group)
    norm.weight.data.copy_(kept[0])
    norm.weight.grad.copy_(kept[1])
    assert torch.equal(before[1:], after[1:])
    return float(after[0] / before[0])


taylor = rises(tp.importance.GroupTaylorImportance(normalizer=None))
magnitude = rises(tp.importance.GroupMagnitudeImportance(normalizer=None))
print(f"first channel's score rises {taylor:g} times by Taylor importance, {magnitude:.0f} times by magnitude")
assert taylor == 1.0, "torch-pruning's Taylor importance sees batch norms now"
assert magnitude > 1e5
PY
"$work/venv/bin/python" look.py
