# SPDX-License-Identifier: Apache-2.0
"""Floppy disks: firmware starts from one; Linux's driver reads and writes one, and sees that another is put in."""

import hashlib
import pathlib
import tempfile

from kit import paths
from kit.boot_disk import initrd_with, make_boot_disk
from kit.boot_sector import boot_sector
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 240
BYTES = 1440 * 1024
SCRIPT = """
mknod /tmp/fd b 2 0
sum() { dd if=/tmp/fd bs=18k 2>/dev/null | md5sum | cut -d ' ' -f 1; }
echo "floppy: $(sum)"
printf written >/tmp/word
dd if=/tmp/word of=/tmp/fd bs=512 seek=100 conv=notrunc,fsync 2>/dev/null
echo "floppy: wrote"
read line </dev/console
echo "floppy: $(sum)"
sleep 600
"""


def firmware_starts_a_floppy():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        image = pathlib.Path(folder) / "boot.img"
        image.write_bytes(boot_sector("from a floppy disk").ljust(BYTES, b"\0"))
        with Machine(Spec(kernel=None, options=("--floppy", str(image)))) as machine:
            machine.console.wait_for("from a floppy disk", SECONDS)


def linux_reads_and_writes():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        images = [folder / "first.img", folder / "second.img"]
        for number, image in enumerate(images):
            image.write_bytes(b"".join((7919 * n + number).to_bytes(8, "little") for n in range(BYTES // 8)))
        sums = [hashlib.md5(image.read_bytes()).hexdigest() for image in images]
        initrd_with(folder / "initrd", ["floppy"], SCRIPT, full=True)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd", kernel=paths.VMLINUZ_FULL)
        with Machine(Spec(kernel=None, disks=[Disk(folder / "disk.img", ide=True)], snapshot=False,
                          options=("--boot", "c", "--floppy", str(images[0])))) as machine:
            machine.console.wait_for(f"floppy: {sums[0]}", SECONDS)
            machine.console.wait_for("floppy: wrote", 60)
            assert images[0].read_bytes()[51200:51207] == b"written"
            machine.lodge("insert", machine.name, "floppy0", str(images[1]))
            machine.console.send("\n")
            machine.console.wait_for(f"floppy: {sums[1]}", 120)


main(firmware_starts_a_floppy, linux_reads_and_writes)
