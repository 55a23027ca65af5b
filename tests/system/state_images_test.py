# SPDX-License-Identifier: Apache-2.0
"""Saved machines with disks of all formats, whose images are written when they are closed, not only when they are flushed: lazy
refcounts, discards, dirty bitmaps, VHDX's log. Restoring finds the files as the state says; the images are whole.

    state_images_test.py"""

import os
import pathlib
import subprocess
import tempfile

from kit import paths
from kit.case import main
from kit.machine import Disk, Machine, Spec

from state_test import Restored, make_disk, with_script

# What each disk is made with, and whether it has an overlay with a dirty bitmap over it.
KINDS = {"raw": (), "qcow2": ("-o", "lazy_refcounts=on"), "vhdx": ("-o", "block_size=1M"), "vmdk": (), "vdi": (), "vhd": ()}

# Every round each disk's file system gets a file and loses one, with discards, and the file is compared; TEXT stands at the
# beginning of a disk whose format nobody named.
SCRIPT = """
for disk in DISKS; do mkdir /$disk; mount -t ext4 -o discard /dev/$disk /$disk || echo "BROKEN mount $disk"; done
dd if=/dev/FROM of=/dev/TO bs=64k count=16 2>/dev/null; sync
n=0
while true; do
  n=$((n + 1))
  dd if=/dev/urandom of=/tmp/data bs=64k count=4 2>/dev/null
  for disk in DISKS; do
    cp /tmp/data /$disk/file.$((n % 4)); rm -f /$disk/file.$(((n + 2) % 4))
  done
  sync; echo 3 >/proc/sys/vm/drop_caches
  for disk in DISKS; do cmp -s /tmp/data /$disk/file.$((n % 4)) || echo "BROKEN file $disk"; done
  dd if=/dev/FROM bs=64k count=16 2>/dev/null >/tmp/from; dd if=/dev/TO bs=64k count=16 2>/dev/null >/tmp/to
  cmp -s /tmp/from /tmp/to || echo "BROKEN the disk without a named format"
  echo "round $n $(cat /sys/block/LAST/stat) end"
done
"""


def lodge(*arguments):
    done = subprocess.run([paths.LODGE, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    return done.stdout


def make_disks(folder):
    """A disk of each kind, a raw one that holds a qcow2 header, and an empty one; the options that name them."""
    disks = []
    make_disk(folder / "made", 32 << 20)
    for kind, options in KINDS.items():
        disk = folder / f"disk.{kind}"
        lodge("image", "convert", "-f", "raw", "-O", kind, *options, folder / "made", disk)
        disks.append(Disk(disk))
    lodge("image", "create", "-q", "-f", "qcow2", "-b", folder / "disk.vdi", "-F", "vdi", folder / "over.qcow2")
    lodge("image", "bitmap", "--add", folder / "over.qcow2", "changes")
    disks[list(KINDS).index("vdi")] = Disk(folder / "over.qcow2")
    lodge("image", "create", "-q", "-f", "qcow2", folder / "header", "64M")
    os.truncate(folder / "header", 1 << 20)
    (folder / "plain").write_bytes(bytes(1 << 20))
    return disks, ("--disk", f"{folder}/header,format=raw", "--disk", str(folder / "plain"))


def rounds(machine, number):
    for _ in range(number):
        match = machine.console.wait_for(r"^round (\d+) +(.*) end\b", 240)
        assert "BROKEN" not in machine.console.text, machine.console.tail()
    return int(match.group(1)), [int(field) for field in match.group(2).split()]


def images_are_whole(folder):
    for name in ("disk.qcow2", "over.qcow2", "disk.vhdx", "disk.vmdk", "disk.vhd"):
        said = lodge("image", "info", folder / name) + lodge("image", "check", folder / name)
        assert "dirty" not in said and "in-use" not in said and "No errors" in said, said


def disks_of_all_formats_go_on():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as name:
        folder = pathlib.Path(name)
        disks, options = make_disks(folder)
        letters = [f"vd{letter}" for letter in "abcdefgh"]
        script = SCRIPT.replace("DISKS", " ".join(letters[:len(disks)])).replace("FROM", letters[-2]).replace("TO", letters[-1])
        spec = Spec(initrd=with_script(folder, script.replace("LAST", letters[1])), append="console=ttyS0 quiet", disks=disks,
                    memory="256M", cpus=2, options=options)
        state = folder / "state"
        with Machine(spec) as machine:
            last, fields = rounds(machine, 3)
            assert fields[11] > 0, f"nothing was discarded: {fields}"
            machine.lodge("save", machine.name, str(folder / "early"), "--keep-running", timeout=120)
            # The machine goes on with images that were brought to rest.
            last, _ = rounds(machine, 3)
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
        images_are_whole(folder)
        for _ in range(2):
            with Restored(state) as machine:
                first, _ = rounds(machine, 3)
                assert first > last, (first, last)
                last, _ = rounds(machine, 1)
                machine.lodge("save", machine.name, str(state), timeout=120)
                assert machine.wait_end(30) == 0, machine.errors
            images_are_whole(folder)


if __name__ == "__main__":
    main(disks_of_all_formats_go_on)
