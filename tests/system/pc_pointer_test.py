# SPDX-License-Identifier: Apache-2.0
"""The tablet: where a VNC client's pointer is, the guest's is."""

import pathlib
import socket
import struct
import tempfile
import time

from kit.boot_disk import initrd_with, make_boot_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 240
# Prints events of the tablet: 16-bit numbers, eight of the time, type, code and two of the value.
SCRIPT = """
event=$(sed -n '/Lodge tablet/,/^$/s/.*Handlers=.*\\(event[0-9]*\\).*/\\1/p' /proc/bus/input/devices)
mknod /tmp/tablet c $(tr : ' ' </sys/class/input/$event/dev)
echo "pointer: ready"
od -An -v -w24 -t d2 /tmp/tablet
"""


def receive(connection, count):
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data))
    return data


def a_guest_follows_the_pointer():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", ["evdev", "virtio_input"], SCRIPT)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd")
        with Machine(Spec(kernel=None, disks=[Disk(folder / "disk.img")], snapshot=True,
                          options=("--vnc", f"unix:{folder}/vnc"))) as machine:
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
            pointer(width // 2, height - 1, 1)
            event(f"3 0 {width // 2 * 32767 // (width - 1)}")
            event("1 272 1")
            pointer(width // 2, height - 1, 8)   # the wheel, and the button let go
            event("1 272 0")
            event("2 8 1")


main(a_guest_follows_the_pointer)
