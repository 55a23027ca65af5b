# SPDX-License-Identifier: Apache-2.0
"""The files under check: what git tracks or would track."""

import functools
import os
import pathlib
import subprocess

TOP = pathlib.Path(__file__).resolve().parent.parent.parent


@functools.cache
def tracked():
    """Paths relative to the top, as text."""
    out = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=TOP, check=True,
                         capture_output=True).stdout.decode()
    return [name for name in sorted(out.split("\0")) if name and (TOP / name).is_file()]


def with_suffix(*suffixes):
    return [name for name in tracked() if name.endswith(suffixes)]


@functools.cache
def read(name):
    return (TOP / name).read_text(errors="replace")


def is_script(name):
    return os.access(TOP / name, os.X_OK) and read(name).startswith("#!")


def jobs():
    return int(os.environ.get("JOBS") or os.cpu_count() or 1)
