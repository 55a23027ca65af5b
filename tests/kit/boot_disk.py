# SPDX-License-Identifier: Apache-2.0
"""Disks that firmware starts: a partition table, GRUB, a kernel. Made without privileges from Debian's packages."""

import os
import pathlib
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile

from kit import paths
from kit.archive import cpio_archive
from kit.case import Skip

GRUB = pathlib.Path("/usr/lib/grub/i386-pc")
SIGNED_GRUB = pathlib.Path("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")
SIGNED_SHIM = pathlib.Path("/usr/lib/shim/shimx64.efi.signed")
SECTOR = 512
FIRST_PARTITION = 2048   # sectors, as all partitioning tools do it: GRUB's core goes between
MODULES = "biosdisk part_msdos ext2 normal linux serial terminal echo configfile test".split()


def need(*programs):
    """Skips the test where the host lacks what makes its disk."""
    for program in programs:
        if not (shutil.which(program) or os.path.exists(program)):
            raise Skip(f"the host has no {program}")


def grub_config(kernel_arguments, timeout=0):
    return f"""serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout={timeout}
echo "grub: loading"
linux /boot/vmlinuz {kernel_arguments}
initrd /boot/initrd.img
echo "grub: starting"
boot
"""


def make_boot_disk(path, kernel_arguments="console=ttyS0 quiet", initrd=paths.INITRD, root=None, size=96 << 20,
                   kernel=paths.VMLINUZ, config=None):
    """A disk with an ext2 partition of GRUB, the kernel and `initrd`, with this GRUB configuration if one is given; and
    `root`, a file system's image, as its second partition, if given."""
    need("grub-mkimage", "/sbin/mke2fs", GRUB / "boot.img")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        boot = folder / "tree/boot"
        (boot / "grub").mkdir(parents=True)
        shutil.copy(kernel, boot / "vmlinuz")
        shutil.copy(initrd, boot / "initrd.img")
        if kernel == paths.VMLINUZ_FULL:   # the initramfs has the other kernel's modules
            kernel_arguments += " lodge.modules=no"
        (boot / "grub/grub.cfg").write_text(config or grub_config(kernel_arguments))
        partition = folder / "partition"
        with open(partition, "wb") as file:
            file.truncate(size - FIRST_PARTITION * SECTOR)
        subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext2", "-d", folder / "tree", partition], check=True,
                       stdin=subprocess.DEVNULL)
        core = folder / "core.img"
        subprocess.run(["grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "(hd0,msdos1)/boot/grub", *MODULES], check=True)
        _assemble(path, partition, core, root, size)


def make_boot_iso(path, kernel_arguments="console=ttyS0 quiet", initrd=paths.INITRD, config=None):
    """A CD-ROM with GRUB, the kernel and `initrd`; or with this GRUB configuration."""
    need("grub-mkrescue", "xorriso", "mformat", GRUB / "boot.img")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        boot = pathlib.Path(folder) / "boot"
        (boot / "grub").mkdir(parents=True)
        shutil.copy(paths.VMLINUZ, boot / "vmlinuz")
        shutil.copy(initrd, boot / "initrd.img")
        (boot / "grub/grub.cfg").write_text(config or grub_config(kernel_arguments))
        subprocess.run(["grub-mkrescue", "-d", GRUB, "-o", path, folder], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)


def make_efi_disk(path, kernel_arguments="console=ttyS0 quiet", initrd=paths.INITRD, kernel=paths.VMLINUZ, shim=True, root=None,
                  size=96 << 20):
    """A disk with an EFI system partition: shim, GRUB as Debian signs it, the kernel and `initrd`; without `shim`, GRUB is
    what firmware starts; and `root`, a file system's image, as its second partition, if given."""
    need("mformat", "mcopy", SIGNED_GRUB, *([SIGNED_SHIM] if shim else []))
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        (folder / "grub.cfg").write_text(f"""set timeout=0
echo "grub: starting"
linux /vmlinuz {kernel_arguments}
initrd /initrd.img
boot
""")
        files = {"vmlinuz": kernel, "initrd.img": initrd, "EFI/debian/grub.cfg": folder / "grub.cfg"}
        if shim:
            files |= {"EFI/BOOT/BOOTX64.EFI": SIGNED_SHIM, "EFI/BOOT/grubx64.efi": SIGNED_GRUB}
        else:
            files |= {"EFI/BOOT/BOOTX64.EFI": SIGNED_GRUB}
        make_fat_disk(path, files, size, root)


def make_fat_disk(path, files, size=96 << 20, root=None):
    """A disk with an EFI system partition with these files, by their names there; and `root` as its second one, if given."""
    need("mformat", "mcopy")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        partition = pathlib.Path(folder) / "partition"
        sectors = size // SECTOR - FIRST_PARTITION
        with open(partition, "wb") as file:
            file.truncate(sectors * SECTOR)
        subprocess.run(["mformat", "-i", partition, "-F", "-T", str(sectors), "::"], check=True)
        made = set()
        for name, source in files.items():
            for parent in [str(p) for p in reversed(pathlib.PurePosixPath(name).parents)][1:]:
                if parent not in made:
                    subprocess.run(["mmd", "-i", partition, f"::{parent}"], check=True)
                    made.add(parent)
            subprocess.run(["mcopy", "-i", partition, source, f"::{name}"], check=True)
        first = bytearray(SECTOR)
        first[446:462] = _entry(FIRST_PARTITION, sectors, kind=0xef)
        if root:
            first[462:478] = _entry(FIRST_PARTITION + sectors, root.stat().st_size // SECTOR)
        first[510:512] = b"\x55\xaa"
        with open(path, "wb") as disk:
            disk.write(first)
            disk.seek(FIRST_PARTITION * SECTOR)
            with open(partition, "rb") as file:
                shutil.copyfileobj(file, disk, 1 << 20)
    if root:
        _append(path, root, size)


def _module_name(text):
    """As the kernel knows it: modinfo, file names and modprobe mix '-' and '_'."""
    return text.replace("-", "_")


def _with_dependencies(modules, read):
    """`modules` in their order, each behind what it needs; `read` gives a module's file by its name."""
    ordered = []

    def add(name):
        if name in ordered:
            return
        found = re.search(rb"\0depends=([^\0]*)\0", read(name))
        for other in found.group(1).decode().split(",") if found else ():
            if other:
                add(_module_name(other))
        ordered.append(name)
    for name in modules:
        add(_module_name(name))
    return ordered


def initrd_with(path, modules=(), script=None, full=False, load=True):
    """The initramfs with these of the kernel's modules, and those that they depend on, loaded in their order, before its
    shell, or before `script`. `full`: the modules are those of paths.VMLINUZ_FULL. Without `load` the script finds them
    in /lodge, by the names that are given here."""
    entries = []
    archive = paths.GUEST / ("modules-full.tar" if full else "modules.tar")
    if not archive.exists():
        raise Skip(f"there is no {archive}: tools/make-guest kernel-full makes it")
    with tarfile.open(archive) as tar:
        members = {_module_name(pathlib.PurePath(m.name).stem): m for m in tar if m.name.endswith(".ko")}

        def read(name):
            if _module_name(name) not in members:
                raise Skip(f"the guest's kernel has no module {name}")
            return tar.extractfile(members[_module_name(name)]).read()
        if load:
            modules = _with_dependencies(modules, read)
        for name in modules:
            entries.append((f"lodge/{name}.ko", 0o644, read(name)))
    lines = [f"insmod /lodge/{name}.ko || echo no module {name}" for name in modules if load]
    entries.append(("lodge/run", 0o755, "\n".join([*lines, script or "exec sh </dev/console >/dev/console 2>&1"]).encode()))
    first = paths.INITRD.read_bytes()
    path.write_bytes(first + bytes(-len(first) % 4) + cpio_archive(entries))


def _assemble(path, partition, core, root, size):
    first = bytearray((GRUB / "boot.img").read_bytes())
    sectors = size // SECTOR - FIRST_PARTITION
    first[446:510] = bytes(64)
    first[446:462] = _entry(FIRST_PARTITION, sectors, bootable=True)
    if root:
        first[462:478] = _entry(FIRST_PARTITION + sectors, root.stat().st_size // SECTOR)
    first[510:512] = b"\x55\xaa"
    image = bytearray(core.read_bytes())
    image += bytes(-len(image) % SECTOR)
    assert len(image) < (FIRST_PARTITION - 1) * SECTOR
    # The first sector of the core loads the rest: start, count, segment (GRUB's diskboot.S).
    struct.pack_into("<QHH", image, SECTOR - 12, 2, len(image) // SECTOR - 1, 0x820)
    with open(path, "wb") as disk:
        disk.write(first)
        disk.write(image)
        disk.seek(FIRST_PARTITION * SECTOR)
        disk.write(partition.read_bytes())
        disk.truncate(size)
    if root:
        _append(path, root, size)


def _append(path, image, at):
    """An image's content at this place of the disk, its holes as holes."""
    subprocess.run(["dd", f"if={image}", f"of={path}", "bs=1M", f"seek={at >> 20}", "conv=sparse,notrunc", "status=none"],
                   check=True)
    os.truncate(path, at + image.stat().st_size)


def _entry(start, count, bootable=False, kind=0x83):
    """A partition table's entry; the cylinder-head-sector fields say that only the sector numbers count."""
    chs = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", 0x80 if bootable else 0, chs, kind, chs, start, count)
