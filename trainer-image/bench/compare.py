"""Prints steps a second of freehold-trainer and of PyTorch, and their ratio.

Both train the digits recipe of trainer-image/examples/train.json on one thread and go through the rows
in batches of 32; the time is that of the steps, without start and data. Rounds alternate, so that what
else the machine does meets both; the medians count.

Usage: compare.py TRAINER LIBRARY_PATH ROUNDS PROFILE
"""

import csv
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"
import torch  # noqa: E402 (reads the variable when it is imported)

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/data/digits-train.csv.gz"
STEPS = 5000


def freehold(trainer, libraries, recipe):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "in").mkdir()
        (folder / "in/dataset").write_bytes(DATA.read_bytes())
        (folder / "task.json").write_text(json.dumps({"kind": "TrainingTask", "recipe": recipe}))
        arguments = ["--task", "task.json", "--in", "in", "--out", "out", "--checkpoints", "c", "--progress", "p"]
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
        subprocess.run([trainer, "train", *arguments], cwd=folder, env=environment, check=True, capture_output=True)
        return json.loads((folder / "out/metrics.json").read_text())["stepsPerSecond"]


def rows():
    with gzip.open(DATA, "rt") as file:
        table = list(csv.DictReader(file))
    pixels = [name for name in table[0] if name != "label"]
    x = torch.tensor([[float(row[name]) for name in pixels] for row in table])
    y = torch.tensor([int(row["label"]) for row in table])
    deviation = x.std(0, correction=0)
    return (x - x.mean(0)) / torch.where(deviation > 1e-6, deviation, 1.0), y


def pytorch(recipe, fused):
    """The loop as its documentation writes it; the fused optimizer is one call for all parameters."""
    torch.manual_seed(recipe["seed"])
    torch.set_num_threads(1)
    x, y = rows()
    first, hidden, classes = recipe["model"]["mlp"]["layers"]
    model = torch.nn.Sequential(torch.nn.Linear(first, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, classes))
    settings = recipe["optimizer"]["adamw"]
    rate, decay = float(settings["learningRate"]), float(settings["weightDecay"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=fused)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    batch = recipe["batchSize"]
    started, step = time.perf_counter(), 0
    while step < STEPS:
        order = torch.randperm(len(x))
        for ids in order.split(batch)[: STEPS - step]:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[ids]), y[ids])
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    return STEPS / (time.perf_counter() - started)


def main():
    trainer, libraries, rounds, profile = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    recipe = json.loads((ROOT / "trainer-image/examples/train.json").read_text())["recipe"]
    recipe.update(steps=STEPS, checkpoint={})
    # Evaluation is no part of what is compared.
    recipe.pop("evaluate")
    runs = {"freehold-trainer": [], "PyTorch": [], "PyTorch, fused AdamW": []}
    for _ in range(rounds):
        runs["freehold-trainer"].append(freehold(trainer, libraries, recipe))
        runs["PyTorch"].append(pytorch(recipe, fused=False))
        runs["PyTorch, fused AdamW"].append(pytorch(recipe, fused=True))
    medians = {name: statistics.median(values) for name, values in runs.items()}
    print(f"{'digits MLP 64-32-10, batch 32, 1 thread':42} {'steps/s':>9} {'ratio':>7}")
    for name, value in medians.items():
        print(f"{name:42} {value:9.0f} {value / medians['PyTorch']:7.2f}")
    ours = medians["freehold-trainer"]
    ratios = [f"{ours / value:.2f} times {name.replace(', ', ' with ')}" for name, value in medians.items() if name != "freehold-trainer"]
    print(f"(freehold-trainer: {', '.join(ratios)}; built with cargo's profile {profile})")
    print(f"(torch {torch.__version__}, medians of {rounds} rounds of {STEPS} steps)")


main()
