#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How much host memory idle machines take: starts N of them with the cloud kernel and the busybox initramfs, 128 MiB each,
with and without --share-pages, waits until they have been idle for a while, and adds up what each really takes (its
proportional share of pages that several have) and what the store of shared pages does. Prints the mean by kind, what two
hundred take, how much of the host's memory went, the processor time that they use while idle, and how long they and the
engine took to start. Ends by itself when the host has little memory left."""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import bench

IDLE_SECONDS = 10
LEAST_AVAILABLE_MIB = 1536
KINDS = {"memfd:lodge-guest-ram": "guest RAM", "memfd:lodge-": "translator", "/.pages": "shared pages", ".so": "program",
         "/lodge": "program"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lodge", default=os.path.join(bench.TOP, "build/release/lodge"), help="the program")
    parser.add_argument("--machines", type=int, default=20)
    parser.add_argument("--memory", default="128M", help="of each machine")
    parser.add_argument("--settle", type=float, default=60, help="seconds to wait after the last one is up")
    parser.add_argument("--options", action="append", help="further options of lodge run; each is a run of its own "
                        "('' and '--share-pages' if not given)")
    return parser.parse_args()


def available_mib():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:")) / 1024


def proportional_mib(pid):
    """By kind: {"guest RAM": MiB...}."""
    sizes, kind = collections.Counter(), None
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            if head := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$", line):
                kind = next((name for key, name in KINDS.items() if key in head[1]), "heap")
            elif line.startswith("Pss:"):
                sizes[kind] += int(line.split()[1]) / 1024
    return sizes


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Crowd:
    """Machines in a runtime folder of their own."""

    def __init__(self, lodge, memory, folder, options):
        self.lodge, self.memory, self.folder, self.options = lodge, memory, folder, options
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": folder}
        self.before = available_mib()

    def run(self, *words, check=True):
        return subprocess.run([self.lodge, *words], env=self.environment, check=check, capture_output=True, text=True).stdout

    def names(self):
        return [machine["name"] for machine in json.loads(self.run("ps", "--json"))]

    def start(self, guest, count):
        """Starts up to `count` machines more; returns how many there are then."""
        first = len(self.names())
        for number in range(first, first + count):
            if available_mib() < LEAST_AVAILABLE_MIB:
                print(f"\nno more: the host has less than {LEAST_AVAILABLE_MIB} MiB left", file=sys.stderr)
                return number
            self.run("run", "-d", "--name", f"idle{number}", "--kernel", f"{guest}/vmlinuz", "--initrd", f"{guest}/initrd.img",
                     "--append", "console=ttyS0 quiet", "--memory", self.memory, "--net", "none", *self.options)
            print(f"\r{number + 1} machines", end="", file=sys.stderr, flush=True)
        return first + count

    def stored_mib(self):
        try:
            return os.stat(os.path.join(self.folder, "lodge", ".pages")).st_blocks / 2048
        except FileNotFoundError:
            return 0

    def report(self, seconds):
        pids = [machine["pid"] for machine in json.loads(self.run("ps", "--json"))]
        used = sum(map(processor_seconds, pids))
        time.sleep(IDLE_SECONDS)
        used = sum(map(processor_seconds, pids)) - used
        kinds = collections.Counter()
        for pid in pids:
            kinds.update(proportional_mib(pid))
        engine = sorted(int(line.split()[1]) for name in self.names() for line in self.run("stats", name).splitlines()
                        if line.startswith("engine.start_microseconds"))
        count, stored = len(pids), self.stored_mib()
        # Of the store, what is mapped is in the machines' shares.
        total = sum(kinds.values()) + max(stored - kinds["shared pages"], 0)
        print(f"machines of {self.memory}, idle, {' '.join(self.options) or 'without options'}: {count}, {total / count:.1f} MiB each")
        print("  of each " + ", ".join(f"{name} {size / count:.1f}" for name, size in kinds.most_common()) +
              f"; the store of shared pages {stored:.0f} MiB for all")
        print(f"  200 of them: {(total - stored) * 200 / count / 1024 + stored / 1024:.1f} GiB; the host has "
              f"{(self.before - available_mib()) / 1024:.1f} GiB less with {count}")
        print(f"  idle: {used / IDLE_SECONDS * 100:.1f} % of a processor for all; started in {seconds:.1f} s; start of the engine: "
              f"median {engine[len(engine) // 2] / 1000:.2f} ms", flush=True)

    def end(self):
        for name in self.names():
            self.run("kill", name, check=False)


def main():
    options = arguments()
    guest = subprocess.run([os.path.join(bench.TOP, "tools/make-guest"), "kernel", "initrd"], check=True, capture_output=True,
                           text=True).stdout.strip()
    for words in options.options or ["", "--share-pages"]:
        with tempfile.TemporaryDirectory(prefix="lodge-density-", dir="/dev/shm") as folder:
            crowd = Crowd(options.lodge, options.memory, folder, words.split())
            try:
                began = time.monotonic()
                crowd.start(guest, options.machines)
                seconds = time.monotonic() - began
                time.sleep(options.settle)
                print(file=sys.stderr)
                crowd.report(seconds)
            finally:
                crowd.end()


if __name__ == "__main__":
    main()
