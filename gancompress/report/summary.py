"""The few numbers that a run comes down to, the same in the report, on the terminal and in a notebook."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gancompress.recipe.document import flat
from gancompress.report.protocols import few_images, shared_protocol
from gancompress.report.published import answers_of_run
from gancompress.report.shown import Shown, Table, aligned
from gancompress.report.words import count, density, duration, metric_value, quantity, ratio, scaled
from gancompress.runs.record import mapping, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gancompress.runs.record import Metric, RunRecord

__all__ = ["Fact", "cost_rows", "headline", "metric_facts", "plain_metrics", "shown_facts", "shown_run"]


@dataclasses.dataclass(frozen=True)
class Fact:
    """One headline number.

    Attributes:
        group: ``density``, ``theory``, ``time``, ``bytes`` or ``metric``; a report never mixes them.
        label: what it is.
        value: the number, as text.
        detail: what it rests on: counts, the dense number, the step.
        protocol: how a metric was measured; empty for all else.
    """

    group: str
    label: str
    value: str
    detail: str = ""
    protocol: str = ""


def headline(run: RunRecord) -> list[Fact]:
    """Return the headline numbers; those that are not known are left out."""
    return [*_densities(run), *_theory(run), *_time(run), *_bytes(run), *_metrics(run)]


def shown_run(run: RunRecord) -> Shown:
    """Return densities, FLOPs against dense, time, bytes, and every metric of the best evaluation.

    What is a metric's own stands beside it, what holds for all of them below: the protocol that they share, a warning
    where there is one to give, and the published figures that they answer to.
    """
    facts, lines = headline(run), list[str]()
    chosen = run.best if run.best is not None else run.last
    if chosen is not None:
        # The headline's own metric is the first of these, and says of which step it is and what came last.
        of_step = "".join(fact.detail for fact in facts if fact.group == "metric")
        measured, lines = metric_facts(chosen[1], of_step)
        facts = [*(fact for fact in facts if fact.group != "metric"), *measured]
    state = run.status.state
    unfinished = "" if state == "done" else f" ({state}{f', step {count(run.last_step)}' * bool(run.last_step)})"
    smoke = " (smoke run: the numbers mean nothing)" if run.is_smoke else ""
    lines += [answer.line for answer in answers_of_run(run)]
    return shown_facts(f"{run.name}{unfinished}{smoke}", facts, lines)


def shown_facts(title: str, facts: Sequence[Fact], lines: Sequence[str]) -> Shown:
    """Return facts one below the other, a group of a kind each, and ``lines`` below them."""
    if not facts:
        return Shown(f"{title}: nothing measured yet")
    groups = [index for index in range(1, len(facts)) if facts[index].group != facts[index - 1].group]
    rows = [(fact.label, fact.value, fact.detail) for fact in facts]
    table = Table(rows, numbers={1}, strong={1}, soft={2}, sections=groups)
    return Shown(title, [table], below=lines, indent="  ")


def plain_metrics(metrics: Sequence[Metric]) -> list[str]:
    """Return the metrics of one evaluation as lines, what is each one's own beside it, and what they share below."""
    facts, lines = metric_facts(metrics)
    return [*aligned([(fact.label, fact.value, fact.detail) for fact in facts], numbers={1}), *lines]


def _densities(run: RunRecord) -> Iterator[Fact]:
    for role in run.networks:
        exact, asked = run.exact_density(role), run.asked_density(role)
        counted, counts = run.counted(role), run.counts(role)
        if exact is None:
            continue
        wish = f"asked {density(asked)}" if asked is not None else "asked through the total density"
        if mapping(mapping(run.recipe.get("sparsity")).get("method")).get("name") == "channels":
            wish += " of its channels"
        # The layers may hold more than the budget speaks of; say the counts only where they are the density's own, and
        # never let the density of some weights pass for that of the network.
        detail = wish
        if counted is not None:
            words, kept, all_ = counted
            if words and counts is not None:
                whole = f"{counts[0] / counts[1]:.2g} of all {count(counts[1])} weights"
                detail = f"of {words}: {count(kept)} of {count(all_)}; {whole}; {wish}"
            else:
                detail = f"{wish}; {count(kept)} of {count(all_)} weights"
        yield Fact("density", f"{role} density", density(exact), detail)


def _theory(run: RunRecord) -> Iterator[Fact]:
    macs = run.macs("generator")
    if macs and macs[0]:
        detail = f"{scaled(macs[1])} of {scaled(macs[0])} multiply-adds per image"
        yield Fact("theory", "inference FLOPs against dense", ratio(macs[1] / macs[0]), detail)
    found = _training_flops(mapping(run.cost.get("theory")))
    if found is not None:
        sparse, dense = found
        yield Fact(
            "theory",
            "training FLOPs against dense",
            ratio(sparse / dense),
            f"{scaled(sparse)} of {scaled(dense)} FLOPs, whole run",
        )


