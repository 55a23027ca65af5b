# SPDX-License-Identifier: Apache-2.0
"""memtest86+ on the pc board: GRUB starts it, and a whole pass over a small machine's memory finds nothing."""

import pathlib
import tempfile

from kit.boot_disk import make_boot_disk, need
from kit.case import main
from kit.machine import Disk, Machine, Spec

CONFIG = """serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
linux /boot/vmlinuz console=ttyS0,115200
boot
"""


def a_pass_without_errors(program):
    def test():
        need(program)
        with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
            disk = pathlib.Path(folder) / "disk.img"
            make_boot_disk(disk, kernel=program, config=CONFIG)
            with Machine(Spec(kernel=None, disks=[Disk(disk)], memory="24M", snapshot=True)) as machine:
                machine.console.wait_for(r"Memtest86\+", 120)
                # 20 seconds of a processor, and 160 for which the last test lets the memory rest; much more on a busy host.
                machine.console.wait_for(r"Pass:  1 +Errors: 0 ", 1400)
    test.__name__ = f"a_pass_without_errors {program.name}"
    return test


main(*(a_pass_without_errors(pathlib.Path(f"/boot/memtest86+{kind}.bin")) for kind in ("x64", "ia32")))
