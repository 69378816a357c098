"""Softmax regression in plain Python: the container contract in one file.

Reads   task.json              the manifest
        in/dataset             CSV or CSV.gz with a column `label`
        checkpoints/           resumes from the newest one that is whole
Writes  checkpoints/step-N.json
        progress.jsonl         one JSON object a line
        out/model.json, out/metrics.json
Exits   0 done, 64 bad usage, 65 bad data, 75 interrupted: run it again
All of it is below /freehold, or the folder in FREEHOLD_ROOT.
"""

import argparse
import csv
import datetime
import gzip
import json
import math
import os
import pathlib
import random
import signal
import sys

ROOT = pathlib.Path(os.environ.get("FREEHOLD_ROOT", "/freehold"))
USAGE, DATA, AGAIN = 64, 65, 75
interrupted = False


def fail(code, sentence):
    print(f"train.py: {sentence}", file=sys.stderr)
    sys.exit(code)


def on_sigterm(_signal, _frame):
    global interrupted
    interrupted = True


class Arguments(argparse.ArgumentParser):
    def error(self, message):
        fail(USAGE, message)


def read_rows():
    path = ROOT / "in/dataset"
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    rows, labels = [], []
    with (gzip.open if packed else open)(path, "rt", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            if "label" not in row:
                fail(DATA, "the data has no column `label`")
            labels.append(row.pop("label"))
            for column, cell in row.items():
                try:
                    row[column] = float(cell)
                except (TypeError, ValueError):
                    fail(DATA, f"row {number}, column `{column}` is `{cell}`, not a number")
                if not math.isfinite(row[column]):
                    fail(DATA, f"row {number}, column `{column}` is {cell}, not a finite number")
            rows.append(list(row.values()))
    if not rows:
        fail(DATA, "the data has no rows")
    return rows, labels


def write_whole(path, value):
    """Under its name a file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    growing = path.with_name(f".{path.name}.tmp")
    with open(growing, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    growing.rename(path)


def newest_checkpoint(shape):
    """A file that was cut short is passed over, and the one before it taken."""
    found = {}
    for path in (ROOT / "checkpoints").glob("*"):
        try:
            state = json.loads(path.read_text())
            if [len(state["weights"]), len(state["weights"][0])] == shape:
                found[state["step"]] = state
        except (ValueError, KeyError, TypeError, IndexError, OSError):
            print(f"train.py: skipped checkpoint {path.name}: it is not whole", file=sys.stderr)
    return found[max(found)] if found else None


def report(step, steps, loss):
    at = datetime.datetime.now(datetime.timezone.utc).isoformat()
    with open(ROOT / "progress.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "steps": steps, "loss": loss, "metrics": {}, "at": at}) + "\n")


def probabilities(weights, row):
    scores = [sum(w * x for w, x in zip(line, row)) for line in weights]
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def update(weights, rows, classes, batch, rate):
    """One step of gradient descent; returns the batch's mean loss."""
    loss, gradient = 0.0, [[0.0] * len(weights[0]) for _ in weights]
    for index in batch:
        guess = probabilities(weights, rows[index])
        loss -= math.log(max(guess[classes[index]], 1e-300))
        guess[classes[index]] -= 1.0
        for line, share in zip(gradient, guess):
            for column, value in enumerate(rows[index]):
                if value:
                    line[column] += share * value
    for line, slope in zip(weights, gradient):
        for column, value in enumerate(slope):
            line[column] -= rate * value / len(batch)
    return loss / len(batch)


def main():
    parser = Arguments(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.5)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, on_sigterm)

    rows, labels = read_rows()
    highest = max(1e-9, max(abs(value) for row in rows for value in row))
    # The column of ones is the bias.
    rows = [[value / highest for value in row] + [1.0] for row in rows]
    names = sorted(set(labels))
    classes = [names.index(label) for label in labels]
    shape = [len(names), len(rows[0])]

    state = newest_checkpoint(shape) or {"step": 0, "weights": [[0.0] * shape[1] for _ in range(shape[0])]}
    if state["step"]:
        print(f"train.py: resumed from the checkpoint at step {state['step']}", file=sys.stderr)
    loss = None
    while state["step"] < options.steps:
        # The batch depends on the step alone, so a resumed run goes on as if nothing had happened.
        batch = random.Random(state["step"]).sample(range(len(rows)), min(options.batch, len(rows)))
        loss = update(state["weights"], rows, classes, batch, options.rate)
        state["step"] += 1
        if interrupted or state["step"] % 100 == 0:
            write_whole(ROOT / f"checkpoints/step-{state['step']:06}.json", state)
        if interrupted or state["step"] % 10 == 0:
            report(state["step"], options.steps, loss)
        if interrupted:
            fail(AGAIN, f"stopped by SIGTERM; the checkpoint at step {state['step']} is written")

    right = 0
    for row, label in zip(rows, classes):
        guess = probabilities(state["weights"], row)
        right += guess.index(max(guess)) == label
    write_whole(ROOT / "out/model.json", {"classes": names, "scale": highest, "weights": state["weights"]})
    write_whole(ROOT / "out/metrics.json", {"step": state["step"], "metrics": {"trainingAccuracy": right / len(rows)}})


if __name__ == "__main__":
    main()
