#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run_commands.py [--cpus N] COMMAND...: boots Debian, prints what the commands print, shuts down. What `make run` does
without a terminal. Exits with the first status that is not 0."""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit.guest import Debian  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("commands", nargs="+")
    arguments = parser.parse_args()
    print("booting Debian ...", file=sys.stderr, flush=True)
    with Debian(cpus=arguments.cpus, engine=arguments.engine, append="quiet") as debian:
        result = 0
        for command in arguments.commands:
            status, output = debian.run(command, 60)
            print(f"# {command}\n{output}", flush=True)
            result = result or status
        ended = debian.power_off()
    return result or ended


if __name__ == "__main__":
    sys.exit(main())
