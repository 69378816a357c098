"""Nets and data of the exact benchmarks, the program that runs them (trainer-image/bench/exact), and how it is called."""

import csv
import gzip
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import sysconfig
import tempfile
import zipfile

import common
from common import ROOT

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "freehold"
FOLDER = CACHE / "bench-exact"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target"))
LIBTORCH = pathlib.Path(os.environ.get("LIBTORCH", CACHE / "libtorch"))
PROGRAM = TARGET / "release" / "exact-bench"
DIGITS = ROOT / "examples" / "data"
WHEEL = "scikit-learn==1.9.1"
CANCER = "sklearn/datasets/data/breast_cancer.csv"
# Fractional bits of a feature: 8.
ONE = 256
TEXT, HELD_OUT, WINDOW = 2_000_000, 16, 64 * 64 + 1


class Failed(common.lib.Failed):
    """One sentence that a run ends with."""


def build():
    """The program, as fast as cargo makes it."""
    if not (LIBTORCH / "lib").is_dir() and subprocess.run([ROOT / "hack" / "tools.sh", "libtorch"], check=False).returncode != 0:
        raise Failed("hack/tools.sh libtorch failed: without libtorch there is nothing to measure")
    command = ["cargo", "build", "--locked", "--release", "-p", "freehold-trainer", "--bin", "exact-bench"]
    environment = {**os.environ, "LIBTORCH": str(LIBTORCH), "LD_LIBRARY_PATH": f"{LIBTORCH}/lib", "CARGO_TARGET_DIR": str(TARGET)}
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
        raise Failed(f"`{' '.join(command)}` failed: without the program there is nothing to measure")


def call(*arguments, environment=(), program=(PROGRAM,), libraries=None):
    """What the program prints, as an object."""
    libraries = {"LD_LIBRARY_PATH": f"{LIBTORCH}/lib"} if libraries is None else libraries
    command = [*program, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **libraries, **dict(environment)}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        end = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise Failed(f"{' '.join(map(str, command))}: {end[0]}")
    return json.loads(done.stdout)


def written(name, value):
    """A JSON file of the folder, whole or not at all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(value))
    fresh.replace(path)
    return path


# --- data


def split(rows, labels):
    """Every fifth row is held out."""
    def part(wanted):
        chosen = [i for i in range(len(rows)) if (i % 5 == 4) == wanted]
        return [value for i in chosen for value in rows[i]], [labels[i] for i in chosen]

    (train, train_labels), (held_out, held_out_labels) = part(False), part(True)
    return {"rows": train, "labels": train_labels, "heldOut": held_out, "heldOutLabels": held_out_labels}


def digits():
    """The project's: pixels from 0 to 16 become 0 to 1."""
    def read(name):
        with gzip.open(DIGITS / name, "rt") as file:
            return list(csv.reader(file))[1:]

    train, test = read("digits-train.csv.gz"), read("digits-test.csv.gz")
    with open(DIGITS / "digits-test-labels.csv") as file:
        labels = [int(row[1]) for row in list(csv.reader(file))[1:]]
    pixels = lambda rows: [int(value) * ONE // 16 for row in rows for value in row[:64]]  # noqa: E731
    return {"rows": pixels(train), "labels": [int(row[64]) for row in train], "heldOut": pixels(test), "heldOutLabels": labels}


def cancer():
    """Breast cancer, out of the scikit-learn wheel; each feature less its mean, over its deviation."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        if subprocess.run(command, check=False).returncode != 0:
            raise Failed(f"`{' '.join(command)}` failed: the breast-cancer set is in that wheel")
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        lines = zipfile.ZipFile(wheel).read(CANCER).decode().split()[1:]
    table = [[float(value) for value in line.split(",")] for line in lines]
    labels = [int(row.pop()) for row in table]
    known = [row for i, row in enumerate(table) if i % 5 != 4]
    means = [sum(column) / len(known) for column in zip(*known)]
    spreads = [(sum((v - m) ** 2 for v in column) / len(known)) ** 0.5 for column, m in zip(zip(*known), means)]
    unit = lambda v, m, s: max(-7.9, min(7.9, (v - m) / s))  # noqa: E731
    return split([[round(unit(v, m, s) * ONE) for v, m, s in zip(row, means, spreads)] for row in table], labels)


def sources():
    """The standard library's of this Python: files in the order of their names' digests, every tenth held out, of which
    the middle of each of the first sixteen that are long enough is evaluated on."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    apart = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
    files = [path for path in library.rglob("*.py") if not apart & set(path.relative_to(library).parts)]
    files.sort(key=lambda path: hashlib.sha256(str(path.relative_to(library)).encode()).digest())
    train, held_out = b"", []
    for i, path in enumerate(files):
        text = path.read_bytes()
        if i % 10 != 9:
            train += text
        elif len(text) >= 2 * WINDOW and len(held_out) < HELD_OUT:
            held_out.append(text[len(text) // 2 - WINDOW // 2 :][:WINDOW])
    return {"rows": list(train[:TEXT]), "heldOut": list(b"".join(held_out))}


MAKERS = {"digits": digits, "cancer": cancer, "sources": sources}


def data(name):
    """The set's file, made once."""
    version = platform.python_version() if name == "sources" else "1"
    known = FOLDER / f"{name}-{version}.json"
    return known if known.exists() else written(f"{name}-{version}", MAKERS[name]())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- nets


def sgd(rate):
    return {"sgd": {"learningRate": rate, "momentum": "0.9"}}


def adamw(rate):
    return {"adamw": {"learningRate": rate, "beta1": "0.9", "beta2": "0.99", "weightDecay": "0.01"}}


def mlp(*layers):
    return {"mlp": {"layers": list(layers)}}


CNN = {"cnn": {"input": [1, 8, 8], "channels": [32, 64], "kernel": 3, "hidden": 64, "classes": 10}}


def transformer(width, layers, context=64, heads=None):
    return {"transformer": {"width": width, "heads": heads or max(1, width // 16), "layers": layers, "context": context}}


def setup(data_name, model, optimizer, steps, batch, fmt, seed=1, warmup=20, floor="0%", accumulation=1):
    """A file that the program reads."""
    recipe = {
        "model": model, "optimizer": optimizer, "schedule": {"cosine": {"warmup": warmup, "floor": floor}},
        "batchSize": batch, "gradientAccumulation": accumulation, "steps": steps, "seed": seed,
    }  # fmt: skip
    value = {"recipe": recipe, "format": fmt, "data": str(data(data_name))}
    name = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
    return written(f"setup-{name}", value)
