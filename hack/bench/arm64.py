"""The exact benchmark's program for arm64, and what it needs to run here: PyTorch's arm64 wheel, QEMU's user emulation and
Debian's cross compiler. Whatever cannot be had is said in one sentence."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from common import ROOT
from exact_nets import CACHE, TARGET

TRIPLE = "aarch64-unknown-linux-gnu"
FOLDER = CACHE / "bench-arm64"
PROGRAM = TARGET / TRIPLE / "debug" / "exact-bench"
# Of the wheel: what a program without a GPU needs.
LIBRARIES = ("libtorch.so", "libtorch_cpu.so", "libc10.so", "libtorch_global_deps.so", "libgomp.so", "libarm_compute", "libnvpl", "libgfortran")
PACKAGES = {"qemu-aarch64-static": "qemu-user-static", "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu"}
# Kinds of core that QEMU shows: one with NEON alone, one with all that it knows.
CORES = ("cortex-a72", "max")


class Refused(Exception):
    """What could not be had, and by whom it was refused."""


def attempt(what, command, **options):
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, **options)
    if done.returncode != 0:
        end = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Refused(f"{what}: `{' '.join(map(str, command))}` failed: {end}")


def packages():
    missing = [package for command, package in PACKAGES.items() if shutil.which(command) is None]
    if missing:
        attempt("Debian's packages", ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing])


def versions():
    """The pins of hack/versions.sh."""
    script = f'source "{ROOT}/hack/versions.sh"; printf "%s\\n%s\\n%s" "$TORCH_VERSION" "$TORCH_PYTHON" "$CUDA_WHEELS"'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\n")


def libtorch():
    torch, python, cuda = versions()
    folder = FOLDER / f"libtorch-{torch}"
    if folder.exists():
        return folder
    wheels, fresh = FOLDER / "wheels", folder.with_suffix(".new")
    for path in (wheels, fresh):
        shutil.rmtree(path, ignore_errors=True)
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 25, 17)] + ["--platform=manylinux2014_aarch64"]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={python}", *platforms, f"--dest={wheels}"]
    attempt("PyTorch's arm64 wheel", [sys.executable, "-m", "pip", "download", *options, f"torch=={torch}", *cuda.split()])
    (fresh / "lib").mkdir(parents=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                path = pathlib.PurePosixPath(name)
                if path.parts[:2] == ("torch", "include"):
                    archive.extract(name, fresh)
                elif path.match("torch/lib/*") and path.name.startswith(LIBRARIES) or path.name.startswith(("libcudart.so", "libcupti.so")):
                    (fresh / "lib" / path.name).write_bytes(archive.read(name))
    (fresh / "torch" / "include").rename(fresh / "include")
    (fresh / "torch").rmdir()
    shutil.rmtree(wheels)
    fresh.rename(folder)
    return folder


def build(torch):
    attempt("Rust's standard library for arm64", ["rustup", "target", "add", TRIPLE], timeout=600)
    environment = {
        **os.environ, "LIBTORCH": str(torch), "CARGO_TARGET_DIR": str(TARGET), "LD_LIBRARY_PATH": "",
        f"CARGO_TARGET_{TRIPLE.upper().replace('-', '_')}_LINKER": "aarch64-linux-gnu-g++",
        f"CARGO_TARGET_{TRIPLE.upper().replace('-', '_')}_RUSTFLAGS": "-Clink-arg=-Wl,--allow-shlib-undefined",
    }  # fmt: skip
    command = ["cargo", "build", "--quiet", "--locked", "--target", TRIPLE, "-p", "freehold-trainer", "--bin", "exact-bench"]
    attempt("the program for arm64", command, cwd=ROOT, env=environment)


def ready():
    """Folder of the libraries."""
    packages()
    torch = libtorch()
    build(torch)
    return torch / "lib"


def emulated(core, libraries):
    """What is put before the program's path."""
    return ["qemu-aarch64-static", "-cpu", core, "-L", "/usr/aarch64-linux-gnu", "-E", f"LD_LIBRARY_PATH={libraries}", str(PROGRAM)]
