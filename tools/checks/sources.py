# SPDX-License-Identifier: Apache-2.0
"""Checks of C++ source text: format, include arrows."""

import re
import subprocess

from checks.files import TOP, jobs, read, with_suffix


def cxx_files():
    """Not the test kernels' headers, which the assembler reads."""
    return [name for name in with_suffix(".cpp", ".h") if not name.startswith("tests/kernels/")]


def _clang_format(*options):
    """Runs clang-format over all files, a share for each processor; returns its complaints."""
    names = cxx_files()
    count = jobs()
    shares = [names[index::count] for index in range(count) if names[index::count]]
    running = [subprocess.Popen(["clang-format-14", *options, *share], cwd=TOP, stderr=subprocess.PIPE, text=True)
               for share in shares]
    return "".join(process.communicate()[1] for process in running)


def check_format():
    complaints = _clang_format("--dry-run", "-Werror")
    lines = re.findall(r"^([^\s:]+:\d+):\d+: error", complaints, re.MULTILINE)
    first = {}
    for line in lines:
        first.setdefault(line.split(":")[0], line)
    return [f"{line} is not formatted (tools/check --fix)" for line in first.values()]


def fix_format():
    _clang_format("-i")


def arrow_rules():
    """Folder -> folders it may include, from the table in docs/architecture.md."""
    rules = {}
    for row in re.findall(r"^\| `src/([a-z0-9_/]+)` \|.*\|([^|]*)\|$", read("docs/architecture.md"), re.MULTILINE):
        rules[row[0]] = set(re.findall(r"`([^`]+)`", row[1])) | {row[0]}
    return rules


def check_arrows():
    rules = arrow_rules()
    problems = []
    if not rules:
        return ["docs/architecture.md has no table of folders"]
    for name in cxx_files():
        if not name.startswith("src/") or re.search(r"_(test|fuzz|test_main)\.(cpp|h)$|/test_|_test_", name):
            continue
        folder = name[len("src/"):].rsplit("/", 1)[0]
        while folder not in rules and "/" in folder:
            folder = folder.rsplit("/", 1)[0]
        if folder not in rules:
            problems.append(f"{name}: src/{folder} is not in docs/architecture.md's table")
            continue
        for number, line in enumerate(read(name).splitlines(), 1):
            match = re.match(r'#include "(.+)/[^/]+"', line)
            if not match:
                if line.startswith('#include "') and not line.startswith('#include "/'):
                    problems.append(f"{name}:{number}: include paths are relative to src/")
                continue
            if not any(match.group(1) == allowed or match.group(1).startswith(allowed + "/")
                       and match.group(1) not in rules for allowed in rules[folder]):
                problems.append(f"{name}:{number}: src/{folder} must not include {match.group(1)}")
    return problems
