"""Each test contract has a .tree beside it, and both name the same tests: a branch without a test, or a test that no
branch explains, fails. Usage: python3 test/check-trees.py (in contracts/)."""

import pathlib
import re
import sys

failures = []
folder = pathlib.Path(__file__).parent
for source in sorted(folder.glob("*/*.t.sol")):
    tree = source.with_name(source.name.removesuffix(".t.sol") + ".tree")
    if not tree.exists():
        failures.append(f"{source.name}: no {tree.name} beside it")
        continue
    wanted = re.findall(r"\(((?:test|invariant|check)\w*)\)$", tree.read_text(), re.MULTILINE)
    written = re.findall(r"function ((?:test|invariant|check)\w+)\(", source.read_text())
    failures += [f"{tree.name}: {name} is listed twice" for name in {n for n in wanted if wanted.count(n) > 1}]
    failures += [f"{tree.name}: {name} is not in {source.name}" for name in wanted if name not in written]
    failures += [f"{source.name}: {name} is not in {tree.name}" for name in written if name not in wanted]
print("\n".join(failures), end="\n" if failures else "")
sys.exit(bool(failures))
