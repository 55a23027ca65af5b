#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kvm_exits.py [--cpus N] [--rounds N] [--machines NAME...] [--shared-huge-pages]: how often a guest leaves the processor under Lodge's kvm engine
(by --irqchip) and under QEMU, with the same kernel, disk, network card and balloon, under the same KVM one level down (tests/kit/nested.py): a boot,
a read of a disk, a packet there and back. KVM itself counts, so that the load of the host changes little. The machines run side by side
and take turns, a round each; figures are medians of the rounds. By kind: KVM's own counters in debugfs, reasons of exits (of AMD's
processors), injected interrupts and stores to MSRs from its tracepoints."""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
from kit import paths  # noqa: E402
from kit.archive import cpio_archive  # noqa: E402
from kit.nested import FirstLevel  # noqa: E402

MACHINES = ("split", "kernel", "qemu")
READS, PINGS = 512, 200
TIMES = {"read": READS, "ping": PINGS, "idle": 1}
# A word on the console begins a step; at each mark the counters are read, while the guest waits or sleeps.
GUEST = f"""
stty -echo
ip link set eth0 up; udhcpc -i eth0 -s /etc/udhcpc.script -q -n >/dev/null 2>&1 || exit 2
echo "mark booted"
while read -r step number; do
  echo "mark begin $step $number"; sleep 1
  case $step in
    read) dd if=/dev/vda of=/dev/null bs=4k count={READS} iflag=direct 2>/dev/null || exit 3 ;;
    ping) # Where the first level stands still for a while ping overlooks answers; the card does not.
      before=$(cat /sys/class/net/eth0/statistics/rx_packets)
      ping -c {PINGS} -i 0.01 -q 10.0.2.2 >/tmp/said
      [ $(($(cat /sys/class/net/eth0/statistics/rx_packets) - before)) -ge {PINGS} ] || {{ cat /tmp/said /proc/net/dev; exit 4; }} ;;
    idle) sleep 1.5 ;;
    end) exit 0 ;;
  esac
  echo "mark end $step $number"
done
"""
COUNT = """
mount -t debugfs none /sys/kernel/debug
HUGE
mkdir -p /sys/kernel/tracing; mount -t tracefs none /sys/kernel/tracing 2>/dev/null
cd /sys/kernel/tracing/events/kvm && {
  echo 'hist:keys=common_pid,exit_reason:size=4096' >kvm_exit/trigger
  echo 'hist:keys=common_pid,ecx,write:size=4096' >kvm_msr/trigger
  echo 'hist:keys=common_pid,vector:size=4096' >kvm_inj_virq/trigger
}
counters() {
  for each in /sys/kernel/debug/kvm/$(cat /tmp/$1.pid)-*/*; do [ -f $each ] && echo "$1 $2 ${each##*/} $(cat $each)"; done
  echo "threads $1 $2" $(ls /proc/$(cat /tmp/$1.pid)/task)
  for event in kvm_exit kvm_msr kvm_inj_virq; do
    sed -n "s/^{/hist $1 $2 $event {/p" /sys/kernel/tracing/events/kvm/$event/hist
  done
}
until_mark() {
  tries=0
  until grep -qs "mark $2" /tmp/$1.out; do
    sleep 0.05; tries=$((tries + 1))
    [ $tries -lt 2400 ] && [ -d /proc/$(cat /tmp/$1.pid) ] || {
      echo "no $2 of $1"; tail -n 40 /tmp/$1.out /tmp/$1.err
      counters $1 stuck-1; sleep 5; counters $1 stuck-2
      for task in /proc/$(cat /tmp/$1.pid)/task/*; do cat $task/comm $task/stat $task/wchan $task/stack $task/syscall; done
      lodge ps; for name in $(lodge ps | sed -n '2,$s/ .*//p'); do lodge stats $name; done
      exit 1
    }
  done
}
start() {
  name=$1; shift
  mkfifo /tmp/$name.in
  sleep 100000 >/tmp/$name.in &
  "$@" </tmp/$name.in >/tmp/$name.out 2>/tmp/$name.err &
  echo $! >/tmp/$name.pid
  until_mark $name booted
  counters $name booted
}
for where in MACHINES; do
  case $where in
    qemu) start qemu /lodge/qemu -accel kvm -cpu host -machine q35 -nodefaults -no-user-config -display none -no-reboot -serial stdio -smp CPUS -m 256M \\
      -kernel /lodge/vmlinuz -initrd /lodge/guest -append 'console=ttyS0 quiet' -drive if=none,id=d,format=raw,file=/dev/vda,snapshot=on \\
      -device virtio-blk-pci,drive=d -netdev user,id=n -device virtio-net-pci,netdev=n,romfile= -device virtio-balloon-pci -device virtio-rng-pci -L /lodge/share ;;
    *) start $where lodge run --name $where --engine kvm --irqchip $where --kernel /lodge/vmlinuz --initrd /lodge/guest --memory 256M --cpus CPUS --net user \\
      --disk /dev/vda --snapshot --append 'console=ttyS0 quiet' ;;
  esac
done
round=0
while [ $round -lt ROUNDS ]; do
  round=$((round + 1))
  for step in read ping idle; do
    for name in MACHINES; do
      echo "$step $round" >/tmp/$name.in
      until_mark $name "begin $step $round"; counters $name begin-$step-$round
      until_mark $name "end $step $round"; counters $name end-$step-$round
    done
  done
