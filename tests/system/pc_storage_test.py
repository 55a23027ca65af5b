# SPDX-License-Identifier: Apache-2.0
"""Disk controllers of PCI: firmware starts from each of them, and a guest's data is what the host has."""

import hashlib
import os
import pathlib
import tempfile

from kit import paths
from kit.boot_disk import initrd_with
from kit.boot_sector import make_sector_disk, make_sector_iso
from kit.case import main
from kit.machine import Machine, Spec

SECONDS = 240

# NVMe is part of this kernel. Each disk: read whole, written at 1 MiB, discarded or zeroed at 3 MiB; then the CD-ROM.
MODULES = ["scsi_common", "scsi_mod", "sd_mod", "cdrom", "sr_mod", "virtio_scsi"]
SCRIPT = """
for n in 1 2 3 4 5 6 7 8 9 10; do test -e /dev/nvme0n1 -a -e /dev/sdb -a -e /dev/sr0 && break; sleep 1; done
for name in nvme0n1 sda sdb; do
  case $name in  # Linux names them in the order in which it is done with them
    sda) disk=$(ls /sys/bus/scsi/devices/0:0:0:0/block);;
    sdb) disk=$(ls /sys/bus/scsi/devices/0:0:0:1/block);;
    *) disk=$name;;
  esac
  echo "$name $(dd if=/dev/$disk bs=1M 2>/dev/null | sha256sum)"
  dd if=/dev/sr0 of=/dev/$disk bs=64k count=16 seek=16 conv=fsync 2>/dev/null || exit 3
  blkdiscard -f -o 3145728 -l 65536 /dev/$disk || exit 4
done
dd if=/dev/nvme0n1 of=/dev/null bs=4k iflag=direct 2>/dev/null || exit 5
echo "cdrom $(dd if=/dev/sr0 bs=2048 2>/dev/null | sha256sum)"
echo "interrupts $(grep -c nvme0q /proc/interrupts)"
dmesg | grep -iE "nvme|sd [0-9]|sr [0-9]|error|timeout"
exit 0
"""


def a_guest_uses_nvme_and_scsi():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", MODULES, SCRIPT)
        contents = {name: os.urandom(4 << 20) for name in ("nvme0n1", "sda", "sdb")}
        cd = os.urandom(2 << 20)
        (folder / "cd").write_bytes(cd)
        options = ["--cdrom", f"{folder}/cd,bus=scsi"]
        for name, content in contents.items():
            (folder / name).write_bytes(content)
            options += ["--disk", f"{folder}/{name},bus={'nvme' if name.startswith('nvme') else 'scsi'}"]
        with Machine(Spec(initrd=folder / "initrd", cpus=2, options=tuple(options))) as machine:
            machine.console.wait_for(r"^lodge-guest: exit status 0", SECONDS)
            assert machine.wait_end(60) == 0
            text = machine.console.text
        digest = lambda data: hashlib.sha256(data).hexdigest()
        for name, content in contents.items():
            assert f"{name} {digest(content)}" in text, text[-3000:]
            now = (folder / name).read_bytes()
            assert now[1 << 20:2 << 20] == cd[:1 << 20] and now[:1 << 20] == content[:1 << 20], name
            assert now[3 << 20:(3 << 20) + 65536] == bytes(65536), f"{name}: not discarded"
        assert f"cdrom {digest(cd)}" in text, text[-3000:]
        assert "interrupts 3" in text, "an admin queue and one a CPU: " + text[-3000:]


# Two disks and a CD-ROM drive on AHCI: both disks are written at the same time, with queued commands, by several writers.
AHCI = ["crc64-rocksoft-generic", "crct10dif-generic", "sd_mod", "sr_mod", "ahci"]
AHCI_SCRIPT = """
for n in 1 2 3 4 5 6 7 8 9 10; do test -e /dev/sda -a -e /dev/sdb -a -e /dev/sr0 && break; sleep 1; done
dmesg | grep -E "ata[0-9]|ahci"
# Linux names them in the order in which it is done with them.
ln -s /dev/$(ls /sys/bus/scsi/devices/0:0:0:0/block) /sda
ln -s /dev/$(ls /sys/bus/scsi/devices/1:0:0:0/block) /sdb
for disk in sda sdb; do
  echo "depth $disk $(cat /sys/block/$disk/device/queue_depth)"
  echo "$disk $(dd if=/$disk bs=1M count=4 2>/dev/null | sha256sum)"
done
for disk in sda sdb; do
  for n in 4 5 6 7; do dd if=/dev/sr0 of=/$disk bs=16k count=64 seek=$((n * 64)) oflag=direct 2>/dev/null || echo failed & done
done
wait
dd if=/sda of=/dev/null bs=64k iflag=direct 2>/dev/null || exit 4
sync
for disk in sda sdb; do blockdev --flushbufs /$disk; done
echo "cdrom $(dd if=/dev/sr0 bs=2048 2>/dev/null | sha256sum)"
dmesg | grep -iE "error|timeout|exception|failed"
exit 0
"""


def a_guest_uses_ahci():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", AHCI, AHCI_SCRIPT, full=True)
        contents, cd = {name: os.urandom(8 << 20) for name in ("sda", "sdb")}, os.urandom(1 << 20)
        (folder / "cd").write_bytes(cd)
        options = []
        for name, content in contents.items():
            (folder / name).write_bytes(content)
            options += ["--disk", f"{folder}/{name},bus=ahci"]
        options += ["--cdrom", f"{folder}/cd,bus=ahci"]
        with Machine(Spec(kernel=paths.VMLINUZ_FULL, initrd=folder / "initrd", cpus=2, options=tuple(options),
                          append="console=ttyS0 quiet lodge.modules=no")) as machine:
            machine.console.wait_for(r"^lodge-guest: exit status 0", SECONDS)
            assert machine.wait_end(60) == 0
            text = machine.console.text
        for name, content in contents.items():
            assert f"{name} {hashlib.sha256(content[:4 << 20]).hexdigest()}" in text, text[-3000:]
            assert f"depth {name} 32" in text or f"depth {name} 31" in text, "no queued commands: " + text[-3000:]
            assert (folder / name).read_bytes() == content[:4 << 20] + 4 * cd, f"{name}: not what was written"
        assert f"cdrom {hashlib.sha256(cd).hexdigest()}" in text, text[-3000:]
        assert "NCQ" in text and "failed" not in text and "exception" not in text, text[-3000:]


def firmware_starts_each():
    """All drives are there each time; `bootindex` says which is first."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        drives = []
        for bus in ("nvme", "ahci", "scsi", "virtio", "ide"):
            make_sector_disk(folder / bus, f"started from {bus}")
            drives.append(("--disk", folder / bus, bus, f"started from {bus}"))
        for bus in ("ahci", "scsi", "ide"):
            make_sector_iso(folder / f"cd-{bus}", f"started from the CD on {bus}")
            drives.append(("--cdrom", folder / f"cd-{bus}", bus, f"started from the CD on {bus}"))
        for chosen in drives:
            options = []
            for drive in drives:
                option, path, bus, _ = drive
                options += [option, f"{path},bus={bus}" + (",bootindex=1" if drive is chosen else "")]
            with Machine(Spec(kernel=None, options=tuple(options))) as machine:
                machine.console.wait_for(r"started from .*\n", SECONDS)
                assert chosen[3] in machine.console.text, (chosen, machine.console.text)


main(a_guest_uses_nvme_and_scsi, a_guest_uses_ahci, firmware_starts_each)
