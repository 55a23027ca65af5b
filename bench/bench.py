#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One command, one table: the same work natively, under Lodge's translator and under QEMU's TCG, in one run, as ratios.

Absolute times mean little on a shared machine: each round runs all three after each other, and each cell is the median over
the rounds. Rows: those of bench/guest/guestbench.c (one vCPU), and the boot of the cloud kernel to its init process."""

import argparse
import gzip
import os
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.environ.get("LODGE_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lodge")
MARK = b"LODGE-BENCH-INIT"


def cpio(entries):
    """A newc archive (cpio(5)) of (name, mode, data) entries."""
    out = bytearray()
    for number, (name, mode, data) in enumerate(entries + [("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 5 if name.startswith("dev/") else 0,
                  1 if name.startswith("dev/") else 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def build_initrd(folder, program):
    init = ("#!/bin/sh\n/bin/busybox mount -t devtmpfs dev /dev\n/bin/busybox mount -t proc proc /proc\n"
            "/bin/busybox mount -t tmpfs tmp /tmp\n/bin/busybox echo %s\n"
            "for w in $(/bin/busybox cat /proc/cmdline); do case $w in bench.rows=*) rows=${w#bench.rows=};; esac; done\n"
            "[ \"$rows\" = none ] || /bin/guestbench $(/bin/busybox echo $rows | /bin/busybox tr , ' ')\n"
            "/bin/busybox echo LODGE-BENCH-DONE\n/bin/busybox reboot -f\n" % MARK.decode()).encode()
    read = lambda path: open(path, "rb").read()
    entries = [(d, 0o040755, b"") for d in ("bin", "dev", "proc", "tmp")]
    entries += [("dev/console", 0o020600, b""), ("bin/busybox", 0o100755, read("/bin/busybox")),
                ("bin/sh", 0o120777, b"busybox"), ("bin/guestbench", 0o100755, read(program)), ("init", 0o100755, init)]
    path = os.path.join(folder, "initrd.gz")
    with gzip.open(path, "wb", 6) as f:
        f.write(cpio(entries))
    return path


def commands(lodge, kernel, initrd, append):
    common = ["-kernel", kernel, "-initrd", initrd]
    return {
        "lodge": [lodge, "run", "--engine", "translate", "--kernel", kernel, "--initrd", initrd, "--append", append,
                  "--memory", "512M", "--cpus", "1", "--no-reboot", "--net", "none"],
        "qemu": ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "microvm,acpi=off,pit=on,pic=on,rtc=on", "-m", "512", "-smp", "1",
                 "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"] + common +
                ["-append", append],
    }


def run_guest(command, limit):
    """(seconds from exec to init, {row: seconds}) of one boot."""
    start = time.monotonic()
    rows, boot = {}, None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        os.set_blocking(p.stdout.fileno(), False)
        pending = b""
        while True:
            chunk = p.stdout.read()
            if chunk:
                pending += chunk
                while b"\n" in pending:
                    line, pending = pending.split(b"\n", 1)
                    words = line.split()
                    if MARK in line and boot is None:
                        boot = time.monotonic() - start
                    elif len(words) == 3 and words[0] == b"ROW":
                        rows[words[1].decode()] = float(words[2])
            elif p.poll() is not None:
                break
            elif time.monotonic() - start > limit:
                p.kill()
                raise SystemExit(f"bench: {command[0]} ran longer than {limit} s")
            else:
                time.sleep(0.001)
        if boot is None:
            raise SystemExit(f"bench: {command[0]} did not reach init: {p.stderr.read().decode(errors='replace')[-500:]}")
    return boot, rows


def run_native(program, wanted):
    out = subprocess.run([program] + wanted, check=True, capture_output=True, text=True).stdout
    return {w[1]: float(w[2]) for w in (line.split() for line in out.splitlines()) if w[:1] == ["ROW"]}


def geometric_mean(values):
    return statistics.geometric_mean(values) if values else float("nan")


def print_table(names, native, lodge, qemu, boots):
    print(f"{'row':10} {'native s':>9} {'lodge/nat':>10} {'qemu/nat':>10} {'qemu/lodge':>11}")
    ratios = {"lodge": [], "qemu": []}
    for name in names:
        n, l, q = (statistics.median(t[name]) for t in (native, lodge, qemu))
        ratios["lodge"].append(l / n)
        ratios["qemu"].append(q / n)
        print(f"{name:10} {n:9.4f} {l / n:10.2f} {q / n:10.2f} {q / l:11.2f}")
    if names:
        l, q = geometric_mean(ratios["lodge"]), geometric_mean(ratios["qemu"])
        print(f"{'geomean':10} {'':9} {l:10.2f} {q:10.2f} {q / l:11.2f}")
    l, q = statistics.median(boots["lodge"]), statistics.median(boots["qemu"])
    print(f"{'boot':10} {'':9} {l:9.2f}s {q:9.2f}s {q / l:11.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lodge", default=os.path.join(TOP, "build/release/lodge"))
    parser.add_argument("--kernel", default=os.path.join(CACHE, "guest/vmlinuz"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, the short rows")
    parser.add_argument("--rows", default="", help="comma-separated rows; 'none' for the boot alone")
    options = parser.parse_args()
    wanted = [r for r in options.rows.split(",") if r]
    if options.quick:
        options.rounds = 1
        wanted = wanted or ["crc32", "fib", "chase", "syscall", "pipe", "fork"]
    with tempfile.TemporaryDirectory(prefix="lodge-bench-") as folder:
        program = os.path.join(folder, "guestbench")
        subprocess.run(["gcc", "-O2", "-static", "-o", program, os.path.join(TOP, "bench/guest/guestbench.c")], check=True)
        initrd = build_initrd(folder, program)
        append = "console=ttyS0 quiet panic=-1 reboot=t bench.rows=" + ",".join(wanted)
        native, lodge, qemu, boots = {}, {}, {}, {"lodge": [], "qemu": []}
        for round_number in range(options.rounds):
            print(f"round {round_number + 1} of {options.rounds}", file=sys.stderr)
            if wanted != ["none"]:
                for name, t in run_native(program, wanted).items():
                    native.setdefault(name, []).append(t)
            for peer, table in (("lodge", lodge), ("qemu", qemu)):
                boot, rows = run_guest(commands(options.lodge, options.kernel, initrd, append)[peer], 900)
                boots[peer].append(boot)
                for name, t in rows.items():
                    table.setdefault(name, []).append(t)
        names = [n for n in native if n in lodge and n in qemu]
        print_table(names, native, lodge, qemu, boots)
        missing = [n for n in native if n not in names]
        if missing:
            raise SystemExit("bench: rows that did not run everywhere: " + ", ".join(missing))


if __name__ == "__main__":
    main()
