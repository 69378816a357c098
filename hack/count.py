#!/usr/bin/env python3
"""Reads a test log and prints `passed failed`, summed over the closing lines of cargo, forge, go and unittest."""

import pathlib
import re
import sys

text = re.sub(r"\x1b\[[0-9;]*m", "", pathlib.Path(sys.argv[1]).read_text(errors="replace"))
passed = failed = 0
for match in re.finditer(r"^test result: \w+\. (\d+) passed; (\d+) failed", text, re.M):
    passed, failed = passed + int(match[1]), failed + int(match[2])
# forge, a line a contract.
for match in re.finditer(r"^Suite result: \w+\. (\d+) passed; (\d+) failed", text, re.M):
    passed, failed = passed + int(match[1]), failed + int(match[2])
passed += len(re.findall(r"^\s*--- PASS:", text, re.M))
failed += len(re.findall(r"^\s*--- FAIL:", text, re.M))
for match in re.finditer(r"^Ran (\d+) tests? in [\d.]+s$", text, re.M):
    rest = text[match.end():match.end() + 200]
    bad = sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d+)", rest.split("\n\n", 2)[1] if "\n\n" in rest else rest))
    passed, failed = passed + int(match[1]) - bad, failed + bad
print(passed, failed)