done
for name in MACHINES; do echo "end 0" >/tmp/$name.in; wait $(cat /tmp/$name.pid); done
"""
ROMS = ("/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu/kvmvapic.bin",
        "/usr/share/qemu/keymaps/en-us")
# AMD APM vol. 2, appendix C.
REASONS = {0x60: "interrupt", 0x61: "nmi", 0x64: "interrupt window", 0x72: "cpuid", 0x78: "hlt", 0x7b: "port", 0x7c: "msr", 0x81: "vmmcall", 0x400: "page fault"}


def run(options):
    """What the first level's script prints."""
    first = paths.INITRD.read_bytes()
    guest = first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, GUEST.encode())])
    files = [("guest", guest)]
    files += [(f"share/{path.split('/qemu/')[-1].split('/')[-1]}", pathlib.Path(path).read_bytes())
              for path in ROMS if pathlib.Path(path).exists()]
    words = {"HUGE": "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled" if options.shared_huge_pages else "",
             "CPUS": str(options.cpus), "ROUNDS": str(options.rounds), "MACHINES": " ".join(options.machines)}
    script = re.sub("|".join(words), lambda word: words[word[0]], COUNT)
    with tempfile.TemporaryDirectory(prefix="lodge-bench-") as folder:
        disk = pathlib.Path(folder) / "disk"
        disk.write_bytes(bytes(16 << 20))
        qemu = subprocess.run(["which", "qemu-system-x86_64"], capture_output=True, text=True, check=True).stdout.strip()
        with FirstLevel(script, files=files, disks=[disk], cpus=2, memory="3G", programs=[(qemu, "qemu")]) as level:
            status, output = level.result(600)
    if status != 0:
        sys.exit(f"error: the first level's script ended with {status}:\n" + "\n".join(re.findall("^(?!hist ).*", output, re.MULTILINE)[-100:]))
    return output


def counts(output):
    """{(machine, mark): {kind: count}} of the script's output."""
    found, threads = {}, {}
    for line in output.splitlines():
        words = line.split()
        if line.startswith("threads "):
            threads[words[1], words[2]] = set(map(int, words[3:]))
        elif len(words) == 4 and words[0] in MACHINES and words[3].isdigit():
            found.setdefault((words[0], words[1]), {})[words[2]] = int(words[3])
    for machine, mark, event, keys, hits in re.findall(r"^hist (\w+) (\S+) (\w+) \{ (.*?) \} hitcount: +(\d+)", output, re.MULTILINE):
        fields = {name: number for name, number in re.findall(r"(\w+): +(\w+)", keys)}
        if int(fields["common_pid"]) not in threads.get((machine, mark), ()):
            continue
        if event == "kvm_exit":
            reason = int(fields["exit_reason"])
            kind = f"exit: {REASONS.get(reason, hex(reason))}"
        elif event == "kvm_msr":
            kind = f"msr {'write' if int(fields['write']) else 'read'}: {int(fields['ecx']):#x}"
        else:
            kind = f"vector: {int(fields['vector']):#x}"
        mine = found.setdefault((machine, mark), {})
        mine[kind] = mine.get(kind, 0) + int(hits)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--machines", nargs="+", choices=MACHINES, default=MACHINES)
    parser.add_argument("--shared-huge-pages", action="store_true", help="the first level gives shared memory huge pages on advice")
    options = parser.parse_args()
    found = counts(run(options))

    def row(title, value):
        print(f"{title:32}" + "".join(f"{value(name):10.1f}" for name in options.machines))

    def of_step(name, step, kind):
        return [(found[name, f"end-{step}-{n}"].get(kind, 0) - found[name, f"begin-{step}-{n}"].get(kind, 0)) / TIMES[step]
                for n in range(1, options.rounds + 1)]

    print(f"{'exits':32}" + "".join(f"{name:>10}" for name in options.machines))
    row("a boot", lambda name: found[name, "booted"]["exits"])
    row("a read of a disk", lambda name: statistics.median(of_step(name, "read", "exits")))
    row("a ping", lambda name: statistics.median(of_step(name, "ping", "exits")))
    row("2.5 idle seconds", lambda name: statistics.median(of_step(name, "idle", "exits")))
    for step in ("read", "ping"):
        for name in options.machines:
            print(f"rounds of a {step}, {name}: " + " ".join(f"{value:.1f}" for value in of_step(name, step, "exits")))
    kinds = sorted({kind for each in found.values() for kind in each})
    print("of a boot:")
    for kind in kinds:
        if any(found[name, "booted"].get(kind, 0) > 100 for name in options.machines):
            row(f"  {kind}", lambda name, kind=kind: found[name, "booted"].get(kind, 0))
    for step in ("read", "ping", "idle"):
        print("of the idle seconds:" if step == "idle" else f"of a {step}:")
        for kind in kinds:
            medians = {name: statistics.median(of_step(name, step, kind)) for name in options.machines}
            if any(value >= (1 if step == "idle" else 0.05) for value in medians.values()):
                row(f"  {kind}", lambda name: medians[name])  # noqa: B023


if __name__ == "__main__":
    main()
