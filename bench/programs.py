#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real programs from Debian packages: the same Debian 12 tree natively (in a chroot), under Lodge's translator and under
QEMU's TCG, in one run, as multiples of the native time. What each program does: bench/programs/NAME. The row "login" is a
boot of Debian from exec to the (automatic) login on its console, in seconds.

Rows that go through the network (iperf3, http) and the disk (fio) are compared between the two machines; natively they are
loopback and a file. Needs root (chroot), one vCPU each."""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

import bench

FOLDER = os.path.join(bench.TOP, "bench/programs")
ROWS = sorted(name for name in os.listdir(FOLDER) if name != "run")
SCRATCH_MIB = 64


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lodge", default=os.path.join(bench.TOP, "build/release/lodge"), help="the program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default="", help=f"comma-separated: login {' '.join(ROWS)}")
    parser.add_argument("--engines", default="native,translate,qemu", help="comma-separated: native translate interpret kvm qemu")
    parser.add_argument("--limit", type=float, default=1800, help="the most seconds that one boot with all rows may take")
    parser.add_argument("--stats", action="store_true", help="Lodge's counters after each boot")
    options = parser.parse_args()
    options.rows = [r for r in options.rows.split(",") if r] or ["login", *ROWS]
    options.engines = [e for e in options.engines.split(",") if e]
    for row in options.rows:
        if row not in ("login", *ROWS):
            parser.error(f"no row '{row}'; there are: login {' '.join(ROWS)}")
    if os.geteuid() != 0:
        parser.error("only root may enter the chroot of the native runs")
    return options


def guest_material():
    made = subprocess.run([os.path.join(bench.TOP, "tools/make-guest"), "kernel", "initrd", "debian-bench"], check=True,
                          capture_output=True, text=True).stdout.strip()
    return {name: os.path.join(made, file) for name, file in
            (("kernel", "vmlinuz"), ("initrd", "initrd.img"), ("disk", "debian-bench.ext4"), ("recipe", ".debian-bench.recipe"))}


def native_tree(material):
    """The image's content in a folder, made once."""
    tree = os.path.join(bench.CACHE, "bench/debian-bench")
    recipe = open(material["recipe"]).read()
    stamp = tree + ".recipe"
    if not os.path.exists(stamp) or open(stamp).read() != recipe:
        print("unpacking the image for the native runs", file=sys.stderr)
        shutil.rmtree(tree, ignore_errors=True)
        os.makedirs(tree)
        subprocess.run(["debugfs", "-R", f"rdump / {tree}", material["disk"]], check=True, capture_output=True)
        with open(stamp, "w") as file:
            file.write(recipe)
    return tree


def rows_from(lines):
    """({row: seconds}, whether the end came) of the runner's output."""
    rows, done = {}, False
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[0] == b"ROW":
            rows[words[1].decode()] = float(words[2])
        elif words[:1] == [b"FAILED"]:
            print("programs: " + line.decode(errors="replace").strip(), file=sys.stderr)
        done = done or bench.DONE in line
    return rows, done


def run_native(tree, wanted, scratch):
    script = ('set -e; mount --bind /dev "$1/dev"; mount -t proc proc "$1/proc"; mount -t sysfs sys "$1/sys"; '
              'mount -t tmpfs tmp "$1/tmp"; mkdir "$1/tmp/programs"; cp -r "$2"/* "$1/tmp/programs"; cp "$3" "$1/tmp/scratch"; root=$1; '
              'shift 3; export BENCH_HOST=127.0.0.1 BENCH_DISK=/tmp/scratch; exec taskset 1 chroot "$root" /tmp/programs/run "$@"')
    out = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", tree, FOLDER, scratch, *wanted], check=True,
                         capture_output=True).stdout
    return rows_from(out.splitlines())[0]


