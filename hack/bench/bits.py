"""make bench-bits: one root, whatever computes it. Three nets in two formats are trained by every machine that there is
here; their states' roots and evaluations must be equal. Any that is not ends the command with the pair's names."""

import os
import platform
import random
import shutil
import tempfile
import time

import arm64
import common
import exact_nets as nets
from common import record, run_part, say, setting, table
from exact_nets import Failed

common.OUT = common.ROOT / "out" / "bench-bits.json"
INTERPRETED = 20


def jobs(steps):
    """Name, and a setup for each format. The nets are small, for the interpreter goes with them for some steps."""
    text = nets.transformer(32, 2, context=32, heads=2)
    return [
        ("MLP", lambda fmt, n=steps: nets.setup("digits", nets.mlp(64, 32, 10), nets.sgd("0.1"), n, 16, fmt)),
        ("CNN", lambda fmt, n=steps: nets.setup("digits", small_cnn(), nets.adamw("0.003"), n, 8, fmt)),
        ("transformer", lambda fmt, n=steps: nets.setup("sources", text, nets.adamw("0.004"), n, 4, fmt, floor="10%", accumulation=2)),
    ]


def small_cnn():
    return {"cnn": {"input": [1, 8, 8], "channels": [8, 16], "kernel": 3, "hidden": 32, "classes": 10}}


def flags():
    if platform.machine() != "x86_64":
        return set()
    with open("/proc/cpuinfo") as file:
        return set(next(line for line in file if line.startswith("flags")).split())


def capabilities():
    """Kernels that libraries can be held to here, as environment variables: ATen's own; MKL's (BLAS); oneDNN's (int8)."""
    have = flags()
    if not have:
        return []
    wide = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= have
    avx2 = {"avx2", "fma"} <= have
    offered = [(True, "default"), (avx2, "avx2"), (wide, "avx512")]
    found = [{"ATEN_CPU_CAPABILITY": name} for yes, name in offered if yes]
    offered = [(True, "COMPATIBLE"), ("sse4_2" in have, "SSE4_2"), ("avx" in have, "AVX"), (avx2, "AVX2"), (wide, "AVX512")]
    found += [{"MKL_CBWR": name} for yes, name in offered if yes]
    offered = [("sse4_2" in have, "SSE4_2"), (avx2, "AVX2"), (wide, "AVX512")]
    found += [{"MKL_ENABLE_INSTRUCTIONS": name} for yes, name in offered if yes]
    offered = [
        ("sse4_1" in have, "SSE41"), ("avx" in have, "AVX"), (avx2, "AVX2"), (wide, "AVX512_CORE"),
        (wide and "avx512_vnni" in have, "AVX512_CORE_VNNI"),
    ]  # fmt: skip
    return found + [{"ONEDNN_MAX_CPU_ISA": name} for yes, name in offered if yes]


