#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kvm_exits.py [--cpus N] [--shared-huge-pages]: how often a guest leaves the processor under Lodge's kvm engine (by --irqchip) and under QEMU, with the same kernel,
disk, network card and balloon, under the same KVM one level down (tests/kit/nested.py): a boot, a read of a disk, a packet
there and back. KVM itself counts, so that the load of the host changes little. Exits of a kind are KVM's own counters in debugfs."""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
from kit import paths  # noqa: E402
from kit.archive import cpio_archive  # noqa: E402
from kit.nested import FirstLevel  # noqa: E402

NAMES = ("split", "kernel", "qemu")
READS, PINGS = 512, 200
GUEST = f"""
mark() {{ echo "mark $1"; sleep 1.5; }}
ip link set eth0 up; udhcpc -i eth0 -s /etc/udhcpc.script -q -n >/dev/null 2>&1 || exit 2
mark booted
dd if=/dev/vda of=/dev/null bs=4k count={READS} iflag=direct 2>/dev/null || exit 3
mark read
ping -c {PINGS} -i 0.01 -q 10.0.2.2 | grep -q ' 0% packet loss' || exit 4
mark pinged
mark idle; sleep 6
"""
# A mark is at the guest's console; the counters are read when it comes, while the guest sleeps.
COUNT = """
mount -t debugfs none /sys/kernel/debug
HUGE
counters() { for each in /sys/kernel/debug/kvm/*; do [ -f $each ] && echo "$1 ${each##*/} $(cat $each)"; done; }
measure() {
  name=$1; shift
  rm -f /tmp/console
  "$@" </dev/null >/tmp/console 2>/tmp/errors &
  for step in booted read pinged idle; do
    tries=0
    until grep -qs "mark $step" /tmp/console; do
      sleep 0.05; tries=$((tries + 1))
      [ $tries -lt 2400 ] || { echo "no $step"; tail -n 5 /tmp/console /tmp/errors; exit 1; }
    done
    counters "$name $step"
  done
  wait $!
}
for where in split kernel; do measure $where lodge run --engine kvm --irqchip $where --kernel /lodge/vmlinuz --initrd /lodge/guest --memory 256M --cpus CPUS --net user --disk /dev/vda --snapshot --append 'console=ttyS0 quiet'; done
measure qemu /lodge/qemu -accel kvm -cpu host -machine q35 -nodefaults -no-user-config -display none -no-reboot -serial stdio -smp CPUS -m 256M \\
  -kernel /lodge/vmlinuz -initrd /lodge/guest -append 'console=ttyS0 quiet' -drive if=none,id=d,format=raw,file=/dev/vda,snapshot=on \\
  -device virtio-blk-pci,drive=d -netdev user,id=n -device virtio-net-pci,netdev=n,romfile= -device virtio-balloon-pci -device virtio-rng-pci -L /lodge/share
"""
ROMS = ("/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu/kvmvapic.bin",
        "/usr/share/qemu/keymaps/en-us")


def measure(cpus, huge):
    first = paths.INITRD.read_bytes()
    guest = first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, GUEST.encode())])
    files = [("guest", guest)]
    files += [(f"share/{path.split('/qemu/')[-1].split('/')[-1]}", pathlib.Path(path).read_bytes())
              for path in ROMS if pathlib.Path(path).exists()]
    advise = "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled" if huge else ""
    script = COUNT.replace("CPUS", str(cpus)).replace("HUGE", advise)
    with tempfile.TemporaryDirectory(prefix="lodge-bench-") as folder:
        disk = pathlib.Path(folder) / "disk"
        disk.write_bytes(bytes(16 << 20))
        qemu = subprocess.run(["which", "qemu-system-x86_64"], capture_output=True, text=True, check=True).stdout.strip()
        with FirstLevel(script, files=files, disks=[disk], cpus=2, memory="3G", programs=[(qemu, "qemu")]) as level:
            status, output = level.result(500)
    if status != 0:
        sys.exit(f"error: the first level's script ended with {status}:\n{output[-2000:]}")
    counts = {}
    for name, step, kind, count in re.findall(r"^(split|kernel|qemu) (\w+) (\w+) (\d+)$", output, re.MULTILINE):
        counts.setdefault((name, step), {})[kind] = int(count)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--shared-huge-pages", action="store_true", help="the first level gives shared memory huge pages on advice")
    arguments = parser.parse_args()
    counts = measure(arguments.cpus, arguments.shared_huge_pages)
    print(f"{'exits':22}" + "".join(f"{name:>10}" for name in NAMES))

    def row(title, value):
        print(f"{title:22}" + "".join(f"{value(name):10.1f}" for name in NAMES))

    row("a boot", lambda name: counts[name, "booted"]["exits"])
    row("a read of a disk", lambda name: (counts[name, "read"]["exits"] - counts[name, "booted"]["exits"]) / READS)
    row("a ping", lambda name: (counts[name, "pinged"]["exits"] - counts[name, "read"]["exits"]) / PINGS)
    row("1.5 idle seconds", lambda name: counts[name, "idle"]["exits"] - counts[name, "pinged"]["exits"])
    print("of a boot:")
    kinds = sorted({kind for kinds in counts.values() for kind in kinds if kind.endswith("_exits") or kind in ("pf_taken", "hypercalls")})
    for kind in kinds:
        if any(counts[name, "booted"].get(kind, 0) > 50 for name in NAMES):
            row(f"  {kind}", lambda name, kind=kind: counts[name, "booted"].get(kind, 0))


if __name__ == "__main__":
    main()
