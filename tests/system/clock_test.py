# SPDX-License-Identifier: Apache-2.0
"""The guest's clock against the host's while the guest works: clock_test.py SECONDS KIND...: kvm, tsc, hpet, acpi_pm or
ticks (a kernel that does nothing but count the PIT's). They may differ by 100 ms at most."""

import pathlib
import sys
import tempfile
import time

from kit.boot_disk import initrd_with, make_boot_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = int(sys.argv[1])
BOUND = 0.1
KINDS = {
    "kvm": ("kvm-clock", "clocksource=kvm-clock"),
    "tsc": ("tsc", "no-kvmclock tsc=reliable"),
    "hpet": ("hpet", "no-kvmclock clocksource=hpet"),
    "acpi_pm": ("acpi_pm", "no-kvmclock clocksource=acpi_pm"),
    "ticks": ("jiffies", "no-kvmclock clocksource=jiffies hpet=disable lapic=notscdeadline nolapic_timer highres=off nohz=off lpj=4000000"),
}
# Answers questions, and works meanwhile: two processes that compute, and one that starts others and reads the disk.
SCRIPT = """
stty -echo
sleep 3
echo source=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
while read -r word number; do
  case $word in
    up) read -r up idle </proc/uptime; echo "up-$number=$up" ;;
    work)
      while :; do :; done & one=$!
      while :; do :; done & two=$!
      while :; do dd if=/dev/vda of=/dev/null bs=64k count=64 2>/dev/null; seq 1000 | sha1sum >/dev/null; done & three=$! ;;
    rest) kill $one $two $three ;;
  esac
done
"""


class Unsure(AssertionError):
    """The host was too busy to tell."""


def offset(machine, number):
    """Guest time minus host time in seconds, and how wrong that may be: the best of several questions."""
    best = None
    for n in range(12):
        mark = f"{number}-{n}"
        before = time.monotonic()
        machine.console.send(f"up {mark}\n")
        match = machine.console.wait_for(rf"^up-{mark}=(\d+\.\d+)\r?$", 120)
        after = time.monotonic()
        error = (after - before) / 2 + 0.005
        here = float(match.group(1)) + 0.005 - (before + after) / 2
        if best is None or error < best[1]:
            best = here, error
    return best


def keeps_time(kind):
    source, arguments = KINDS[kind]

    def test():
        with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
            disk, initrd = pathlib.Path(folder) / "disk.img", pathlib.Path(folder) / "initrd"
            initrd_with(initrd, script=SCRIPT)
            make_boot_disk(disk, initrd=initrd, kernel_arguments=f"console=ttyS0 quiet {arguments}")
            with Machine(Spec(kernel=None, disks=[Disk(disk)], snapshot=True)) as machine:
                found = machine.console.wait_for(r"^source=(\S+)\r?$", 240).group(1)
                assert found == source, f"the guest's clock is {found}, not {source}"
                first, error = offset(machine, 0)
                started = time.monotonic()
                machine.console.send("work\n")
                time.sleep(SECONDS)
                machine.console.send("rest\n")
                time.sleep(5)
                last, other = offset(machine, 1)
                drift = last - first
                span = time.monotonic() - started
                print(f"{kind}: {1000 * drift:+.0f} ms (give or take {1000 * (error + other):.0f}) in {span:.0f} s")
                if abs(drift) > BOUND:
                    raise AssertionError(f"the guest's clock is {1000 * drift:+.0f} ms off after {span:.0f} s")
                if error + other > BOUND:
                    raise Unsure(f"the answers took too long to tell: {1000 * (error + other):.0f} ms")
    test.__name__ = f"keeps_time {kind}"
    return test


main(*(keeps_time(kind) for kind in sys.argv[2:]))
