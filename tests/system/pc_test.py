# SPDX-License-Identifier: Apache-2.0
"""The pc board: firmware starts what lies on disks."""

import contextlib
import hashlib
import os
import pathlib
import socket
import struct
import subprocess
import tempfile
import time

from kit import paths
from kit.boot_disk import initrd_with, make_boot_disk, make_boot_iso
from kit.boot_sector import make_sector_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 240


@contextlib.contextmanager
def boot_disk(**options):
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        path = pathlib.Path(folder) / "disk.img"
        make_boot_disk(path, **options)
        yield path


def pc(*disks, **options):
    return Machine(Spec(kernel=None, disks=list(disks), **options))


def check_boot(machine, *commands):
    """GRUB on the serial console, then the kernel, then the shell of the initramfs."""
    machine.console.wait_for("grub: starting", SECONDS)
    machine.console.wait_for("lodge-guest: ready", SECONDS)
    for command in commands:
        machine.console.check(command, 60)


def firmware_starts_a_disk_on_virtio():
    with boot_disk() as disk:
        with pc(Disk(disk), cpus=2, snapshot=True, options=("--trace", "firmware")) as machine:
            check_boot(machine, "grep -q 1237 /sys/bus/pci/devices/0000:00:00.0/device",
                       "test $(grep -c ^processor /proc/cpuinfo) = 2", "test -e /dev/vda1",
                       "test -e /sys/firmware/acpi/tables/FACP",
                       "test $(cat /sys/class/dmi/id/sys_vendor) = Lodge")
            machine.reset()
            check_boot(machine)
            assert "Booting from Hard Disk" in machine.errors, machine.errors
            machine.console.send("poweroff -f\n")
            assert machine.wait_end(60) == 0


def png_size(path):
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])


def screen_and_keyboard():
    """GRUB on the screen, with input from the keyboard; what it is told to say comes out of the serial port."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        iso = folder / "boot.iso"
        make_boot_iso(iso, config="serial --unit=0\nterminal_input console\nset timeout=-1\n"
                      "terminal_output console serial\necho ready to type\n")
        with pc(options=("--cdrom", str(iso))) as machine:
            machine.console.wait_for("grub>", SECONDS)
            machine.lodge("screenshot", machine.name, str(folder / "before.png"))
            machine.lodge("type", "--enter", machine.name, "set a='Hello, {World} ~ 9'")
            machine.lodge("type", machine.name, 'echo "[$a]"')
            machine.lodge("sendkey", machine.name, "ret")
            machine.console.wait_for(r"\[Hello, \{World\} ~ 9\]", 60)
            machine.lodge("screenshot", machine.name, str(folder / "after.png"))
            assert png_size(folder / "before.png") == png_size(folder / "after.png") == (720, 400)
            assert (folder / "before.png").read_bytes() != (folder / "after.png").read_bytes()


def wait_for_errors(machine, text):
    end = time.monotonic() + 60
    while text not in machine.errors:
        assert time.monotonic() < end, machine.errors
        time.sleep(0.2)


def rfb_connect(path):
    """A VNC session up to its ServerInit; returns the socket and the screen's size."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(path))
    assert receive(connection, 12) == b"RFB 003.008\n"
    connection.sendall(b"RFB 003.008\n")
    assert receive(connection, 2) == b"\x01\x01"
    connection.sendall(b"\x01")
    assert receive(connection, 4) == bytes(4)
    connection.sendall(b"\x01")
    width, height = struct.unpack(">HH", receive(connection, 4))
    receive(connection, 16)
    receive(connection, struct.unpack(">I", receive(connection, 4))[0])
    return connection, (width, height)


def receive(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        assert part, "the VNC server hung up"
        data += part
    return data


def raw_update(connection, size, incremental):
    """The bytes of pixels that an update brings."""
    connection.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, *size))
    _, _, rectangles = struct.unpack(">BBH", receive(connection, 4))
    total = 0
    for _ in range(rectangles):
        _, _, width, height, encoding = struct.unpack(">HHHHi", receive(connection, 12))
        assert encoding == 0
        receive(connection, width * height * 4)
        total += width * height
    return total


