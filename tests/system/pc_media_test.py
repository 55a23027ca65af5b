# SPDX-License-Identifier: Apache-2.0
"""Media are changed while a machine runs: the guest sees the new one, and can keep the one that it uses."""

import hashlib
import os
import pathlib
import subprocess
import tempfile

from kit import paths
from kit.boot_disk import initrd_with, make_boot_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec, runtime_environment

SECONDS = 240
ATA = ["scsi_common", "scsi_mod", "libata", "ata_piix", "sd_mod", "cdrom", "sr_mod"]
DIGEST = "dd if=/dev/sr0 bs=2048 2>/dev/null | sha256sum"


def run(machine, command, expected):
    machine.console.send(f"{command}; echo an''swer\n")
    machine.console.wait_for(expected, 60)
    machine.console.wait_for("answer\n", 60)


def lodge_fails(machine, *arguments):
    done = subprocess.run([paths.LODGE, *arguments], env=runtime_environment(machine.runtime), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=30)
    assert done.returncode != 0, arguments
    return done.stderr


def a_guest_sees_another_cdrom():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", ATA)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd")
        contents = [os.urandom(2 << 20), os.urandom(1 << 20)]
        digests = [hashlib.sha256(c).hexdigest() for c in contents]
        for number, content in enumerate(contents):
            (folder / f"cd{number}.iso").write_bytes(content)
        with Machine(Spec(kernel=None, disks=[Disk(folder / "disk.img", ide=True)], snapshot=True,
                          options=("--cdrom", str(folder / "cd0.iso"), "--cdrom", "none"))) as machine:
            machine.console.wait_for("lodge-guest: ready", SECONDS)
            run(machine, "while ! test -e /dev/sr0; do sleep 1; done; " + DIGEST, digests[0])
            machine.lodge("insert", machine.name, "cd0", str(folder / "cd1.iso"))
            run(machine, DIGEST, digests[1])
            machine.lodge("eject", machine.name)
            run(machine, "dd if=/dev/sr0 of=/dev/null count=1", "No medium found")
            machine.lodge("insert", machine.name, "cd1", str(folder / "cd0.iso"))
            run(machine, DIGEST.replace("sr0", "sr1"), digests[0])
            # An open drive is locked.
            machine.console.check("exec 5</dev/sr1", 60)
            assert "locked" in lodge_fails(machine, "eject", machine.name, "cd1")
            machine.lodge("eject", "--force", machine.name, "cd1")
            assert "cd0, cd1" in lodge_fails(machine, "eject", machine.name, "cd7")
            missing = lodge_fails(machine, "insert", machine.name, "cd0", str(folder / "missing.iso"))
            assert "missing.iso" in missing, missing


main(a_guest_sees_another_cdrom)
