# SPDX-License-Identifier: Apache-2.0
"""Linux on the virtio GPU: what it draws into its frame buffer is on the screen, in the driver's mode; a VNC client asks for
another size, and copies and pastes text."""

import os
import pathlib
import subprocess
import tempfile
import time

from kit import paths
from kit.boot_disk import initrd_with, make_boot_disk, need
from kit.case import main
from kit.machine import Disk, Machine, Spec
from kit.picture import read_png
from kit.rfb import EXTENDED_DESKTOP_SIZE, RAW, Rfb
from kit.x_server import start_x_server

SECONDS = 240
MODULES = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "drm", "drm_kms_helper",
           "drm_shmem_helper", "virtio_dma_buf", "virtio-gpu"]
# Red, then blue from the middle of the picture on.
SCRIPT = """
for n in 1 2 3 4 5 6 7 8 9 10; do test -e /dev/fb0 && break; sleep 1; done
cat /sys/class/graphics/fb0/name /sys/class/graphics/fb0/virtual_size
printf '\\0\\0\\377\\0' >/tmp/red
printf '\\377\\0\\0\\0' >/tmp/blue
for color in red blue; do
  for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do cat /tmp/$color /tmp/$color >/tmp/double; mv /tmp/double /tmp/$color; done
done
n=0
while [ $n -lt 96 ]; do
  [ $n -lt 48 ] && cat /tmp/red || cat /tmp/blue
  n=$((n + 1))
done >/dev/fb0
echo "gpu: drawn"
sleep 600
"""


SERVER, CLIENT = 0, 1          # who changed the size
DONE, FORWARDED, BAD = 0, 4, 3


def picture_is_right(machine, shot):
    end = time.monotonic() + 60
    while True:
        machine.lodge("screenshot", machine.name, str(shot))
        width, height, rows = read_png(shot)
        top, bottom = rows[height // 4][:3], rows[-1][-3:]
        if (width, height, top, bottom) == (1024, 768, b"\xff\0\0", b"\0\0\xff"):
            return
        assert time.monotonic() < end, (width, height, top, bottom)
        time.sleep(1)


def next_size(client):
    """Reason, status, width and height of the next word about the size."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        client.request()
        kind, rectangles = client.message()
        for encoding, reason, status, width, height, _ in rectangles if kind == "update" else []:
            if encoding == EXTENDED_DESKTOP_SIZE:
                return reason, status, width, height
    raise AssertionError("no word about the screen's size")


def expect_size(client, *expected):
    found = next_size(client)
    assert found == expected, f"{found} instead of {expected}"


def client_changes_the_size(client):
    expect_size(client, SERVER, DONE, 1024, 768)
    client.set_size(800, 600)
    # Linux follows the display; it may have done so when the answer comes.
    found = next_size(client)
    if found == (CLIENT, FORWARDED, 1024, 768):
        expect_size(client, SERVER, DONE, 800, 600)
    else:
        assert found == (CLIENT, DONE, 800, 600), found
    client.set_size(0, 600)
    expect_size(client, CLIENT, BAD, 800, 600)


def text_is_copied_both_ways(machine, client):
    client.cut_text("gr\u00fc\u00dfe\nvon drau\u00dfen")
    end = time.monotonic() + 30
    while machine.lodge("clipboard", machine.name) != "gr\u00fc\u00dfe\nvon drau\u00dfen":
        assert time.monotonic() < end
        time.sleep(0.2)
    machine.lodge("clipboard", machine.name, "from", "inside")
    while True:
        kind, text = client.message()
        if kind == "text":
            assert text == "from inside", text
            return


def viewer_changes_the_size(machine, folder):
    """TigerVNC, which asks for a size when it has connected."""
    server, screen = start_x_server(folder)
    try:
        with open(folder / "viewer.log", "wb") as log:
            viewer = subprocess.Popen(["xtigervncviewer", "-SecurityTypes=None", "-DesktopSize=1024x704", str(folder / "vnc")],
                                      env=dict(os.environ, DISPLAY=f":{screen}", HOME=str(folder)), stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            size = None
            while size != (1024, 704):
                assert viewer.poll() is None and time.monotonic() < end, f"{size}: {(folder / 'viewer.log').read_text()}"
                time.sleep(0.5)
                machine.lodge("screenshot", machine.name, str(folder / "shot.png"))
                size = read_png(folder / "shot.png")[:2]
        finally:
            viewer.kill()
            viewer.wait()
    finally:
        server.kill()
        server.wait()


def linux_draws():
    need("Xvfb", "xtigervncviewer")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", MODULES, SCRIPT, full=True)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd", kernel=paths.VMLINUZ_FULL)
        with Machine(Spec(kernel=None, disks=[Disk(folder / "disk.img", ide=True)], snapshot=True,
                          options=("--vga", "virtio", "--vnc", f"unix:{folder}/vnc"))) as machine:
            machine.console.wait_for("gpu: drawn", SECONDS)
            assert "virtio_gpu" in machine.console.text, machine.console.text
            picture_is_right(machine, folder / "shot.png")
            client = Rfb(folder / "vnc", (RAW, EXTENDED_DESKTOP_SIZE))
            client_changes_the_size(client)
            text_is_copied_both_ways(machine, client)
            viewer_changes_the_size(machine, folder)


if __name__ == "__main__":
    main(linux_draws)