def vnc_shows_the_screen():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        (folder / "blank.img").write_bytes(bytes(1 << 20))
        path = folder / "vnc"
        with pc(Disk(folder / "blank.img"), options=("--vnc", f"unix:{path}", "--trace", "firmware")) as machine:
            wait_for_errors(machine, "No bootable device")
            time.sleep(1)
            connection, size = rfb_connect(path)
            assert size == (720, 400)
            assert raw_update(connection, size, 0) == 720 * 400
            # Ctrl-Alt-Delete starts the firmware again: the screen changes.
            for down in (1, 0):
                for key in (0xffe3, 0xffe9, 0xffff):
                    connection.sendall(struct.pack(">BBHI", 4, down, 0, key))
            assert 0 < raw_update(connection, size, 1) <= 720 * 400
            connection.sendall(b"\xff")   # no message of the protocol
            assert connection.recv(1 << 20) is not None
            other, size = rfb_connect(path)
            other.close()


def the_classic_command_line():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        make_boot_iso(folder / "cd.iso")
        (folder / "disk.img").write_bytes(bytes(1 << 20))
        program = folder / "qemu-system-x86_64"
        program.symlink_to(paths.LODGE)
        command = [program, "-enable-kvm", "-name", "ubuntutest", "-m", "512", "-hda", folder / "disk.img", "-cdrom",
                   folder / "cd.iso", "-boot", "d", "-vnc", ":87", "-net", "nic,model=virtio", "-net", "user"]
        environment = dict(os.environ, XDG_RUNTIME_DIR=str(folder))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment)
        try:
            text = b""
            while b"lodge-guest: ready" not in text:
                part = os.read(process.stdout.fileno(), 4096)
                assert part, process.stderr.read()
                text += part
            again = subprocess.run([program, "-name", "other", "-cdrom", folder / "cd.iso", "-vnc", ":87"],
                                   env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            assert again.returncode != 0 and "5987" in again.stderr and "in use" in again.stderr, again.stderr
        finally:
            process.kill()
            process.wait()
        assert b"-enable-kvm" in process.stderr.read()
        bad = subprocess.run([program, "-hda", folder / "none.img"], env=environment, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=60)
        assert bad.returncode != 0 and "none.img" in bad.stderr, bad.stderr
        disk = folder / "disk.img"
        for options, named in ((("-device", "sdhci"), "sdhci"), (("-M", "isapc9"), "isapc9"),
                               (("-cdrom", folder / "none.iso"), "none.iso"),
                               (("-hda", disk, "-drive", f"file={disk},index=0,readonly=on"), "unit 0"),
                               (("-net", "tap,ifname=lodge-none0"), "lodge-none0"),
                               (("-hda", disk, "-vnc", f"unix:{folder}/none/vnc"), "none/vnc")):
            bad = subprocess.run([program, *options], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                                 text=True, timeout=60)
            assert bad.returncode != 0 and named in bad.stderr and len(bad.stderr.splitlines()) == 1, bad.stderr
        assert not list((folder / "lodge").rglob("*.sock")), list(folder.rglob("*"))


def an_empty_disk_is_no_system():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk.img"
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        with pc(Disk(disk), options=("--trace", "firmware")) as machine:
            wait_for_errors(machine, "No bootable device")


ATA = ["scsi_common", "scsi_mod", "libata", "ata_piix", "sd_mod", "cdrom", "sr_mod"]

# Reads both drives, by DMA as the driver sets it up; writes to the disk and reads that back.
ATA_SCRIPT = """
for n in 1 2 3 4 5 6 7 8 9 10; do test -e /dev/sda1 -a -e /dev/sr0 && break; sleep 1; done
dmesg | grep ata
echo "disk $(dd if=/dev/sda bs=1M count=32 2>/dev/null | sha256sum)"
echo "cdrom $(dd if=/dev/sr0 bs=1M count=8 2>/dev/null | sha256sum)"
dd if=/dev/sr0 of=/dev/sda bs=1M count=8 seek=64 conv=fsync 2>/dev/null || exit 3
echo 3 >/proc/sys/vm/drop_caches
echo "copy $(dd if=/dev/sda bs=1M skip=64 count=8 2>/dev/null | sha256sum)"
"""


def digest(path, count):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(count << 20)).hexdigest()


