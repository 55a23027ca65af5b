#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From exec to a kernel's first line, through firmware and GRUB: Lodge's pc board and QEMU's TCG with the same disk, one
after the other in each round, and the median of the rounds. Stages: GRUB's first line, its last one before the kernel,
the kernel's first line. And with --idle: the share of a core that a machine at its login prompt with a screen takes."""

import argparse
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))

from kit import paths  # noqa: E402
from kit.boot_disk import make_boot_disk  # noqa: E402

STAGES = {"GRUB": b"grub: loading", "GRUB done": b"grub: starting", "kernel": b"Linux version"}
LIMIT = 300


def commands(disk, lodge):
    return {
        "lodge": [lodge, "run", "--name", f"bench{os.getpid()}", "--board", "pc", "--memory", "512M", "--snapshot",
                  "--net", "none", "--disk", disk],
        "qemu": ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "pc", "-m", "512", "-display", "none",
                 "-nodefaults", "-vga", "std", "-serial", "stdio", "-monitor", "none", "-snapshot",
                 "-drive", f"file={disk},format=raw,if=virtio"],
    }


def times(command):
    """Seconds from exec to each stage."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    text, found = b"", {}
    try:
        while len(found) < len(STAGES):
            left = started + LIMIT - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise SystemExit(f"{command[0]}: nothing more after\n{text[-2000:].decode(errors='replace')}")
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                raise SystemExit(f"{command[0]} ended after\n{text[-2000:].decode(errors='replace')}")
            text += part
            for stage, mark in STAGES.items():
                if stage not in found and mark in text:
                    found[stage] = time.monotonic() - started
        return found
    finally:
        process.kill()
        process.wait()


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(command, seconds):
    """The share of a core over `seconds` at the shell's prompt, after it has settled."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        text = b""
        while b"lodge-guest: ready" not in text:
            text += os.read(process.stdout.fileno(), 65536)
        time.sleep(15)
        before = processor_seconds(process.pid)
        time.sleep(seconds)
        return (processor_seconds(process.pid) - before) / seconds
    finally:
        process.kill()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lodge", default=str(paths.LODGE))
    parser.add_argument("--idle", type=int, metavar="SECONDS", help="measure an idle machine this long instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lodge-bench-") as folder:
        disk = os.path.join(folder, "disk.img")
        make_boot_disk(pathlib.Path(disk), kernel_arguments="console=ttyS0 earlyprintk=ttyS0,115200")
        both = commands(disk, options.lodge)
        if options.idle:
            for name, command in both.items():
                print(f"{name}: {100 * idle(command, options.idle):.2f} % of a core at the prompt")
            return
        rounds = {name: [] for name in both}
        for _ in range(options.rounds):
            for name, command in both.items():
                rounds[name].append(times(command))
        print(f"{'seconds to':12}" + "".join(f"{name:>10}" for name in both) + f"{'ratio':>10}")
        for stage in STAGES:
            median = {name: statistics.median(r[stage] for r in rounds[name]) for name in both}
            print(f"{stage:12}" + "".join(f"{median[name]:10.2f}" for name in both) + f"{median['lodge'] / median['qemu']:10.2f}")


main()
