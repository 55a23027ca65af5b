# SPDX-License-Identifier: Apache-2.0
"""Checks that need a compiler: headers alone, clang-tidy, what guest-register objects refer to.

Results that passed are remembered by the hash of everything they depend on, in the cache folder, so that only what changed
is checked again."""

import concurrent.futures
import functools
import hashlib
import os
import pathlib
import re
import subprocess

from checks.files import TOP, jobs, read, with_suffix

CACHE = pathlib.Path(os.environ.get("LODGE_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lodge") / "checks"
CLANG = "clang++-14"
FLAGS = ["-std=c++2b", "-DFMT_SHARED", "-Isrc", "-I.", "-Wall", "-Wextra", "-fconstexpr-steps=100000000"]
FLAGS += subprocess.run(["pkg-config", "--cflags", "slirp"], capture_output=True, text=True).stdout.split()
DEFINES = ['-DLODGE_VERSION="0"']  # what the build defines for single folders
GUEST_REGISTER_LIBRARIES = ("x86", "interpret", "translate")
ALLOWED_SYMBOLS = "tools/guest_register_symbols.txt"


@functools.cache
def _includes(name):
    return re.findall(r'^#include "([^"]+)"', read(name), re.MULTILINE)


def _first_include(header):
    """What the .cpp beside the header includes first."""
    source = f"{header.removesuffix('.h')}.cpp"
    found = re.search(r'^#include [<"]([^">]+)[">]', read(source), re.MULTILINE) if (TOP / source).is_file() else None
    return found.group(1) if found else ""


@functools.cache
def _closure(name):
    """The file and every project file that it includes, directly or not."""
    seen, todo = set(), [name]
    while todo:
        one = todo.pop()
        if one in seen or not (TOP / one).is_file():
            continue
        seen.add(one)
        folder = one.rsplit("/", 1)[0]
        todo += [f"src/{path}" for path in _includes(one)] + [f"{folder}/{path}" for path in _includes(one)]
    return sorted(seen)


def _key(kind, name, *more):
    digest = hashlib.sha256("\0".join([kind, name, *FLAGS, *more]).encode())
    for one in _closure(name):
        digest.update(read(one).encode())
    return digest.hexdigest()


def _run_cached(kind, names, command, *more):
    """Runs command(name) for each file that has not passed in this form before; returns the complaints."""
    CACHE.mkdir(parents=True, exist_ok=True)

    def one(name):
        stamp = CACHE / _key(kind, name, *more)
        if stamp.exists():
            return []
        done = subprocess.run(command(name), cwd=TOP, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode == 0:
            stamp.touch()
            return []
        lines = [line for line in (done.stdout + done.stderr).splitlines() if re.search(r"(error|warning): ", line)]
        return lines[:5] or [f"{name}: {command(name)[0]} failed"]

    with concurrent.futures.ThreadPoolExecutor(jobs()) as pool:
        return [line for lines in pool.map(one, names) for line in lines]


def check_headers():
    """Each header compiles alone. One that its own .cpp includes first is proven by the build."""
    names = [name for name in with_suffix(".h") if name.startswith("src/") and f"src/{_first_include(name)}" != name]
    return _run_cached("header", names, lambda name: [CLANG, *FLAGS, "-Wno-pragma-once-outside-header",
                                                      "-Wno-unused-const-variable", "-fsyntax-only", "-x", "c++", name])


def check_tidy():
    """clang-tidy with .clang-tidy's checks over what goes into the program."""
    names = [name for name in with_suffix(".cpp")
             if name.startswith("src/") and not re.search(r"_(test|fuzz)\.cpp$", name)]
    return _run_cached("tidy", names, lambda name: ["clang-tidy-14", "--quiet", "--warnings-as-errors=*", name, "--", *FLAGS,
                                                    *DEFINES],
                       read(".clang-tidy"))


def _nm(libraries, *options):
    """(object, symbol) pairs; an object is named LIBRARY/FILE.o."""
    found, current = set(), ""
    for library in libraries:
        name = library.stem.removeprefix("liblodge_")
        out = subprocess.run(["nm", "-f", "posix", *options, library], check=True, capture_output=True, text=True).stdout
        for line in out.splitlines():
            member = re.fullmatch(r".*\[(.+)\]:", line)
            if member:
                current = f"{name}/{member.group(1)}"
            elif line:
                found.add((current if library.suffix == ".a" else library.name, line.split()[0]))
    return found


def _allowed():
    """(symbols, objects) of the list."""
    lines = {line.split("#")[0].strip() for line in read(ALLOWED_SYMBOLS).splitlines()} - {""}
    objects = {line.split()[1] for line in lines if line.startswith("object ")}
    return {line for line in lines if not line.startswith("object ")}, objects


def _single_objects(build):
    """What lodge_guest_register_sources() in the folders' CMakeLists.txt names."""
    return [path for listing in (TOP / "src").glob("*/CMakeLists.txt")
            for sources in re.findall(r"^lodge_guest_register_sources\(([^)]*)\)", listing.read_text(), re.MULTILINE)
            for source in sources.split() for path in build.glob(f"src/{listing.parent.name}/CMakeFiles/*.dir/{source}.o")]


def check_guest_registers():
    """Code that runs while the guest's vector registers are live calls nothing that may use them: no symbol from outside of
    such folders but those of the list, each there for a reason."""
    build = TOP / os.environ.get("LODGE_BUILD", "build/release")
    libraries = [path for name in GUEST_REGISTER_LIBRARIES for path in build.glob(f"src/**/liblodge_{name}.a")]
    if not libraries:
        return ["nothing built to check: run `make build`"]
    symbols, objects = _allowed()
    singles = _single_objects(build)
    defined = {symbol for _, symbol in _nm(libraries + singles, "--defined-only")}
    used = sorted((one, symbol) for one, symbol in _nm(libraries + singles, "--undefined-only")
                  if one not in objects and symbol not in defined)
    names = subprocess.run(["c++filt"], input="\n".join(symbol for _, symbol in used), check=True, capture_output=True,
                           text=True).stdout.splitlines()
    return [f"{one}: {name} is called with guest registers live; see {ALLOWED_SYMBOLS}" for (one, _), name in zip(used, names)
            if name not in symbols and not any(rule.endswith("*") and name.startswith(rule[:-1]) for rule in symbols)]
