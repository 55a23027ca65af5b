# SPDX-License-Identifier: Apache-2.0
"""Checks of any text: licence lines, length, paths in the docs, paths of this machine, scripts that parse."""

import pathlib
import re
import subprocess

from checks.files import TOP, is_script, read, tracked

LICENCE = "SPDX-License-Identifier: Apache-2.0"
SOURCE_SUFFIXES = (".cpp", ".h", ".c", ".S", ".inc", ".ld", ".py", ".sh", ".cmake", ".pl")
MAX_LINES = 600


def is_source(name):
    base = name.rsplit("/", 1)[-1]
    return name.endswith(SOURCE_SUFFIXES) or base in ("CMakeLists.txt", "Makefile") or is_script(name)


def sources():
    return [name for name in tracked() if is_source(name)]


def _needs_licence(name):
    return read(name).strip() != "" and LICENCE not in "\n".join(read(name).splitlines()[:3])


def check_licence():
    return [f"{name} has no licence line (tools/check --fix)" for name in sources() if _needs_licence(name)]


def fix_licence():
    for name in sources():
        if not _needs_licence(name):
            continue
        text = read(name)
        if name.endswith((".cpp", ".h", ".c", ".S", ".inc")):
            line = f"// {LICENCE}\n"
        elif name.endswith(".ld"):
            line = f"/* {LICENCE} */\n"
        else:
            line = f"# {LICENCE}\n"
        first = ""
        if text.startswith("#!"):
            first, _, text = text.partition("\n")
            first += "\n"
        (TOP / name).write_text(first + line + text)
    read.cache_clear()


def check_length():
    problems = []
    for name in sources():
        count = len(read(name).splitlines())
        if count > MAX_LINES:
            problems.append(f"{name} has {count} lines; {MAX_LINES} are the most")
    return problems


def check_doc_paths():
    """Every path that a document names exists. A path stands between backquotes or is a link's target."""
    roots = {name.split("/")[0] for name in tracked()}
    problems = []
    for document in [name for name in tracked() if name.endswith(".md")]:
        for number, line in enumerate(read(document).splitlines(), 1):
            names = re.findall(r"`([\w.*/+-]+)`", line) + re.findall(r"\]\((?!https?:|#)([^)#]+)", line)
            for name in names:
                if "/" not in name or name.split("/")[0] not in roots:
                    continue
                if not any(TOP.glob(name.rstrip("/"))):
                    problems.append(f"{document}:{number}: {name} does not exist")
    return problems


def check_machine_paths():
    """No file names the folder that this clone happens to stand in, or the user's home."""
    folders = {str(TOP.parent), str(pathlib.Path.home())}
    folders = [f for f in folders if f.count("/") >= 1 and f not in ("/", "/root", "/home", "/tmp", "/src", "/build")]
    return [f"{name} names {folder}" for name in tracked() for folder in folders
            if re.search(re.escape(folder) + r"(?![\w-])", read(name))]


def check_scripts():
    """Shell and Python scripts parse."""
    problems = []
    for name in sources():
        if name.endswith(".py") or (is_script(name) and "python" in read(name).splitlines()[0]):
            try:
                compile(read(name), name, "exec")
            except SyntaxError as error:
                problems.append(f"{name}:{error.lineno}: {error.msg}")
        elif name.endswith(".sh") or (is_script(name) and "bash" in read(name).splitlines()[0]):
            done = subprocess.run(["bash", "-n", name], cwd=TOP, capture_output=True, text=True)
            problems += done.stderr.splitlines()
    return problems
