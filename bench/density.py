#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How much host memory idle machines take: starts N of them with the cloud kernel and the busybox initramfs, 128 MiB each,
waits until they have been idle for a while, and adds up what each really takes (its proportional share of shared pages).
Prints the mean, what two hundred would take, and how long the engine took to start."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import bench


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lodge", default=os.path.join(bench.TOP, "build/release/lodge"), help="the program")
    parser.add_argument("--machines", type=int, default=20)
    parser.add_argument("--memory", default="128M", help="of each machine")
    parser.add_argument("--settle", type=float, default=50, help="seconds to wait after the last one is up")
    return parser.parse_args()


def proportional_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    raise RuntimeError(f"no Pss in /proc/{pid}/smaps_rollup")


def main():
    options = arguments()
    made = subprocess.run([os.path.join(bench.TOP, "tools/make-guest"), "kernel", "initrd"], check=True, capture_output=True,
                          text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="lodge-density-") as folder:
        environment = {**os.environ, "XDG_RUNTIME_DIR": folder}

        def lodge(*words):
            return subprocess.run([options.lodge, *words], env=environment, check=True, capture_output=True, text=True).stdout

        names = [f"idle{n}" for n in range(options.machines)]
        started = []
        try:
            for name in names:
                lodge("run", "-d", "--name", name, "--kernel", f"{made}/vmlinuz", "--initrd", f"{made}/initrd.img", "--append",
                      "console=ttyS0 quiet", "--memory", options.memory, "--net", "none")
                started.append(name)
                print(f"\r{len(started)} machines", end="", file=sys.stderr, flush=True)
            time.sleep(options.settle)
            machines = json.loads(lodge("ps", "--json"))
            sizes = [proportional_kib(machine["pid"]) / 1024 for machine in machines]
            engine = [int(line.split()[1]) for name in started for line in lodge("stats", name).splitlines()
                      if line.startswith("engine.start_microseconds")]
        finally:
            for name in started:
                subprocess.run([options.lodge, "kill", name], env=environment, capture_output=True)
    print(file=sys.stderr)
    mean = sum(sizes) / len(sizes)
    print(f"machines of {options.memory}, idle: {len(sizes)}, {mean:.1f} MiB each (largest {max(sizes):.1f})")
    print(f"200 of them: {mean * 200 / 1024:.1f} GiB")
    print(f"start of the engine: median {sorted(engine)[len(engine) // 2] / 1000:.2f} ms")


if __name__ == "__main__":
    main()
