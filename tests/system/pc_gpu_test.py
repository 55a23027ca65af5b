# SPDX-License-Identifier: Apache-2.0
"""Linux on the virtio GPU: what it draws into its frame buffer is on the screen, in the driver's mode."""

import pathlib
import tempfile
import time

from kit import paths
from kit.boot_disk import initrd_with, make_boot_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec
from kit.picture import read_png

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


def linux_draws():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", MODULES, SCRIPT, full=True)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd", kernel=paths.VMLINUZ_FULL)
        with Machine(Spec(kernel=None, disks=[Disk(folder / "disk.img", ide=True)], snapshot=True,
                          options=("--vga", "virtio"))) as machine:
            machine.console.wait_for("gpu: drawn", SECONDS)
            assert "virtio_gpu" in machine.console.text, machine.console.text
            end = time.monotonic() + 60
            while True:
                machine.lodge("screenshot", machine.name, str(folder / "shot.png"))
                width, height, rows = read_png(folder / "shot.png")
                top, bottom = rows[height // 4][:3], rows[-1][-3:]
                if (width, height, top, bottom) == (1024, 768, b"\xff\0\0", b"\0\0\xff"):
                    return
                assert time.monotonic() < end, (width, height, top, bottom)
                time.sleep(1)


main(linux_draws)
