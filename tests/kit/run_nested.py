#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run_nested.py [--cpus N] [--memory SIZE] [--disk FILE]... [--program FILE]... COMMAND: runs a shell command in the first-level guest of
kit/nested.py, where /dev/kvm works; prints what it prints and exits with its status. `lodge` is Lodge, /lodge/vmlinuz and
/lodge/initrd are a kernel and an initramfs to start, disks are /dev/vda and so on."""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit.nested import FirstLevel  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--disk", action="append", default=[])
    parser.add_argument("--program", action="append", default=[], help="packed with its libraries into /lodge")
    parser.add_argument("command")
    arguments = parser.parse_args()
    programs = [(path, pathlib.Path(path).name) for path in arguments.program]
    with FirstLevel(arguments.command, disks=arguments.disk, cpus=arguments.cpus, memory=arguments.memory,
                    programs=programs) as guest:
        status, output = guest.result(arguments.seconds)
    print(output)
    return status


if __name__ == "__main__":
    sys.exit(main())
