#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast a guest changes its screen: lines that scroll over the VGA's text console, and whole pictures written to the
linear frame buffer (bochs-drm, 1024x768x32), each a second. Lodge's pc board and QEMU's TCG with the same disk, one after the other
in each round, and the median of the rounds. The guest measures by its own clock."""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))

from kit import paths  # noqa: E402
from kit.boot_disk import initrd_with, make_boot_disk  # noqa: E402

LIMIT = 300
MODULES = ["drm", "drm_kms_helper", "ttm", "drm_ttm_helper", "drm_vram_helper", "bochs"]
SCRIPT = """
now() { awk '{ print int($1 * 100) }' /proc/uptime; }
seq 1 2000 >/tmp/lines
start=$(now)
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do cat /tmp/lines; done >/dev/tty1
echo "bench: text $((40000 * 100 / ($(now) - start + 1)))"
for module in MODULES; do insmod /lodge/$module.ko; done
for n in 1 2 3 4 5 6 7 8 9 10; do test -e /dev/fb0 && break; sleep 1; done
dd if=/dev/urandom of=/tmp/picture bs=1M count=3 2>/dev/null
start=$(now)
n=0
while [ $n -lt 60 ]; do cat /tmp/picture >/dev/fb0; n=$((n + 1)); done
echo "bench: pictures $((60 * 100 / ($(now) - start + 1)))"
echo "bench: end"
"""


def commands(disk, lodge):
    return {
        "lodge": [lodge, "run", "--name", f"bench{os.getpid()}", "--board", "pc", "--memory", "512M", "--snapshot",
                  "--net", "none", "--disk", f"{disk},bus=ide"],
        "qemu": ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "pc", "-m", "512", "-display", "none",
                 "-nodefaults", "-vga", "std", "-serial", "stdio", "-monitor", "none", "-snapshot",
                 "-drive", f"file={disk},format=raw,if=ide"],
    }


def rates(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
    found = dict(re.findall(r"bench: (text|pictures) (\d+)", done.stdout.decode(errors="replace")))
    if len(found) < 2:
        raise SystemExit(f"{command[0]}: no result in\n{done.stdout[-2000:].decode(errors='replace')}")
    return {what: int(rate) for what, rate in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lodge", default=str(paths.LODGE))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lodge-bench-") as folder:
        folder = pathlib.Path(folder)
        # The modules come in between: the first measurement wants the text console.
        initrd_with(folder / "initrd", MODULES, SCRIPT.replace("MODULES", " ".join(MODULES)), full=True, load=False)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd", kernel=paths.VMLINUZ_FULL)
        both = commands(folder / "disk.img", options.lodge)
        results = {name: [] for name in both}
        for _ in range(options.rounds):
            for name, command in both.items():
                results[name].append(rates(command))
        for what, unit in (("text", "lines a second"), ("pictures", "pictures a second")):
            median = {name: statistics.median(r[what] for r in rounds) for name, rounds in results.items()}
            print(f"{what:10} lodge {median['lodge']:8.0f}  qemu {median['qemu']:8.0f}  {unit}: "
                  f"{median['lodge'] / max(median['qemu'], 1):.2f} of QEMU's")


main()
