#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One command, one table: the same work natively, under Lodge's translator and under QEMU's TCG, in one run, as ratios.

Absolute times mean little on a shared machine: each round runs all of them after each other, and each cell is the median
over the rounds. Rows: those of bench/guest/guestbench.c (one vCPU), as multiples of the native time, and the boot of the
cloud kernel with a busybox initramfs, from exec to its init process, in seconds.

Every guest has 1 GiB of memory (--memory), what `lodge run` gives without being asked: below 512 MiB Linux never uses large
pages for programs. Whether the host does for the native program is the host's setting."""

import argparse
import gzip
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.environ.get("LODGE_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lodge")
MARK, DONE = b"LODGE-BENCH-INIT", b"LODGE-BENCH-DONE"
ROWS = ["crc32", "fib", "qsort", "matmul", "chase", "memcpy", "syscall", "pipe", "pgfault", "fork", "file"]
QUICK_ROWS = ["boot", "crc32", "fib", "chase", "syscall", "pipe", "fork"]


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
            "for w in $(/bin/busybox cat /proc/cmdline); do case $w in bench.rows=*) rows=${w#bench.rows=};; "
            "bench.end=*) end=${w#bench.end=};; esac; done\n"
            "[ \"$rows\" = none ] || /bin/guestbench $(/bin/busybox echo $rows | /bin/busybox tr , ' ')\n"
            "/bin/busybox echo LODGE-BENCH-DONE\n/bin/busybox ${end:-poweroff} -f\n" % MARK.decode()).encode()
    read = lambda path: open(path, "rb").read()
    entries = [(d, 0o040755, b"") for d in ("bin", "dev", "proc", "tmp")]
    entries += [("dev/console", 0o020600, b""), ("bin/busybox", 0o100755, read("/bin/busybox")),
                ("bin/sh", 0o120777, b"busybox"), ("bin/guestbench", 0o100755, read(program)), ("init", 0o100755, init)]
    path = os.path.join(folder, "initrd.gz")
    with gzip.open(path, "wb", 6) as f:
        f.write(cpio(entries))
    return path


class Failed(Exception):
    """A program that did not do its part; the text says which and why."""


def command(engine, options, initrd, append):
    """The command line that boots the benchmark's guest."""
    if engine == "qemu":  # its microvm has no power-off that Debian's kernel knows: a triple fault ends it
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "microvm,acpi=off,pit=on,pic=on,rtc=on",
                "-m", options.memory, "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-kernel", options.kernel, "-initrd", initrd, "-append", append + " reboot=t bench.end=reboot"]
    return [options.lodge, "run", "--engine", engine, "--kernel", options.kernel, "--initrd", initrd, "--append", append,
            "--memory", options.memory, "--cpus", "1", "--no-reboot", "--net", "none"]


def lines_of(process, deadline):
    """The lines of a process's standard output as they come, until it closes it. Raises Failed at the deadline."""
    pending = b""
    while True:
        ready = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0]
        if not ready:
            raise Failed("it took too long (--limit)")
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        yield from lines


def run_guest(engine, options, initrd, append):
    """({row: seconds}) of one boot; the row "boot" is the time from exec to init."""
    rows, done = {}, False
    with tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen(command(engine, options, initrd, append), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=errors)
        try:
            for line in lines_of(process, start + options.limit):
                words = line.split()
                if MARK in line:
                    rows.setdefault("boot", time.monotonic() - start)
                elif len(words) == 3 and words[0] == b"ROW":
                    rows[words[1].decode()] = float(words[2])
                done = done or DONE in line
            status = process.wait(60)
        except (Failed, subprocess.TimeoutExpired) as reason:
            print(f"bench: {engine}: {reason}", file=sys.stderr)
            return rows
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if not done or status != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()[-300:]
            print(f"bench: {engine}: ended with status {status} after {', '.join(rows) or 'nothing'}: {said}", file=sys.stderr)
    return rows


def run_native(program, wanted):
    out = subprocess.run([program, *wanted], check=True, capture_output=True, text=True).stdout
    return {w[1]: float(w[2]) for w in (line.split() for line in out.splitlines()) if w[:1] == ["ROW"]}


