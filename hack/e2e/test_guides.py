"""The guides do what they say: every ```sh block of docs/guides runs, in order, after the demo.

A block is a script of its own (`bash -euo pipefail`, in the clone's root); what it assigns is there for the
blocks after it, as in a reader's terminal. Blocks fenced as ```console show, and are not run.
"""

import pathlib
import re
import subprocess
import tempfile
import unittest

from lib import ENV, ROOT

GUIDES = ROOT / "docs" / "guides"
LIMIT = 420  # seconds a block: one that waits for a task may meet others that wait too

# One line, so that the block's first line is the script's second. Assignments are kept as environment:
# `set -a` exports them, and the trap hands them on.
PROLOGUE = "set -a; trap 'echo \"$LINENO\" >\"$GUIDE_LINE\"' ERR; trap 'env -0 >\"$GUIDE_ENV\"' EXIT"


def blocks(path):
    """(line of the first command, script) of each ```sh block."""
    found, start, lines = [], None, []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if start is None and line.strip() == "```sh":
            start, lines = number + 1, []
        elif start is not None and line.strip() == "```":
            found.append((start, "\n".join(lines)))
            start = None
        elif start is not None:
            lines.append(line)
    if start is not None:
        raise ValueError(f"{path}: the block that begins in line {start - 1} has no end")
    return found


def run(script, env, folder):
    """(status, output, line that failed within the script or None, environment afterwards)"""
    kept, failed = folder / "env", folder / "line"
    failed.unlink(missing_ok=True)
    own = env | {"GUIDE_ENV": str(kept), "GUIDE_LINE": str(failed)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{PROLOGUE}\n{script}\n"],
        cwd=ROOT, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT, check=False,
    )
    after = dict(item.split("=", 1) for item in kept.read_text().split("\0") if "=" in item)
    line = int(failed.read_text()) - 1 if failed.exists() else None
    return done.returncode, done.stdout, line, after


class Guides(unittest.TestCase):
    def follow(self, name):
        path = GUIDES / f"{name}.md"
        env = dict(ENV)
        steps = blocks(path)
        self.assertTrue(steps, f"{path} has no command")
        with tempfile.TemporaryDirectory() as folder:
            for start, script in steps:
                status, output, line, env = run(script, env, pathlib.Path(folder))
                where = f"docs/guides/{name}.md:{start + (line or 1) - 1}"
                self.assertEqual(status, 0, f"{where} ended with {status}; the block's output:\n{output[-4000:]}")

    def test_tenant(self):
        self.follow("tenant")

    def test_provider(self):
        self.follow("provider")

    def test_auditor(self):
        self.follow("auditor")

    def test_custom_image(self):
        self.follow("custom-image")


class Links(unittest.TestCase):
    """Files that the guides and the layout name exist."""

    def test_relative_links(self):
        for path in [*GUIDES.glob("*.md"), ROOT / "docs" / "layout.md", ROOT / "README.md"]:
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
                if "://" not in target:
                    with self.subTest(page=path.name, target=target):
                        self.assertTrue((path.parent / target).exists())


class Runner(unittest.TestCase):
    """The runner above is itself worth a look: it must fail where a command fails, and say where."""

    def attempt(self, script, env=None):
        with tempfile.TemporaryDirectory() as folder:
            return run(script, env or dict(ENV), pathlib.Path(folder))

    def test_a_failing_line_is_named(self):
        status, output, line, _ = self.attempt("echo one\nfalse\necho three")
        self.assertEqual((status, output, line), (1, "one\n", 2))

    def test_a_failing_pipe_fails(self):
        self.assertNotEqual(self.attempt("false | cat")[0], 0)

    def test_variables_go_on(self):
        _, _, _, env = self.attempt("A='two words'")
        self.assertEqual(self.attempt('[ "$A" = "two words" ]', env)[0], 0)


if __name__ == "__main__":
    unittest.main()
