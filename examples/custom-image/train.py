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
import zlib

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


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text}: give at least 1")
    return int(text)


def open_dataset():
    """As text, unpacked if it is compressed with gzip."""
    path = ROOT / "in/dataset"
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        return (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig", newline="")
    except FileNotFoundError:
        fail(USAGE, f"the dataset is missing: there is no {path}; name it in the task's spec.dataset")


def number(cell, row, column):
    try:
        value = float(cell)
    except (TypeError, ValueError):
        fail(DATA, f"row {row}, column `{column}` is `{cell}`, not a number")
    if not math.isfinite(value):
        fail(DATA, f"row {row}, column `{column}` is {cell}, not a finite number")
    return value


def parse(file):
    rows, labels = [], []
    table = csv.DictReader(file)
    columns = [name for name in table.fieldnames or [] if name != "label"]
    if "label" not in (table.fieldnames or []):
        fail(DATA, "the data has no column `label`: rename the one with the classes")
    if not columns:
        fail(DATA, "the data has no column but `label`: add at least one with numbers")
    for count, row in enumerate(table, 1):
        if None in row:
            fail(DATA, f"row {count} has more fields than the header line")
        if not row["label"]:
            fail(DATA, f"row {count} has no label: fill it in, or remove the row")
        labels.append(row["label"])
        rows.append([number(row[column], count, column) for column in columns])
    if not rows:
        fail(DATA, "the data has no rows")
    return rows, labels


def read_rows():
    """The same bytes would fail again, so what is wrong with them must not look like a crash."""
    with open_dataset() as file:
        try:
            return parse(file)
        except UnicodeDecodeError:
            fail(DATA, "the data is not text in UTF-8: save it as CSV in UTF-8, or compress that with gzip")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            fail(DATA, f"the data cannot be read as gzip: {error}; compress it anew")
        except csv.Error as error:
            fail(DATA, f"the data cannot be read as CSV: {error}")


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
    parser.add_argument("--steps", type=positive, default=400)
    parser.add_argument("--batch", type=positive, default=32)
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
