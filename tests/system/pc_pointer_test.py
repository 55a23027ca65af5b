# SPDX-License-Identifier: Apache-2.0
"""The tablets, virtio's and USB's: where a VNC client's pointer is, the guest's is."""

import pathlib
import socket
import struct
import tempfile
import time

from kit import paths
from kit.boot_disk import initrd_with, make_boot_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 240
# Prints events of the tablet: 16-bit numbers, eight of the time, type, code and two of the value. What comes before the
# device is open is lost: Linux drops it.
SCRIPT = """
for n in 1 2 3 4 5 6 7 8 9 10; do grep -q "Lodge.*tablet" /proc/bus/input/devices && break; sleep 1; done
event=$(sed -n '/Lodge.*tablet/,/^$/s/.*Handlers=.*\\(event[0-9]*\\).*/\\1/p' /proc/bus/input/devices | head -n 1)
mknod /tmp/tablet c $(tr : ' ' </sys/class/input/$event/dev)
od -An -v -w24 -t d2 /tmp/tablet &
until ls -l /proc/$!/fd | grep -q tablet; do sleep 0.1; done
echo "pointer: ready"
wait
"""
USB = ["usb-common", "usbcore", "xhci-hcd", "xhci-pci", "hid", "usbhid", "hid-generic", "evdev"]


def receive(connection, count):
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data))
    return data


def check(kind, modules, full):
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", modules, SCRIPT, full)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd", kernel=paths.VMLINUZ_FULL if full else paths.VMLINUZ)
        disk = Disk(folder / "disk.img", ide=full)
        with Machine(Spec(kernel=None, disks=[disk], snapshot=True,
                          options=("--vnc", f"unix:{folder}/vnc", "--pointer", kind))) as machine:
            machine.console.wait_for("pointer: ready", SECONDS)
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(60)
            connection.connect(str(folder / "vnc"))
            receive(connection, 12)
            connection.sendall(b"RFB 003.008\n")
            receive(connection, 2)
            connection.sendall(b"\x01")
            receive(connection, 4)
            connection.sendall(b"\x01")
            width, height = struct.unpack(">HH", receive(connection, 4))
            time.sleep(1)

            def pointer(x, y, buttons=0):
                connection.sendall(struct.pack(">BBHH", 5, buttons, x, y))

            def event(numbers):
                machine.console.wait_for(r"^(\s*-?\d+){8}\s+" + numbers.replace(" ", r"\s+") + r"\s+0\r?$", 60)

            pointer(width - 1, height - 1)
            event("3 0 32767")
            event("3 1 32767")
            pointer(width // 2, height - 1)
            event(f"3 0 {width // 2 * 32767 // (width - 1)}")
            pointer(width // 2, height - 1, 1)
            event("1 272 1")
            pointer(width // 2, height - 1, 8)   # the wheel, and the button let go
            event("1 272 0")
            event("2 8 1")


def a_virtio_tablet_follows():
    check("virtio", ["evdev", "virtio_input"], full=False)


def a_usb_tablet_follows():
    check("usb", USB, full=True)


if __name__ == "__main__":
    main(a_virtio_tablet_follows, a_usb_tablet_follows)