def command(engine, options, material, disks, append):
    if engine == "qemu":
        line = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1500", "-smp", "1", "-display", "none", "-nodefaults",
                "-serial", "stdio", "-no-reboot", "-nic", "user,model=virtio-net-pci", "-kernel", material["kernel"],
                "-initrd", material["initrd"], "-append", append]
        for disk in disks:
            line += ["-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
        return line
    line = [options.lodge, "run", "--engine", engine, "--kernel", material["kernel"], "--initrd", material["initrd"], "--append",
            append, "--memory", "1500M", "--cpus", "1", "--no-reboot", "--net", "user", "--snapshot"]
    if options.stats:
        line += ["--stats", "--trace", "steps"]
    for disk in disks:
        line += ["--disk", f"{disk},format=raw"]
    return line


def run_guest(engine, options, material, disks, append, until=None):
    """The runner's rows of one boot; with `until`, the seconds from exec to the line that has it."""
    with tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen(command(engine, options, material, disks, append), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=errors)
        lines = []
        try:
            for line in bench.lines_of(process, start + options.limit):
                lines.append(line)
                if until and until in line:
                    return time.monotonic() - start
            process.wait(60)
        except (bench.Failed, subprocess.TimeoutExpired) as reason:
            print(f"programs: {engine}: {reason}", file=sys.stderr)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        rows, done = rows_from(lines)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
        if options.stats:
            print(said, file=sys.stderr)
        elif not done:
            print(f"programs: {engine}: ended early: {b' '.join(lines[-3:])} {said[-300:]}", file=sys.stderr)
        return {} if until else rows


def make_disks(folder, material, wanted):
    programs = os.path.join(folder, "programs")
    shutil.copytree(FOLDER, programs)
    with open(os.path.join(programs, "go"), "w") as file:
        file.write("#!/bin/bash\nexport BENCH_HOST=10.0.2.2 BENCH_DISK=/dev/vdc\n"
                   "systemctl start systemd-networkd\nfor _ in $(seq 100); do ip route | grep -q ^default && break; sleep 0.2; done\n"
                   f"exec >/dev/ttyS0 2>&1\n/mnt/run {' '.join(wanted)}\n")
    os.chmod(os.path.join(programs, "go"), 0o755)
    disk, scratch = os.path.join(folder, "programs.ext4"), os.path.join(folder, "scratch")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "bench", "-d", programs, disk, "16M"], check=True)
    with open(scratch, "wb") as file:
        file.write(os.urandom(1 << 20) * SCRATCH_MIB)
    return [material["disk"], disk, scratch]


@contextlib.contextmanager
def servers(folder, rows):
    """What the network rows ask, on this host's loopback."""
    running = []
    try:
        if "iperf3" in rows:
            running.append(subprocess.Popen(["iperf3", "-s", "-B", "127.0.0.1", "-p", "5207"], stdout=subprocess.DEVNULL))
        if "http" in rows:
            pages = os.path.join(folder, "pages")
            os.makedirs(pages)
            for number in range(1, 151):
                with open(os.path.join(pages, str(number)), "wb") as file:
                    file.write(os.urandom(8192))
            running.append(subprocess.Popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "-d", pages, "5208"],
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(1 if running else 0)
        yield
    finally:
        for process in running:
            process.terminate()
            process.wait()


def measure(options, folder):
    material = guest_material()
    wanted = [row for row in options.rows if row != "login"]
    tree = native_tree(material) if "native" in options.engines and wanted else None
    disks = make_disks(folder, material, wanted)
    base = "root=/dev/vda rw console=ttyS0 quiet "
    append = base + "systemd.run=\"/bin/sh -c 'mount -o ro LABEL=bench /mnt && exec /mnt/go'\""
    times = {engine: {} for engine in options.engines}
    for number in range(options.rounds):
        for engine in options.engines:
            print(f"round {number + 1} of {options.rounds}: {engine}", file=sys.stderr, flush=True)
            rows = {}
            if engine == "native":
                rows = run_native(tree, wanted, disks[2]) if wanted else {}
            else:
                if wanted:
                    rows = run_guest(engine, options, material, disks, append)
                if "login" in options.rows:
                    login = run_guest(engine, options, material, disks[:1], base, b"automatic login")
                    if login:
                        rows["login"] = login
            for name, seconds in rows.items():
                times[engine].setdefault(name, []).append(seconds)
    return times


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="lodge-bench-") as folder:
        with servers(folder, options.rows):
            times = measure(options, folder)
    bench.print_table(options.rows, options.engines, times)


if __name__ == "__main__":
    main()
