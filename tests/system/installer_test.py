# SPDX-License-Identifier: Apache-2.0
"""The Debian installer from a CD-ROM, up to its first question, as text and with graphics: `installer text|gtk`. The
screen must be the picture in docs/, and while it waits for an answer, with a VNC client, the machine stays small. With LODGE_KEEP_PICTURE=FILE the last picture is kept."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from kit import paths
from kit.boot_disk import need
from kit.case import main
from kit.installer import make_installer_iso
from kit.machine import Machine, Spec
from kit.memory import overhead
from kit.picture import likeness, read_jpeg, read_png
from kit.rfb import DESKTOP_SIZE, ZRLE, Rfb

SECONDS = 500
MEMORY_LIMIT = 60 << 20   # beyond guest RAM, with a 1024x768 screen and a VNC client


def wait_for_picture(machine, expected, shot):
    best, failure, end = 0.0, None, time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert machine.process.poll() is None, machine.errors
        try:
            machine.lodge("screenshot", machine.name, str(shot))
        except AssertionError as error:   # it is just starting
            failure = error
            time.sleep(1)
            continue
        if keep := os.environ.get("LODGE_KEEP_PICTURE"):
            shutil.copy(shot, keep)
        best = max(best, likeness(expected, read_png(shot)))
        if best > 0.995:   # a cursor may blink
            return
        time.sleep(3)
    raise failure or AssertionError(f"the screen never was the expected one: at best {best:.3f} of it")


def stays_small(machine, vnc):
    """Within seconds: what was translated goes when the guest has been idle for three."""
    client = Rfb(vnc, (ZRLE, DESKTOP_SIZE))
    client.request(incremental=False)
    while not any(encoding == ZRLE for encoding, *_ in client.message()[1]):
        client.request(incremental=False)
    assert (client.width, client.height) == (1024, 768), (client.width, client.height)
    sizes, end = [], time.monotonic() + 40
    while time.monotonic() < end:
        client.request()
        sizes.append(overhead(machine.process.pid))
        if sizes[-1] < MEMORY_LIMIT:
            print(f"{sizes[-1] / (1 << 20):.0f} MiB beyond guest RAM; {max(sizes) / (1 << 20):.0f} at first")
            return
        time.sleep(1)
    raise AssertionError(f"{min(sizes) >> 20} MiB beyond guest RAM")


def check(kind, picture, display=None):
    """`display`: its number for a VNC client, which must see the same."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        make_installer_iso(folder / "cd.iso", kind)
        vnc = f"unix:{folder}/vnc" if display is None else f":{display}"
        expected = read_png(paths.TOP / "docs" / picture) if (paths.TOP / "docs" / picture).exists() else (0, 0, [b""])
        with Machine(Spec(kernel=None, memory="1G", options=("--cdrom", str(folder / "cd.iso"), "--boot", "d", "--vnc", vnc))) as machine:
            wait_for_picture(machine, expected, folder / "shot.png")
            stays_small(machine, folder / "vnc" if display is None else 5900 + display)
            if display is not None:
                subprocess.run(["vncsnapshot", "-quality", "95", f"127.0.0.1:{display}", folder / "shot.jpg"], check=True,
                               capture_output=True, timeout=60)
                seen = likeness(expected, read_jpeg(folder / "shot.jpg"), tolerance=24)
                assert seen > 0.98, f"a VNC client sees another picture: {seen:.3f} of it is like the expected one"


def text_installer():
    need("vncsnapshot", "djpeg")
    check("text", "installer.png", display=83)


def graphical_installer():
    check("gtk", "installer-graphical.png")


main(text_installer if sys.argv[1:] == ["text"] else graphical_installer)
