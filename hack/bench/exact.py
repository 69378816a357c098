"""make bench-exact: what exact training costs. Accuracy beside the same nets in float32 on several seeds; milliseconds of a
step beside float64 and float32 in the same minute; the interpreter's replay; hashing and checkpoints. Limits are printed
beside the figures; nothing fails because it is slow."""

import math
import os
import statistics
import tempfile
import time

import common
import exact_nets as nets
from common import record, run_part, say, setting, table

common.OUT = common.ROOT / "out" / "bench-exact.json"

# Net, data, model, optimizer by rate, steps, batch, rates to try in floats, and how much worse exact may be.
TEXT = nets.transformer(64, 2, heads=4)
POINTS, BITS = "accuracy, points", "bits a character"
ACCURACY = [
    ("MLP 64-64-10, digits", "digits", nets.mlp(64, 64, 10), nets.sgd, 1000, 32, ("0.02", "0.05", "0.1", "0.2"), POINTS, {"wide": 1.0, "i8": 1.0}),
    ("MLP 30-32-2, breast cancer", "cancer", nets.mlp(30, 32, 2), nets.sgd, 600, 32, ("0.02", "0.05", "0.1", "0.2"), POINTS, {"wide": 1.0, "i8": 1.0}),
    ("CNN, digits", "digits", nets.CNN, nets.adamw, 600, 32, ("0.001", "0.003", "0.01"), POINTS, {"wide": 0.5, "i8": 0.5}),
    ("transformer 2 × 64, Python sources", "sources", TEXT, nets.adamw, 3000, 16, ("0.002", "0.004", "0.008"), BITS, {"wide": 0.03, "i8": 0.06}),
]  # fmt: skip
# Seconds of a run on two cores, to say how long all will take.
SECONDS = {"MLP 64-64-10, digits": 5, "MLP 30-32-2, breast cancer": 4, "CNN, digits": 20, "transformer 2 × 64, Python sources": 75}


def score(evaluation, unit):
    if unit == POINTS:
        return 100 * evaluation["correct"] / evaluation["of"]
    return evaluation["loss"] / 4096 / evaluation["of"] / math.log(2)


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else 0.0


