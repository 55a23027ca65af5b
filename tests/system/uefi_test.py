# SPDX-License-Identifier: Apache-2.0
"""UEFI firmware (OVMF) on the pc board: its shell, and shim and GRUB to the kernel."""

import contextlib
import os
import pathlib
import subprocess
import tempfile

from kit import paths
from kit.boot_disk import make_efi_disk, make_fat_disk, need
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 240
SECURE = pathlib.Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
OVMF = pathlib.Path("/usr/share/OVMF/OVMF_CODE_4M.fd")


@contextlib.contextmanager
def folder():
    need(OVMF)
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as path:
        yield pathlib.Path(path)


def uefi(*disks, **options):
    return Machine(Spec(kernel=None, disks=list(disks), **options))


def the_shell_keeps_a_variable():
    """What the shell is told to keep goes into the file of variables, and is there after the next start."""
    with folder() as here:
        variables = here / "variables.fd"
        (here / "startup.nsh").write_text('setvar LodgeTest -guid 6d1dc5b1-9b4b-4d50-8f19-0f0ad2f0d2f1 -nv -bs =L"kept it"\r\n'
                                          "memmap\r\nmap -r\r\nreset -s\r\n")
        make_fat_disk(here / "disk.img", {"startup.nsh": here / "startup.nsh"}, 40 << 20)
        with uefi(Disk(here / "disk.img"), snapshot=False, options=("--uefi-vars", str(variables))) as machine:
            machine.console.wait_for("UEFI Interactive Shell", SECONDS)
            assert machine.wait_end(SECONDS) == 0, machine.console.text[-2000:]
        assert variables.stat().st_size == 540672
        assert "kept it".encode("utf-16-le") in variables.read_bytes()
        (here / "startup.nsh").write_text("setvar LodgeTest -guid 6d1dc5b1-9b4b-4d50-8f19-0f0ad2f0d2f1\r\nreset -s\r\n")
        make_fat_disk(here / "disk.img", {"startup.nsh": here / "startup.nsh"}, 40 << 20)
        with uefi(Disk(here / "disk.img"), snapshot=False, options=("--uefi-vars", str(variables))) as machine:
            machine.console.wait_for(r"6B 00 65 00 70 00 74 00", SECONDS)
            assert machine.wait_end(60) == 0


def grub_starts_linux():
    with folder() as here:
        make_efi_disk(here / "disk.img", shim=False)
        with uefi(Disk(here / "disk.img"), snapshot=True, cpus=2, options=("--firmware", "uefi")) as machine:
            machine.console.wait_for("grub: starting", SECONDS)
            machine.console.wait_for("lodge-guest: ready", SECONDS)
            for command in ["test -d /sys/firmware/efi", "test $(grep -c ^processor /proc/cpuinfo) = 2",
                            "test -e /sys/firmware/acpi/tables/FACP", "test -e /dev/vda1",
                            "test $(cat /sys/class/dmi/id/sys_vendor) = Lodge"]:
                machine.console.check(command, 60)


def secure_boot_starts_what_is_signed():
    """shim, GRUB and the kernel are Debian's, signed; the kernel says what the firmware told it."""
    with folder() as here:
        need(SECURE)
        make_efi_disk(here / "disk.img", kernel_arguments="console=ttyS0")
        with uefi(Disk(here / "disk.img"), snapshot=True, cpus=2, options=("--secure-boot",)) as machine:
            machine.console.wait_for("grub: starting", SECONDS)
            machine.console.wait_for("lodge-guest: ready", SECONDS)
            assert "Secure boot enabled" in machine.console.text, machine.console.text[-4000:]
            assert "is disabled due to lockdown" in machine.console.text or "Kernel is locked down" in machine.console.text
            for command in ["grep -q 29c0 /sys/bus/pci/devices/0000:00:00.0/device",
                            "test $(grep -c ^processor /proc/cpuinfo) = 2",
                            "dmesg | grep -q 'b0000000'"]:
                machine.console.check(command, 60)


def secure_boot_refuses_what_is_not_signed():
    """A kernel with one bit changed: GRUB says so, and does not start it."""
    with folder() as here:
        need(SECURE)
        kernel = bytearray(paths.VMLINUZ.read_bytes())
        kernel[len(kernel) // 2] ^= 1
        (here / "vmlinuz").write_bytes(kernel)
        make_efi_disk(here / "disk.img", kernel=here / "vmlinuz")
        with uefi(Disk(here / "disk.img"), snapshot=True, options=("--secure-boot",)) as machine:
            machine.console.wait_for("bad shim signature", SECONDS)
            assert "Linux version" not in machine.console.text and "lodge-guest" not in machine.console.text


def bad_flash_images():
    with folder() as here:
        (here / "odd.fd").write_bytes(bytes(5000))
        for options, word in ((["--pflash", str(here / "odd.fd")], "5000 bytes"),
                              (["--pflash", str(here / "none.fd")], "none.fd"),
                              (["--bios", "x", "--firmware", "uefi"], "more than one kind of firmware"),
                              (["--uefi-vars", str(here / "v.fd"), "--firmware", "bios"], "--uefi-vars")):
            result = subprocess.run([paths.LODGE, "run", "--board", "pc", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                    timeout=60, env=dict(os.environ, XDG_RUNTIME_DIR=str(here)))
            assert result.returncode == 2 and word in result.stderr, (result.returncode, result.stderr)


main(the_shell_keeps_a_variable, grub_starts_linux, secure_boot_starts_what_is_signed,
     secure_boot_refuses_what_is_not_signed, bad_flash_images)
