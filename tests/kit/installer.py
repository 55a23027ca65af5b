# SPDX-License-Identifier: Apache-2.0
"""CD-ROMs with the Debian installer of the package debian-installer-12-netboot-amd64."""

import pathlib
import shutil
import subprocess
import tempfile

from kit.boot_disk import GRUB, need
from kit.case import Skip

IMAGES = pathlib.Path("/usr/lib/debian-installer/images/12/amd64")
GRUB_CONFIG = """insmod all_video
set gfxmode=1024x768
set gfxpayload=1024x768x32
terminal_output gfxterm
set timeout=0
linux /install/linux {arguments} --- quiet
initrd /install/initrd.gz
boot
"""


def make_installer_iso(path, kind, arguments="", more=b""):
    """`kind`: text or gtk; `arguments`: of the kernel; `more`: a cpio archive over the installer's initramfs."""
    folder = IMAGES / kind / "debian-installer/amd64"
    if not folder.exists():
        raise Skip("the host has no package debian-installer-12-netboot-amd64")
    need("grub-mkrescue", "xorriso", "mformat", GRUB / "boot.img")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as tree:
        tree = pathlib.Path(tree)
        (tree / "install").mkdir()
        (tree / "boot/grub").mkdir(parents=True)
        (tree / "boot/grub/grub.cfg").write_text(GRUB_CONFIG.format(arguments=arguments))
        shutil.copy(folder / "linux", tree / "install/linux")
        initrd = (folder / "initrd.gz").read_bytes()
        (tree / "install/initrd.gz").write_bytes(initrd + bytes(-len(initrd) % 4) + more if more else initrd)
        subprocess.run(["grub-mkrescue", "-d", GRUB, "-o", path, tree], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