def variants(steps, fmt, folder, at):
    """Name, arguments after the setup, environment; the first is what the others are compared with."""
    quarter = max(1, steps // 4)
    marks = ["--every", quarter, "--also", min(INTERPRETED, steps), "--also", at]
    yield "2 threads, fastest units", [*marks, "--checkpoints", folder], {}
    yield "1 thread", [*marks, "--threads", 1], {}
    for units in ("f64", "f32,f64", "int8,f64") if fmt == "i8" else ("f64", "f32,f64"):
        yield f"units {units}", [*marks, "--units", units], {}
    for environment in capabilities():
        name = " ".join(f"{key}={value}" for key, value in environment.items())
        yield name, marks, environment
    yield "the interpreter", ["--interpret", "--until", min(INTERPRETED, steps)], {}
    yield f"interrupted after step {at} and resumed", ["--resume", f"{folder}/{at}", "--every", quarter], {}
    for start in range(0, steps, quarter):
        until = min(start + quarter, steps)
        yield f"steps {start} to {until} replayed from the checkpoint", ["--resume", f"{folder}/{start}", "--until", until], {}


def compare(job, first, name, other, full):
    """The states that both have reached, and the evaluation where both have ended."""
    common_steps = [step for step in other["roots"] if step in first["roots"]]
    if other["program"] != first["program"] or not common_steps:
        raise Failed(f"{job}: {name} has nothing in common with {first['name']}")
    for step in common_steps:
        if other["roots"][step] != first["roots"][step]:
            raise Failed(f"{job}: after {step} steps {first['name']} has root {first['roots'][step]}, {name} has {other['roots'][step]}")
    if full and other["evaluation"] != first["evaluation"]:
        raise Failed(f"{job}: {first['name']} evaluates to {first['evaluation']}, {name} to {other['evaluation']}")
    return len(common_steps)


def bits(name, setup, fmt, steps, chance):
    job, path, at = f"{name} {fmt}", setup(fmt), chance.randrange(1, steps)
    folder = tempfile.mkdtemp(dir=nets.FOLDER)
    first, compared, known = None, [], 0
    try:
        for variant, arguments, environment in variants(steps, fmt, folder, at):
            try:
                found = nets.call("train", path, "--sets", 1, *arguments, environment=environment)
            except Failed as failed:
                if "is not admitted here" in str(failed):
                    say(f"  {job}: {variant}: {str(failed).split(': ')[-1]}, so it is not compared")
                    continue
                raise
            if first is None:
                first = {**found, "name": variant}
                continue
            full = str(steps) in found["roots"]
            known += compare(job, first, variant, found, full)
            compared.append({"variant": variant, "states": sorted(map(int, found["roots"])), "evaluated": full, "products": found["products"]})
    finally:
        shutil.rmtree(folder)
    return {
        "net": name, "format": fmt, "parameters": first["parameters"], "operators": first["operators"], "steps": steps,
        "program": first["program"], "root": first["roots"][str(steps)], "evaluation": first["evaluation"],
        "products": first["products"], "comparedWith": compared, "statesCompared": known,
    }  # fmt: skip


def floats(name, setup):
    """The same capabilities in float32, to see that they do compute otherwise: how many different states."""
    found = [nets.call("float", setup("wide"), environment=environment)["digest"] for environment in [{}, *capabilities()]]
    found.append(nets.call("float", setup("wide"), "--threads", 1)["digest"])
    return {"net": name, "runs": len(found), "differentStates": len(set(found))}


def on_arm(steps):
    """Operators that were recorded here, and whole steps, computed by PyTorch's arm64 build under QEMU."""
    libraries = arm64.ready()
    results = {"cores": [], "steps": steps}
    with tempfile.TemporaryDirectory(dir=nets.FOLDER) as folder:
        files, setups = [f"{folder}/corners"], []
        nets.call("record", "corners", files[0])
        for name, setup in jobs(steps):
            for fmt in ("wide", "i8"):
                path = setup(fmt)
                setups.append((f"{name} {fmt}", path, nets.call("train", path, "--sets", 1, "--until", 2, "--every", 1)))
                files.append(f"{folder}/{len(files)}")
                nets.call("record", path, files[-1])
        here = nets.call("check", *files)
        for core in arm64.CORES:
            program = arm64.emulated(core, libraries)
            say(f"  arm64, {core}: {sum(one[0] for one in here['operators'].values()):,} operators, then 2 steps of each net …")
            there = nets.call("check", *files, program=program, libraries={})
            if there["operators"] != here["operators"]:
                raise Failed(f"arm64 ({core}) and this machine computed other operators")
            for job, path, expected in setups:
                found = nets.call("train", path, "--sets", 1, "--until", 2, "--every", 1, program=program, libraries={})
                compare(job, {**expected, "name": platform.machine()}, f"arm64 ({core})", found, full=True)
            results["cores"].append({"core": core, "units": there["units"], "products": there["products"]})
    return {**results, "operators": {name: {"times": times, "elements": elements} for name, (times, elements) in here["operators"].items()}}


def main():
    steps, seed = setting("STEPS", 200), setting("SEED", 1)
    if steps < 4:
        raise Failed(f"STEPS is {steps}; set at least 4")
    chance, began = random.Random(seed), time.monotonic()
    nets.build()
    say(f"bench-bits: 3 nets in 2 formats, {steps} steps each, on every machine here; some {max(1, steps // 20)} min …")
    results, rows = [], []
    for name, setup in jobs(steps):
        for fmt in ("wide", "i8"):
            result = bits(name, setup, fmt, steps, chance)
            results.append(result)
            rows.append((f"{name} {fmt}", f"{result['parameters']:,}", len(result["comparedWith"]) + 1, result["statesCompared"], result["root"][:18] + "…"))
            say(f"  {rows[-1][0]}: {rows[-1][2]} machines, one root, {rows[-1][4]}")
    controls = [floats(name, setup) for name, setup in jobs(steps)]
    arm = {"checked": False, "why": "ARM64=0"}
    if os.environ.get("ARM64", "1") != "0":
        try:
            arm = {"checked": True, **on_arm(steps)}
        except arm64.Refused as refused:
            arm = {"checked": False, "why": str(refused)}
    notes = [f"{one['net']} in float32: {one['differentStates']} different states of {one['runs']} runs with the same capabilities" for one in controls]
    if arm["checked"]:
        times = sum(one["times"] for one in arm["operators"].values())
        cores = " and ".join(core["core"] for core in arm["cores"])
        notes.append(f"arm64 under QEMU ({cores}): {len(arm['operators'])} kinds of operator, {times:,} of them, and 2 steps of each net: the same bytes")
    else:
        notes.append(f"arm64: NOT checked. {arm['why']}")
    notes.append("GPU: not checked; no back end for it is built into this program")
    table(f"Bit equality after {steps} steps with warm-up, cosine schedule and evaluation", ("net", "parameters", "machines", "states", "root"), rows, notes)
    record("bits", {"steps": steps, "seed": seed, "seconds": round(time.monotonic() - began), "cpu": cpu(), "nets": results, "float32": controls, "arm64": arm})


def cpu():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


run_part(main)
