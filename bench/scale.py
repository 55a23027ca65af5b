#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a second vCPU brings: sysbench in a Debian guest with one vCPU and one thread, and with two and two, under Lodge and under
QEMU's multi-threaded TCG; natively with one and two processors for what the host itself gives in the same run. "cpu" is
independent work; "locks" (threads that yield to each other under few mutexes) and "mutex" are what locks and futexes cost.
Numbers are events a second (mutex: runs a second). Needs root (chroot)."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

import bench
import programs

WORK = r"""
for threads in @THREADS@; do
  score() { awk -v row="$1" -v t=$threads -v key="$2" '$0 ~ key { sub(/.*: */, ""); sub(/s.*/, ""); print "ROW " row "-" t, $0 + 0 }'; }
  sysbench cpu --time=4 --threads=$threads run | score cpu "events per second"
  sysbench threads --time=4 --thread-yields=200 --thread-locks=4 --threads=$((4 * threads)) run | score locks "total number of events"
  sysbench mutex --mutex-num=16 --mutex-locks=20000 --mutex-loops=500 --threads=$((4 * threads)) run | score mutex "total time"
done
echo LODGE-BENCH-DONE
"""


def rows_of(lines):
    rows = {}
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[0] == b"ROW":
            value = float(words[2])
            rows[words[1].decode()] = 1 / value if words[1].startswith(b"mutex") and value > 0 else value
    return rows


def native(tree, threads):
    script = ('mount -t proc proc "$1/proc"; exec taskset -c "$2" chroot "$1" bash -c "$3"')
    processors = "0" if threads == 1 else "0,1"
    out = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", tree, processors, WORK.replace("@THREADS@", str(threads))],
                         check=True, capture_output=True).stdout
    return rows_of(out.splitlines())


def guest(engine, options, material, folder, threads):
    programs_folder = os.path.join(folder, f"go-{threads}")
    os.makedirs(programs_folder, exist_ok=True)
    with open(os.path.join(programs_folder, "go"), "w") as file:
        file.write("#!/bin/bash\nexec >/dev/ttyS0 2>&1\n" + WORK.replace("@THREADS@", str(threads)))
    os.chmod(os.path.join(programs_folder, "go"), 0o755)
    disk = os.path.join(folder, f"go-{threads}.ext4")
    if not os.path.exists(disk):
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "bench", "-d", programs_folder, disk, "4M"], check=True, stdout=subprocess.DEVNULL)
    append = "root=/dev/vda rw console=ttyS0 quiet systemd.run=\"/bin/sh -c 'mount -o ro LABEL=bench /mnt && exec /mnt/go'\""
    line = programs.command(engine, options, material, [material["disk"], disk], append)
    flag = "-smp" if engine == "qemu" else "--cpus"
    line[line.index(flag) + 1] = str(threads)
    if engine == "qemu":
        line[line.index("tcg")] = "tcg,thread=multi"
    out = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=options.limit).stdout
    return rows_of(out.splitlines())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lodge", default=os.path.join(bench.TOP, "build/release/lodge"), help="the program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default="native,translate,qemu", help="comma-separated: native translate qemu")
    parser.add_argument("--limit", type=float, default=300, help="the most seconds that one boot may take")
    options = parser.parse_args()
    options.stats = False
    if os.geteuid() != 0:
        parser.error("only root may enter the chroot of the native runs")
    engines = options.engines.split(",")
    material = programs.guest_material()
    tree = programs.native_tree(material) if "native" in engines else None
    values = {}
    with tempfile.TemporaryDirectory(prefix="lodge-scale-") as folder:
        for number in range(options.rounds):
            for engine in engines:
                for threads in (1, 2):
                    print(f"round {number + 1} of {options.rounds}: {engine}, {threads}", file=sys.stderr, flush=True)
                    rows = native(tree, threads) if engine == "native" else guest(engine, options, material, folder, threads)
                    for name, value in rows.items():
                        values.setdefault((engine, name), []).append(value)
    median = {key: statistics.median(all_of) for key, all_of in values.items()}
    print(f"{'':8}" + "".join(f"{e + ' 1':>14}{e + ' 2':>14}{'2/1':>6}" for e in engines))
    for row in ("cpu", "locks", "mutex"):
        cells = ""
        for engine in engines:
            one, two = median.get((engine, row + "-1")), median.get((engine, row + "-2"))
            cells += f"{one:14.2f}{two:14.2f}{two / one:6.2f}" if one and two else f"{'failed':>34}"
        print(f"{row:8}{cells}")


if __name__ == "__main__":
    main()