def accuracy(seeds, share):
    """Each net in floats at each rate for two seeds, then at the best for all; exact at that rate for all."""
    results = []
    for name, data, model, optimizer, steps, batch, rates, unit, limits in ACCURACY:
        steps = max(20, steps * share // 100)
        warmup, floor = steps // 20, "10%" if unit == BITS else "0%"

        def run(what, rate, seed, fmt):
            path = nets.setup(data, model, optimizer(rate), steps, batch, fmt, seed, warmup, floor)
            return score(nets.call(what, path)["evaluation"], unit)

        sign = -1 if unit == POINTS else 1
        tried = {rate: [run("float", rate, seed, "wide") for seed in range(1, min(seeds, 2) + 1)] for rate in rates}
        best = min(rates, key=lambda rate: sign * statistics.mean(tried[rate]))
        scores = {"float32": tried[best] + [run("float", best, seed, "wide") for seed in range(3, seeds + 1)]}
        for fmt in limits:
            scores[fmt] = [run("train", best, seed, fmt) for seed in range(1, seeds + 1)]
        mean = {kind: statistics.mean(values) for kind, values in scores.items()}
        worse = {fmt: sign * (mean[fmt] - mean["float32"]) for fmt in limits}
        say(f"  {name}: " + ", ".join(f"{kind} {value:.3f}" for kind, value in mean.items()))
        results.append({
            "net": name, "steps": steps, "batch": batch, "seeds": seeds, "unit": unit, "rate": best,
            "tried": {rate: statistics.mean(values) for rate, values in tried.items()},
            "scores": scores, "mean": mean, "spread": {kind: spread(values) for kind, values in scores.items()},
            "worseBy": worse, "limit": limits, "within": {fmt: worse[fmt] <= limits[fmt] for fmt in limits},
        })  # fmt: skip
    rows = []
    for one in results:
        digits = 2 if one["unit"] == POINTS else 3
        cell = lambda kind: f"{one['mean'][kind]:.{digits}f} ± {one['spread'][kind]:.{digits}f}"  # noqa: B023, E731
        off = lambda fmt: f"{one['worseBy'][fmt]:+.{digits}f} (≤ {one['limit'][fmt]})"  # noqa: B023, E731
        rows.append((f"{one['net']}, {one['steps']} steps", one["rate"], cell("float32"), cell("wide"), off("wide"), cell("i8"), off("i8")))
    notes = [
        "held out; mean ± standard deviation over the seeds; worse: by how much exact is worse than float32 (limit)",
        "float32 has the rate of its grid that is best on what is held out; exact has the same",
    ]
    table(f"Accuracy on {seeds} seeds: points of accuracy, or bits a character", ("net", "rate", "float32", "wide", "worse", "i8", "worse"), rows, notes)
    return results


def speed(rounds):
    """Step times of both formats beside floats, in one process, in turn."""
    wide = nets.transformer(1024, 1, context=64, heads=16)
    sizes = [
        ("transformer 2 × 64, 1,024 tokens", TEXT, 16, rounds, {"wide": ("float64", 1.3), "i8": ("float32", 2.0)}),
        ("transformer 1 × 1,024, 1,024 tokens", wide, 16, max(2, rounds // 4), {"i8": ("float32", 1.0)}),
    ]
    results, rows = [], []
    for name, model, batch, times, limits in sizes:
        for fmt, (kind, limit) in limits.items():
            path = nets.setup("sources", model, nets.adamw("0.004"), 100, batch, fmt, warmup=10, floor="10%")
            found = nets.call("speed", path, "--rounds", times, "--steps", 4 if times == rounds else 1)
            results.append({"net": name, "format": fmt, "against": kind, "limit": limit, "within": found["ratio"][kind] <= limit, **found})
            ms = found["milliseconds"]
            figures = [f"{ms[key]:.1f}" for key in ("exact", "float32", "float64")]
            rows.append((f"{name}, {fmt}", *figures, f"{found['ratio'][kind]:.2f} of {kind}", f"≤ {limit}"))
    table("A step in milliseconds, medians of rounds in turn", ("net", "exact", "float32", "float64", "ratio", "limit"), rows)
    for one in results:
        lines = [(row["operator"], row["shape"], row["times"], f"{row['milliseconds']:.2f}", f"{100 * row['share']:.0f} %") for row in one["profile"]["rows"]]
        table(f"What is left: {one['net']}, {one['format']}", ("operators", "shape", "times", "ms", "share"), lines)
    return results


def replay():
    """100 steps of the digits MLP by the interpreter."""
    path = nets.setup("digits", nets.mlp(64, 64, 10), nets.sgd("0.1"), 1000, 32, "wide")
    found = nets.call("train", path, "--sets", 0, "--interpret", "--until", 100)
    rows = [("100 steps of the digits MLP, wide", f"{found['seconds']:.1f}", "≤ 30")]
    table("The interpreter, release build", ("", "seconds", "limit"), rows)
    return {"steps": 100, "seconds": found["seconds"], "limit": 30, "within": found["seconds"] <= 30}


def cost():
    """State off the device, hashed and written, against a minute of training."""
    sizes = [
        ("MLP 64-64-10", "digits", nets.mlp(64, 64, 10), nets.sgd),
        ("transformer 2 × 64", "sources", TEXT, nets.adamw),
        ("MLP 64-950-950-10", "digits", nets.mlp(64, 950, 950, 10), nets.adamw),
    ]
    results, rows = [], []
    with tempfile.TemporaryDirectory(dir=nets.FOLDER) as folder:
        for name, data, model, optimizer in sizes:
            path = nets.setup(data, model, optimizer("0.001"), 100, 16, "i8")
            found = nets.call("cost", path, folder)
            results.append({"net": name, "limit": 0.02, "within": found["shareOfMinute"] <= 0.02, **found})
            ms = found["milliseconds"]
            figures = [f"{ms[key]:.1f}" for key in ("taken", "hashed", "written")]
            rows.append((f"{name}, {found['parameters']:,} parameters", f"{found['bytes']:,}", *figures, f"{100 * found['shareOfMinute']:.3f} %"))
    notes = ["optimizer state included; at the end of each segment of 60 s; limit 2 %"]
    table("Being checkable: a state taken, hashed, written, in milliseconds", ("net", "bytes", "taken", "hashed", "written", "of 60 s"), rows, notes)
    return results


def main():
    seeds, share, rounds = setting("SEEDS", 5), setting("STEPS", 100), setting("ROUNDS", 15)
    parts = os.environ.get("PARTS", "accuracy speed replay cost").split()
    if unknown := set(parts) - {"accuracy", "speed", "replay", "cost"}:
        raise nets.Failed(f'PARTS names "{min(unknown)}"; use accuracy, speed, replay, cost')
    if seeds < 1 or not 1 <= share <= 100:
        raise nets.Failed(f"SEEDS is {seeds} and STEPS is {share}; set at least 1 seed, and 1 to 100 percent of the steps")
    nets.build()
    runs = {name: 3 * seeds + (len(rates) - 1) * min(seeds, 2) for name, *_, rates, _, _ in ACCURACY}
    minutes = sum(SECONDS[name] * count for name, count in runs.items()) * share / 100 / 60 if "accuracy" in parts else 0
    say(f"bench-exact: {' '.join(parts)}; some {minutes + 4:.0f} min on two free cores (SEEDS={seeds}, STEPS={share} % of the steps) …")
    began, found = time.monotonic(), {}
    for part, work in {"speed": lambda: speed(rounds), "replay": replay, "cost": cost, "accuracy": lambda: accuracy(seeds, share)}.items():
        if part in parts:
            found[part] = work()
            record(part, {"stepsPercent": share, "results": found[part]})
    say(f"\nwritten to {common.OUT} after {(time.monotonic() - began) / 60:.0f} min")


run_part(main)