def print_table(names, engines, times):
    """Medians: seconds natively, and each engine's as a multiple; the boot in seconds. With QEMU among the engines, how much
    faster than it the first is."""
    median = {(e, n): statistics.median(t) for e, rows in times.items() for n, t in rows.items()}
    guests = [e for e in engines if e != "native"]
    compare = guests[0] if "qemu" in guests and guests[0] != "qemu" else None
    print(f"{'row':10} {'native s':>10}" + "".join(f" {e:>11}" for e in guests) + (" qemu/" + compare if compare else ""))
    ratios = {e: [] for e in guests}
    speedups = []
    for name in names:
        native = median.get(("native", name))
        cells = f"{name:10} " + (f"{native:10.4f}" if native else f"{'':10}")
        for engine in guests:
            value = median.get((engine, name))
            if value is None:
                cells += f" {'failed':>11}"
            elif native:
                ratios[engine].append(value / native)
                cells += f" {value / native:11.2f}"
            else:
                cells += f" {value:10.2f}s"
        if compare and (compare, name) in median and ("qemu", name) in median:
            speedup = median["qemu", name] / median[compare, name]
            cells += f" {speedup:{5 + len(compare)}.2f}"
            if name not in ("boot", "login"):
                speedups.append(speedup)
        print(cells)
    if any(ratios.values()):
        mean = lambda values: f"{statistics.geometric_mean(values):.2f}" if values else "-"
        print(f"{'geomean':10} {'':10}" + "".join(f" {mean(ratios[e]):>11}" for e in guests) +
              (f" {mean(speedups):>{5 + len(compare)}}" if compare else ""))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lodge", default=os.path.join(TOP, "build/release/lodge"), help="the program")
    parser.add_argument("--kernel", default=os.path.join(CACHE, "guest/vmlinuz"))
    parser.add_argument("--memory", default="1G", help="of each guest")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of the short rows")
    parser.add_argument("--rows", default="", help=f"comma-separated: {' '.join(['boot', *ROWS])}")
    parser.add_argument("--engines", default="native,translate,qemu",
                        help="comma-separated: native translate interpret kvm qemu; Lodge's first one is compared with QEMU")
    parser.add_argument("--bits", type=int, choices=(32, 64), default=64, help="of the program's code")
    parser.add_argument("--limit", type=float, default=900, help="the most seconds that one boot with all rows may take")
    options = parser.parse_args()
    options.rows = [r for r in options.rows.split(",") if r] or (QUICK_ROWS if options.quick else ["boot", *ROWS])
    options.engines = [e for e in options.engines.split(",") if e]
    if options.quick:
        options.rounds = 1
    for row in options.rows:
        if row not in ("boot", *ROWS):
            parser.error(f"no row '{row}'; there are: boot {' '.join(ROWS)}")
    for engine in options.engines:
        if engine not in ("native", "translate", "interpret", "kvm", "qemu"):
            parser.error(f"no engine '{engine}'; there are: native translate interpret kvm qemu")
    if "qemu" in options.engines and not shutil.which("qemu-system-x86_64"):
        print("bench: without QEMU: Debian's package qemu-system-x86 is not installed", file=sys.stderr)
        options.engines.remove("qemu")
    for path in (options.lodge, options.kernel):
        if not os.path.exists(path):
            parser.error(f"{path} is missing: run `make build guest`")
    return options


def measure(options, folder):
    """{engine: {row: [seconds of each round]}}"""
    program = os.path.join(folder, "guestbench")
    subprocess.run(["gcc", f"-m{options.bits}", "-O2", "-static", "-o", program, os.path.join(TOP, "bench/guest/guestbench.c")], check=True)
    initrd = build_initrd(folder, program)
    inside = [r for r in options.rows if r != "boot"]
    append = "console=ttyS0 quiet panic=-1 bench.rows=" + (",".join(inside) or "none")
    times = {engine: {} for engine in options.engines}
    for number in range(options.rounds):
        for engine in options.engines:
            print(f"round {number + 1} of {options.rounds}: {engine}", file=sys.stderr, flush=True)
            if engine != "native":
                rows = run_guest(engine, options, initrd, append)
            else:
                rows = run_native(program, inside) if inside else {}
            for name, seconds in rows.items():
                times[engine].setdefault(name, []).append(seconds)
    return times


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="lodge-bench-") as folder:
        times = measure(options, folder)
    print(f"guests with {options.memory} of memory, one CPU")
    print_table(options.rows, options.engines, times)
    missing = [f"{engine}: {name}" for engine in options.engines for name in options.rows
               if len(times[engine].get(name, [])) < options.rounds and (engine, name) != ("native", "boot")]
    if missing:
        sys.exit("bench: did not run each time: " + ", ".join(missing))


if __name__ == "__main__":
    main()
