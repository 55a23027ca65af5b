# SPDX-License-Identifier: Apache-2.0
"""32-bit guests on the pc board, started by firmware: i386_test.py 686|pae|debian. Debian's kernels without PAE and with
it come up to the shell of their initramfs; Debian for i386 comes up from its disk to a login."""

import pathlib
import sys
import tempfile

from kit import paths
from kit.boot_disk import make_boot_disk
from kit.case import Skip, main
from kit.machine import Disk, Machine, Spec

SECONDS = 240
# 32-bit arithmetic, memory, the FPU, processes and signals, in programs of this size.
COMMANDS = ["test $(uname -m) = i686", "test -e /dev/vda1", "sh -c 'kill -USR1 $$; exit 1' || test $? = 138",
            "dd if=/dev/urandom of=/tmp/a bs=64k count=64 2>/dev/null && gzip -c /tmp/a | gunzip | cmp - /tmp/a",
            "test $(echo '2 64 ^ 10 / p' | dc | cut -c1-10) = 1844674407",
            "for n in $(seq 200); do (exit 3); test $? = 3 || exit 1; done",
            "test $(seq 20000 | sha1sum | cut -c1-8) = 49972ff1"]


def part(name):
    made_by = "debian-i386" if "debian" in name else "i386-pae" if "pae" in name else "i386"
    path = paths.GUEST / name
    if not path.exists():
        raise Skip(f"{path} is not there; tools/make-guest {made_by} makes it")
    return path


def check(machine, *commands, seconds=120):
    for command in commands:
        machine.console.check(command, seconds)


def a_kernel(flavour):
    def test():
        with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
            disk = pathlib.Path(folder) / "disk.img"
            make_boot_disk(disk, kernel=part(f"vmlinuz-{flavour}"), initrd=part(f"initrd-{flavour}.img"))
            with Machine(Spec(kernel=None, disks=[Disk(disk)], memory="256M", cpus=1, snapshot=True)) as machine:
                machine.console.wait_for("lodge-guest: ready", SECONDS)
                check(machine, f"uname -r | grep -q -- '-{flavour}$'", *COMMANDS)
                machine.console.send("poweroff -f\n")
                assert machine.wait_end(60) == 0
    test.__name__ = f"a_kernel {flavour}"
    return test


def debian():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk.img"
        make_boot_disk(disk, kernel=part("vmlinuz-686-pae"), initrd=part("initrd-686-pae.img"),
                       root=part("debian-i386.ext4"), kernel_arguments="console=ttyS0 root=/dev/vda2 rw")
        with Machine(Spec(kernel=None, disks=[Disk(disk)], memory="512M", cpus=2, snapshot=True)) as machine:
            machine.console.wait_for("root@lodge:~# ", 600)
            machine.console.send("stty -echo; export PS1= TERM=dumb\n")
            check(machine, "test $(dpkg --print-architecture) = i386", "systemctl is-system-running --wait",
                  "test $(nproc) = 2", "python3 -c 'import sys; assert sys.maxsize == 2**31 - 1'", "findmnt -n / | grep -q vda2")
            machine.console.send("poweroff\n")
            assert machine.wait_end(120) == 0


main(*({"686": [a_kernel("686")], "pae": [a_kernel("686-pae")], "debian": [debian]}[sys.argv[1]]))
