#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disk images: Lodge against qemu-img on the same files, both warmed, in one run.

image_bench.py [--folder DIR] [--size MIB] [--rounds N] [--only PAIRS] [--lodge PROGRAM]
Prints, for each pair of formats, the median time of each tool (qemu-img with its default options and with -W -m 16), and ratios
above 1 where Lodge is faster. Ratios of CPU time are printed, too: on a busy machine they are the steadier figures.
"""

import argparse
import mmap
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
BEST = ["-W", "-m", "16"]
FORMATS = ["raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx"]
PAIRS = [(source, target, []) for source in FORMATS for target in FORMATS]
PAIRS += [("raw", "qcow2", ["-c"]), ("raw", "qcow2", ["-c", "-o", "compression_type=zstd"]),
          ("raw", "vmdk", ["-o", "subformat=streamOptimized"])]


def make_disk(path, mib):
    """60 % data, half of that compressible; 40 % holes."""
    rng = random.Random(1)
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
        for i in range(mib):
            file.seek(i * MIB)
            if i % 10 < 3:
                file.write(rng.randbytes(MIB))
            elif i % 10 < 6:
                lines, size = [], 0
                while size < MIB:
                    line = b"line %d %s value=%d\n" % (i, bytes(rng.choices(b"abcdefghijklmnop", k=24)), size) * 3
                    lines.append(line)
                    size += len(line)
                file.write(b"".join(lines)[:MIB])


def warm_memory(size):
    """Touches and frees as much memory as a run takes. Under a hypervisor that takes free memory back (a balloon with free
    page reporting) the first touch of a page takes far longer than all that is measured."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    memory[::4096] = bytes(len(range(0, size, 4096)))
    memory.close()


def run(words):
    """Wall and CPU seconds, or None if it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    if subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        return None
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(commands, target, rounds, size):
    """For each command the medians of wall and CPU seconds, or None if it fails. They run in turns, so that what else the
    machine does falls on all of them, and each round begins with another, as what one frees is what the next one gets.
    `size`: bytes that one of them may write."""
    results = [[] for _ in commands]
    for turn in range(rounds):
        for number in range(len(commands)):
            number = (number + turn) % len(commands)
            if os.path.exists(target):
                os.unlink(target)
            warm_memory(size)
            results[number].append(run(commands[number]))
    return [None if None in r else tuple(statistics.median(column) for column in zip(*r)) for r in results]


def ratio(theirs, ours):
    return "%6.2f" % (theirs / ours) if theirs and ours else "     -"


def conversions(folder, lodge, rounds, only):
    print("%-44s %8s %8s %8s  ratios of time: default, best; of CPU time: default, best" % ("", "lodge s", "default", "best"))
    disk = os.path.join(folder, "disk.raw")
    for source, target, options in PAIRS:
        if only and "%s-%s" % (source, target) not in only.split(","):
            continue
        path, out = os.path.join(folder, "disk." + source), os.path.join(folder, "out")
        if not os.path.exists(path):
            subprocess.run(["qemu-img", "convert", "-O", source, disk, path], check=True)
        tail = ["-f", source, "-O", target, *options, path, out]
        fast = [] if "streamOptimized" in " ".join(options) else BEST
        ours, theirs, theirs_best = medians([[lodge, "image", "convert", *tail], ["qemu-img", "convert", *tail],
                                          ["qemu-img", "convert", *fast, *tail]], out, rounds, 3 * os.path.getsize(disk) // 2)
        name = "%s to %s %s" % (source, target, " ".join(options))
        if not ours or not theirs or not theirs_best:
            print("%-44s failed" % name)
            continue
        print("%-44s %8.2f %8.2f %8.2f  %s %s  %s %s" % (
            name, ours[0], theirs[0], theirs_best[0], ratio(theirs[0], ours[0]), ratio(theirs_best[0], ours[0]),
            ratio(theirs[1], ours[1]), ratio(theirs_best[1], ours[1])), flush=True)


def random_access(folder, lodge, count, rounds):
    """4 KiB at a queue depth of 32, on a qcow2 image with content."""
    path = os.path.join(folder, "disk.qcow2")
    if not os.path.exists(path):
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", os.path.join(folder, "disk.raw"), path], check=True)
    for word, flag in ("reads", []), ("writes", ["-w"]):
        load = ["bench", "-f", "qcow2", "-c", str(count), "-d", "32", "-s", "4096", "-S", "1048577536", *flag, path]
        theirs, ours = medians([["qemu-img", *load], [lodge, "image", *load]], os.path.join(folder, "none"), rounds, 64 * MIB)
        if not theirs or not ours:
            print("random %s: failed" % word)
            continue
        print("random 4 KiB %-6s  lodge %8.0f/s  qemu-img bench %8.0f/s  ratio %s  CPU time %s" % (
            word, count / ours[0], count / theirs[0], ratio(theirs[0], ours[0]), ratio(theirs[1], ours[1])))


def main():
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--size", type=int, default=2048, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="pairs, as raw-qcow2,qcow2-raw; with random: the accesses, too")
    parser.add_argument("--count", type=int, default=200000, help="random accesses")
    parser.add_argument("--lodge", default=os.path.join(here, "build/release/lodge"))
    options = parser.parse_args()
    if not shutil.which("qemu-img"):
        sys.exit("qemu-img is not installed")
    folder = tempfile.mkdtemp(prefix="lodge-bench-", dir=options.folder)
    try:
        make_disk(os.path.join(folder, "disk.raw"), options.size)
        print("load %.1f on %d CPUs" % (os.getloadavg()[0], os.cpu_count()))
        conversions(folder, options.lodge, options.rounds, options.only)
        if not options.only or "random" in options.only.split(","):
            random_access(folder, options.lodge, options.count, options.rounds)
    finally:
        shutil.rmtree(folder)


main()