def ide_disk_and_cdrom():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", ATA, ATA_SCRIPT)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd")
        (folder / "cd.iso").write_bytes(os.urandom(8 << 20))
        with pc(Disk(folder / "disk.img", ide=True), snapshot=True, options=("--cdrom", str(folder / "cd.iso"))) as machine:
            machine.console.wait_for(r"^lodge-guest: exit status (\d+)", SECONDS)
            assert machine.wait_end(60) == 0
            text = machine.console.text
            for line in ("ata1: PATA max MWDMA2", "ata1.00: ATA-6: Lodge disk", "ata2.00: ATAPI: Lodge DVD-ROM"):
                assert line in text, text[-3000:]
            assert "failed command" not in text and "exception" not in text, text[-3000:]
            cd = digest(folder / "cd.iso", 8)
            for name, expected in (("disk", digest(folder / "disk.img", 32)), ("cdrom", cd), ("copy", cd)):
                assert f"{name} {expected}" in text, text[-3000:]


def pci_interrupts_without_apics():
    """The Q35 with SeaBIOS: virtio's INTx through the link devices to the 8259As; PCI Express configuration space."""
    with boot_disk(kernel_arguments="console=ttyS0 noapic nolapic pci=nomsi") as disk:
        with pc(Disk(disk), snapshot=True, options=("--board", "q35")) as machine:
            check_boot(machine, "grep -q 29c0 /sys/bus/pci/devices/0000:00:00.0/device",
                       "dd if=/dev/vda of=/dev/null bs=1M count=8", "grep -q 'XT-PIC.*virtio' /proc/interrupts",
                       "dmesg | grep -q 'MMCONFIG at .mem 0xb0000000'")


def the_a20_gate():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk.img"
        source = pathlib.Path(__file__).parent / "guest/a20.S"
        subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-Ttext=0x7c00,--oformat=binary",
                        "-o", disk, source], check=True)
        assert disk.stat().st_size == 512
        os.truncate(disk, 1 << 20)
        with pc(Disk(disk), snapshot=True) as machine:
            answer = machine.console.wait_for(r"a20: (good|bad \d)", 60)
            assert answer.group(1) == "good", answer.group(0)


def firmware_starts_a_cdrom():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        iso = pathlib.Path(folder) / "boot.iso"
        make_boot_iso(iso)
        blank = pathlib.Path(folder) / "blank.img"
        blank.write_bytes(bytes(1 << 20))
        with pc(Disk(blank), options=("--cdrom", str(iso), "--boot", "d")) as machine:
            check_boot(machine)


def firmware_says(machine, text, seconds=60):
    end = time.monotonic() + seconds
    while text not in machine.errors:
        assert time.monotonic() < end, machine.errors[-2000:]
        time.sleep(0.1)


def the_boot_menu_starts_what_is_chosen():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disks = []
        for name in ("first", "second"):
            make_sector_disk(pathlib.Path(folder) / name, f"started from the {name}")
            disks += ["--disk", f"{folder}/{name},bus=ide"]
        for count, chosen in ((1, "first"), (2, "second")):   # the menu is there for one disk, too
            options = ("--board", "pc", "--boot-menu", "--trace", "firmware", *disks[:2 * count])
            with Machine(Spec(kernel=None, options=options)) as machine:
                firmware_says(machine, "Press ESC for boot menu")
                machine.lodge("sendkey", machine.name, "esc")
                firmware_says(machine, "Select boot device")
                machine.lodge("sendkey", machine.name, str(count))
                machine.console.wait_for(f"started from the {chosen}", 60)


main(the_boot_menu_starts_what_is_chosen, firmware_starts_a_disk_on_virtio, pci_interrupts_without_apics, the_a20_gate,
     ide_disk_and_cdrom, firmware_starts_a_cdrom, screen_and_keyboard, vnc_shows_the_screen,
     the_classic_command_line, an_empty_disk_is_no_system)
