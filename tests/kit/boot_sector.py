# SPDX-License-Identifier: Apache-2.0
"""The smallest thing that firmware starts: a sector of code that says its name on the serial port."""

import pathlib
import subprocess
import tempfile

from kit.boot_disk import need

# Real mode: DS = 0, SI = the text, DX = COM1; out with each byte up to a zero; halt.
CODE = bytes.fromhex("31c0 8ed8 be167c baf803 fc ac 84c0 7403 ee ebf8 f4 ebfd".replace(" ", ""))
assert len(CODE) == 22


def boot_sector(text):
    sector = CODE + text.encode() + b"\n\0"
    assert len(sector) < 440
    return sector + bytes(510 - len(sector)) + b"\x55\xaa"


def make_sector_disk(path, text, size=1 << 20):
    path.write_bytes(boot_sector(text) + bytes(size - 512))
    return path


def make_sector_iso(path, text):
    """A CD-ROM that boots without emulation (El Torito)."""
    need("xorriso")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        (pathlib.Path(folder) / "boot.bin").write_bytes(boot_sector(text) + bytes(1536))
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-o", path, "-b", "boot.bin", "-no-emul-boot",
                        "-boot-load-size", "4", folder], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path