def _training_flops(theory: Mapping[str, Any]) -> tuple[float, float] | None:
    """Find the FLOPs of the whole training, sparse and dense, in the theory part of ``cost.json``."""
    training = mapping(theory.get("training"))
    leaves = {key: number(value) for key, value in flat(training).items()}
    for sparse_key, dense_key in (
        ("flops", "dense_flops"),
        ("sparse_flops", "dense_flops"),
        ("sparse", "dense"),
        ("total", "dense"),
    ):
        sparse, dense = leaves.get(sparse_key), leaves.get(dense_key)
        if sparse is not None and dense:
            return sparse, dense
    return None


def _time(run: RunRecord) -> Iterator[Fact]:
    seconds = run.training_seconds
    if seconds is None:
        seconds = number(mapping(run.cost.get("time")).get("training_seconds"))
    if seconds is None:
        return
    rate = f"{run.last_step / seconds:.3g} steps per second; " if seconds > 0 and run.last_step else ""
    device = run.environment.get("device")
    where = run.environment.get("processor") if device == "cpu" else device
    threads = number(run.environment.get("threads"))
    cores = f", {threads:g} thread{'s' if threads != 1 else ''}" if threads is not None and device == "cpu" else ""
    yield Fact("time", "training time, measured", duration(seconds), f"{rate}on {where or 'an unnamed machine'}{cores}")


def _bytes(run: RunRecord) -> Iterator[Fact]:
    sizes = mapping(run.cost.get("bytes"))
    generator = mapping(sizes.get("generator")) or sizes
    leaves = {key: number(value) for key, value in flat(generator).items()}
    dense = next((leaves[key] for key in ("dense", "dense_bytes") if leaves.get(key)), None)
    packed = next(
        (leaves[key] for key in ("packed", "packed_bytes", "bitmask", "bitmask_bytes") if leaves.get(key)), None
    )
    if dense and packed:
        detail = f"computed from the budgets; {quantity('bytes', dense)} when dense"
        yield Fact("bytes", "generator size, packed", quantity("bytes", packed), detail)


def _metrics(run: RunRecord) -> Iterator[Fact]:
    if run.last is None:
        return
    last_step, last = run.last
    if run.best is not None and run.best[1]:
        step, best = run.best[0], run.best[1][0]
        # The best of many looks is flattering; the last one stands beside it.
        ends = ""
        if step != last_step and last:
            ends = f"; last, at step {count(last_step)}: {metric_value(last[0].value, last[0].std)}"
        others = run.of_other_protocol
        left_out = f"; {others} under another protocol left out" if others else ""
        yield _metric(best, f"best, at step {count(step)}{ends}{left_out}")
    elif last:
        yield _metric(last[0], f"at step {count(last_step)}")


def metric_facts(metrics: Sequence[Metric], detail: str = "") -> tuple[list[Fact], list[str]]:
    """Return every metric of one evaluation, and the lines that hold for all of them.

    Args:
        metrics: of one evaluation.
        detail: what to say of the first, which is the one that chooses the best step.

    Returns:
        One fact per metric, whose detail holds only the part of its protocol that is its own; and the shared protocol
        with a warning where there is one to give.
    """
    shared, own = shared_protocol([metric.protocol for metric in metrics])
    facts = []
    for index, (metric, settings) in enumerate(zip(metrics, own, strict=True)):
        said = filter(None, (detail if index == 0 else "", settings))
        facts.append(Fact("metric", metric.label, metric_value(metric.value, metric.std), "; ".join(said)))
    lines = [f"protocol: {shared or 'not recorded'}"] if shared or not any(own) else []
    warning = few_images(metrics)
    return facts, [*lines, *([f"warning: {warning}"] if warning else [])]


def _metric(metric: Metric, detail: str) -> Fact:
    protocol = metric.protocol or "protocol not recorded"
    return Fact("metric", metric.label, metric_value(metric.value, metric.std), detail, protocol)


def cost_rows(value: Mapping[str, Any], unit: str = "") -> list[tuple[str, str]]:
    """Return every number of a group of ``cost.json`` with words for its key and the unit that the key names.

    Args:
        value: the group.
        unit: the group's own unit (``bytes``), for keys that name none.
    """
    rows = []
    for path, item in flat(value).items():
        share = {"ratio", "share"} & set(path.replace(".", "_").split("_"))
        key = f"{path}_bytes" if unit == "bytes" and isinstance(item, int) and not share else path
        rows.append((path.replace("_", " ").replace(".", " › "), quantity(key, item)))
    return rows
