#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kvm_restore.py [--rounds N]: a saved machine of 512 MiB goes on under Lodge's kvm engine, and under QEMU (-incoming) with the same kernel and
system, by turns under the same KVM one level down (tests/kit/nested.py), where all is emulated: so ratios, and what is done until then. From exec
to the first entry into the guest and to the next word of a shell that says one every 50 ms; guest entries, system calls and page faults of the process, bytes that it read."""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
from kit.nested import FirstLevel  # noqa: E402
from kvm_exits import ROMS  # noqa: E402

MACHINES = ("lodge", "qemu")
SCRIPT = """
KERNEL="-kernel /lodge/vmlinuz -initrd /lodge/initrd"
qemu() {
  /lodge/qemu -accel kvm -cpu host -machine q35 -nodefaults -no-user-config -display none -no-reboot -serial stdio -m 512M $KERNEL \\
    -append 'console=ttyS0 quiet' -netdev user,id=n -device virtio-net-pci,netdev=n,romfile= -L /lodge/share "$@"
}
tracing=/sys/kernel/tracing
mount -t tracefs none $tracing
events=$tracing/events
echo 20000 >$tracing/buffer_size_kb
echo mono >$tracing/trace_clock
echo 0 >$tracing/tracing_on
for each in kvm/kvm_entry raw_syscalls/sys_enter exceptions/page_fault_user; do echo 1 >$events/$each/enable; done
say() { echo "$1" >$tracing/trace_marker; }
wait_for() {
  tries=0
  until grep -qs "$2" $1; do
    sleep 0.1; tries=$((tries + 1)); [ $tries -lt 1200 ] || { echo "no $2"; tail -n 5 $1 /tmp/err; exit 1; }
  done
}
mkfifo /tmp/in /tmp/out /tmp/monitor.in /tmp/monitor.out
sleep 100000 >/tmp/in &
sleep 100000 >/tmp/monitor.in &
cat /tmp/monitor.out >/tmp/monitored &
# A shell that says something every 50 ms: of two programs that one reads its input before the machine is there, and one does not.
TALK='while :; do echo tick-$((5 * 5)); sleep 0.05; done'
lodge run --name m --engine kvm $(echo $KERNEL | sed 's/-/--/g') --memory 512M --net user --append 'console=ttyS0 quiet' </tmp/in >/tmp/console 2>/tmp/err &
wait_for /tmp/console 'lodge-guest: ready'; sleep 2; echo "$TALK" >/tmp/in; wait_for /tmp/console tick-25; sleep 1
lodge save m /tmp/lodge.saved || exit 2
wait $!
qemu -chardev pipe,id=c,path=/tmp/monitor -mon c </tmp/in >/tmp/console 2>/tmp/err &
wait_for /tmp/console 'lodge-guest: ready'; sleep 2; echo "$TALK" >/tmp/in; wait_for /tmp/console tick-25; sleep 1
echo 'migrate "exec:cat >/tmp/qemu.saved"' >/tmp/monitor.in; sleep 1
tries=0; until echo 'info migrate' >/tmp/monitor.in; sleep 1; grep -q 'status: completed' /tmp/monitored; do tries=$((tries + 1)); [ $tries -lt 60 ] || exit 3; done
echo quit >/tmp/monitor.in
sleep 2
ls -l /tmp/*.saved | sed 's/^/size /'
go_on() {
  echo >$tracing/trace
  (grep -m 1 -q tick-25 && say "$1 $2 answered") </tmp/out &
  reader=$!
  echo 1 >$tracing/tracing_on
  sh -c 'echo "'"$1 $2"' begins $$" >'$tracing/trace_marker'; exec "$@"' sh $3 $4 $5 $6 $7 $8 $9 </tmp/in >/tmp/out 2>/tmp/err &
  pid=$!
  tries=0
  while [ -d /proc/$reader ]; do sleep 0.2; tries=$((tries + 1)); [ $tries -lt 300 ] || { echo "no answer of $1"; cat /tmp/err; exit 4; }; done
  echo 0 >$tracing/tracing_on
  echo "threads $1 $2" $(ls /proc/$pid/task)
  echo "read $1 $2 $(sed -n 's/rchar: //p' /proc/$pid/io)"
  grep -E ' kvm_entry:| sys_enter:| page_fault_user:|tracing_mark_write:' $tracing/trace | sed -n "s/^ *.*-\\([0-9]*\\) .* \\([0-9.]*\\): \\([a-z_]*\\): *\\(.*\\)/\\1 \\2 \\3 \\4/p" |
    awk -v who="$1 $2" '/tracing_mark_write/ { print "mark", $0 } /kvm_entry/ && !first { first = $2; print "first", who, $2 } { n[$1 " " $3]++ } END { for (each in n) print "count", who, each, n[each] }'
  kill -9 $pid; wait $pid 2>/dev/null
}
round=0
while [ $round -lt ROUNDS ]; do
  round=$((round + 1))
  go_on lodge $round lodge restore /tmp/lodge.saved --engine kvm
  go_on qemu $round sh /lodge/incoming
done
exit 0
"""
INCOMING = SCRIPT[SCRIPT.index("KERNEL="):SCRIPT.index("tracing=")].replace("  /lodge/qemu", "  exec /lodge/qemu") + 'qemu -incoming "exec:cat /tmp/qemu.saved"\n'


def tell(output, rounds):
    """Prints figures of what the first level's script printed."""
    for line in re.findall(r"^size .*", output, re.MULTILINE):
        print(line)
    figures = {}
    for name in MACHINES:
        for number in map(str, range(1, rounds + 1)):
            begin = float(re.search(rf"^mark \d+ ([\d.]+) tracing_mark_write {name} {number} begins", output, re.MULTILINE)[1])
            end = float(re.search(rf"^mark \d+ ([\d.]+) tracing_mark_write {name} {number} answered", output, re.MULTILINE)[1])
            first = float(re.search(rf"^first {name} {number} ([\d.]+)", output, re.MULTILINE)[1])
            threads = re.search(rf"^threads {name} {number} (.*)", output, re.MULTILINE)[1].split()
            row = {"ms to the first entry": 1000 * (first - begin), "ms to the shell's word": 1000 * (end - begin)}
            for title, event in (("guest entries", "kvm_entry"), ("system calls", "sys_enter"), ("page faults", "page_fault_user")):
                found = re.findall(rf"^count {name} {number} (\d+) {event} (\d+)", output, re.MULTILINE)
                row[title] = sum(int(count) for thread, count in found if thread in threads)
            row["MiB read"] = int(re.search(rf"^read {name} {number} (\d+)", output, re.MULTILINE)[1]) / (1 << 20)
            for title, value in row.items():
                figures.setdefault(title, {}).setdefault(name, []).append(value)
    print(f"{'medians':24}" + "".join(f"{name:>12}" for name in MACHINES) + f"{'ratio':>10}")
    for title, values in figures.items():
        lodge, other = (statistics.median(values[name]) for name in MACHINES)
        print(f"{title:24}{lodge:12.1f}{other:12.1f}{lodge / other if other else 0:10.2f}   " +
              "; ".join(f"{name} {min(values[name]):.1f} to {max(values[name]):.1f}" for name in MACHINES))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    qemu = subprocess.run(["which", "qemu-system-x86_64"], capture_output=True, text=True, check=True).stdout.strip()
    files = [(f"share/{path.split('/qemu/')[-1].split('/')[-1]}", pathlib.Path(path).read_bytes()) for path in ROMS]
    files.append(("incoming", INCOMING.encode()))
    with FirstLevel(SCRIPT.replace("ROUNDS", str(options.rounds)), files=files, cpus=2, memory="4G", programs=[(qemu, "qemu")]) as level:
        status, output = level.result(900)
    if status != 0:
        sys.exit(f"error: the first level's script ended with {status}:\n{output[-6000:]}")
    tell(output, options.rounds)


if __name__ == "__main__":
    main()
