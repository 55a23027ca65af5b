#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a machine costs at its start: from exec of `lodge run` to the first guest instruction, and how much memory the process
takes beyond the guest's RAM (proportional share) two seconds later; with a kernel, a console, a disk and a network device.
With --restore, of a saved Debian with 512 MiB: from exec to the first instruction, and to a shell's answer. The programs
take turns. `tools/build static` makes the static program."""

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time

import bench

MEMORY = 256 << 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found = [path for path in (os.path.join(bench.TOP, "build", name, "lodge") for name in ("static", "release")) if os.path.exists(path)]
    parser.add_argument("--lodge", nargs="+", default=found, help="the programs")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--engine", default="translate")
    parser.add_argument("--net", default="user")
    parser.add_argument("--restore", metavar="FILE", help="a saved machine with a shell at its console, which is not changed by being restored")
    return parser.parse_args()


def own_mebibytes(pid):
    """The process's proportional share of memory, without what is guest RAM: the shared file, or the private area of its size."""
    total, guest = 0, False
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            area = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)\s*(.*)", line)
            if area:
                size = int(area[2], 16) - int(area[1], 16)
                private = not area[5] and MEMORY <= size <= MEMORY + (4 << 20)
                guest = "lodge-guest-ram" in area[5] or private
            elif line.startswith("Pss:") and not guest:
                total += int(line.split()[1])
    return total / 1024


class Started:
    """The command's process, which is killed at the end; `milliseconds` from its start until it said that the machine runs."""

    def __init__(self, command, environment):
        begin = time.monotonic()
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        said = b""
        while b"the machine runs" not in said:
            part = os.read(self.process.stderr.fileno(), 4096)
            if not part:
                raise RuntimeError(f"{' '.join(command)}: {said.decode()}")
            said += part
        self.begin, self.milliseconds = begin, 1000 * (time.monotonic() - begin)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def answer(self):
        """Milliseconds from exec until a shell at the console answered."""
        self.process.stdin.write(b"echo soon-$((5 * 5))\n")
        said = b""
        while b"soon-25" not in said:
            said = said[-100:] + os.read(self.process.stdout.fileno(), 4096)
        return 1000 * (time.monotonic() - self.begin)


def figures(name, values, unit):
    print(f"  {name:<32} median {statistics.median(values):6.2f} {unit}, {min(values):.2f} to {max(values):.2f}")


def main():
    options = arguments()
    made = subprocess.run([os.path.join(bench.TOP, "tools/make-guest"), "kernel", "initrd"], check=True, capture_output=True,
                          text=True).stdout.strip()
    runs, answers, sizes = ({program: [] for program in options.lodge} for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="lodge-start-") as folder:
        environment = {**os.environ, "XDG_RUNTIME_DIR": folder}
        disk = os.path.join(folder, "disk")
        with open(disk, "wb") as file:
            file.truncate(64 << 20)
        if options.restore:
            words = ["restore", options.restore, "--verbose", "--engine", options.engine]
        else:
            words = ["run", "--verbose", "--engine", options.engine, "--kernel", f"{made}/vmlinuz", "--initrd", f"{made}/initrd.img",
                     "--append", "console=ttyS0", "--memory", str(MEMORY >> 20) + "M", "--disk", disk, "--net", options.net]
        for number in range(options.rounds):
            for program in options.lodge:
                with Started([program, *words], environment) as machine:
                    runs[program].append(machine.milliseconds)
                    if options.restore:
                        answers[program].append(machine.answer())
                    elif number < 3:
                        time.sleep(2)
                        sizes[program].append(own_mebibytes(machine.process.pid))
    print(f"load {os.getloadavg()[0]:.1f}, engine {options.engine}")
    for program in options.lodge:
        print(program)
        figures("exec to the first instruction", runs[program], "ms")
        if options.restore:
            figures("exec to a shell's answer", answers[program], "ms")
        else:
            figures("memory beyond guest RAM", sizes[program], "MiB")


if __name__ == "__main__":
    main()
