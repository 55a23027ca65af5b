# SPDX-License-Identifier: Apache-2.0
"""A machine without disks and without graphics starts from the network: SeaBIOS and iPXE on the serial port, an address by
DHCP, a script, a kernel and its initramfs by TFTP from the user network."""

import pathlib
import shutil
import tempfile

from kit import paths
from kit.boot_disk import need
from kit.case import main
from kit.machine import Machine, Spec

SECONDS = 240
SCRIPT = """#!ipxe
echo script: ${net0/ip}
kernel tftp://10.0.2.2/vmlinuz console=ttyS0 quiet initrd=initrd.img
initrd tftp://10.0.2.2/initrd.img
boot
"""


def ipxe_starts_linux():
    need("/usr/lib/ipxe/qemu/pxe-virtio.rom")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        (folder / "start.ipxe").write_text(SCRIPT)
        shutil.copy(paths.VMLINUZ, folder / "vmlinuz")
        shutil.copy(paths.INITRD, folder / "initrd.img")
        with Machine(Spec(kernel=None, net=f"user,tftp={folder},bootfile=start.ipxe",
                          options=("--board", "pc", "--vga", "none", "--boot", "n"))) as machine:
            for text in ("SeaBIOS", "iPXE", r"script: 10\.0\.2\.15", "/ # "):
                machine.console.wait_for(text, SECONDS)
            machine.console.send("ls /sys/class/graphics; poweroff -f\n")
            assert machine.wait_end(60) == 0


main(ipxe_starts_linux)
