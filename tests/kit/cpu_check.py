# SPDX-License-Identifier: Apache-2.0
"""What a Linux guest of any engine must get right about its CPUs: a script for the busybox initramfs, and its answer."""

SUM = "sum 67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f -"
SCRIPT = """
nproc
grep -c ^processor /proc/cpuinfo
uname -srm
# every CPU does its share of work, and takes its timer interrupts
i=0
while [ $i -lt $(nproc) ]; do
  taskset $(printf %x $((1 << i))) sh -c 'n=0; while [ $n -lt TURNS ]; do n=$((n+1)); done; echo worked $n' || exit 1
  i=$((i+1))
done
sleep 0.2
awk '/LOC:/ { for (i = 2; i <= NF - 3; i++) if ($i + 0 == 0) exit 1 }' /proc/interrupts || exit 2
dmesg | grep -E 'BUG:|Oops|lockup|rcu.*stall|unchecked MSR|general protection' && exit 3
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
echo sum $(seq 1 1000 | sha256sum)
"""


def script(turns):
    """Each CPU counts to `turns`."""
    return SCRIPT.replace("TURNS", str(turns))


def check(status, output, cpus, turns):
    lines = output.splitlines()
    assert status == 0, f"the script's status is {status}:\n{output}"
    assert lines[:2] == [str(cpus)] * 2, f"nproc and /proc/cpuinfo: {lines[:2]}"
    assert lines[2].startswith("Linux 6.1.") and lines[2].endswith("x86_64"), lines[2]
    assert lines.count(f"worked {turns}") == cpus, output
    assert lines[-1] == SUM, lines[-1]
