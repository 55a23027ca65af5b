# SPDX-License-Identifier: Apache-2.0
"""Disks in other forms than raw: Debian from a qcow2 image over a raw one, a file system in every format that is written,
and a machine that was imported from a package."""

import hashlib
import json
import pathlib
import subprocess
import tempfile

from kit import paths
from kit.case import main
from kit.guest import Debian, run_busybox
from kit.machine import Disk

FORMATS = [("qcow2", []), ("qcow2", ["-c"]), ("vmdk", []), ("vdi", []), ("vhd", []), ("vhdx", [])]


def lodge(*words):
    result = subprocess.run([paths.LODGE, "image", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, f"lodge image {' '.join(map(str, words))}: {result.stdout}{result.stderr}"
    return result.stdout


def make_file_system(path, folder):
    with open(path, "wb") as disk:
        disk.truncate(64 << 20)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder, path], check=True, stdin=subprocess.DEVNULL)


def debian_from_qcow2_over_raw():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        top = pathlib.Path(folder) / "top.qcow2"
        before = paths.DEBIAN.stat()
        lodge("create", "-b", paths.DEBIAN, "-F", "raw", "--allow-path", paths.GUEST, top)
        refused = subprocess.run([paths.LODGE, "run", "--kernel", paths.VMLINUZ, "--disk", top], capture_output=True, text=True,
                                 stdin=subprocess.DEVNULL)
        assert refused.returncode != 0 and "outside the image's folder" in refused.stderr, refused.stderr
        image = f"{top},allow-path={paths.GUEST}"
        with Debian(image=image, snapshot=False) as debian:
            debian.check("echo kept >/root/kept && sync && findmnt -no SOURCE / | grep -q vda", 60)
            assert debian.power_off() == 0
        lodge("check", "--allow-path", paths.GUEST, top)
        status, output = run_busybox("mkdir -p /d; mount -t ext4 -o ro /dev/vda /d && cat /d/root/kept\n", 240, disks=[Disk(image)])
        assert status == 0 and output.strip().endswith("kept"), output
        after = paths.DEBIAN.stat()
        assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size), "the backing image was written"


def every_format():
    """The guest finds a file system as it was made on the host, changes it, and the host finds the changes."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as name:
        folder = pathlib.Path(name)
        (folder / "content").mkdir()
        (folder / "content" / "a").write_bytes(bytes(range(256)) * 4000)
        make_file_system(folder / "made.raw", folder / "content")
        script, disks = "", []
        for number, (form, options) in enumerate(FORMATS):
            image = folder / f"{number}.{form}"
            lodge("convert", "-O", form, *options, folder / "made.raw", image)
            device = f"/dev/vd{chr(ord('a') + number)}"
            script += (f"mkdir -p /{number}; mount -t ext4 {device} /{number} && sha256sum </{number}/a && "
                       f"rm /{number}/a && dd if=/dev/urandom of=/{number}/b bs=64k count=100 2>/dev/null && "
                       f"sha256sum </{number}/b && umount /{number} || exit 1\n")
            disks.append(Disk(image))
        status, output = run_busybox(script, 300, disks=disks)
        assert status == 0, output
        sums = [line.split()[0] for line in output.splitlines() if line.endswith("-")]
        digest = subprocess.run(["sha256sum", folder / "content" / "a"], capture_output=True, text=True, check=True).stdout[:64]
        for number, (form, _) in enumerate(FORMATS):
            assert sums[2 * number] == digest, f"{form}: {output}"
            lodge("check", folder / f"{number}.{form}")
            lodge("convert", "-O", "raw", folder / f"{number}.{form}", folder / "back.raw")
            subprocess.run(["/sbin/e2fsck", "-fn", folder / "back.raw"], check=True, capture_output=True)
            dump = subprocess.run(["/sbin/debugfs", "-R", "cat /b", folder / "back.raw"], capture_output=True, check=True).stdout
            assert hashlib.sha256(dump).hexdigest() == sums[2 * number + 1], form


def imported_machine():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as name:
        folder = pathlib.Path(name)
        (folder / "content").mkdir()
        (folder / "content" / "hello").write_text("from the package\n")
        make_file_system(folder / "disk.raw", folder / "content")
        (folder / "machine.json").write_text(json.dumps({
            "name": "guest", "cpus": 2, "memory": 512 << 20, "firmware": "bios", "disks": [{"path": "disk.raw", "format": "raw"}],
            "nets": [{"network": "NAT", "model": "e1000", "mac": "08:00:27:12:34:56"}]}))
        lodge("export", folder / "guest.ova", folder / "machine.json")
        lodge("import", folder / "guest.ova", folder / "imported")
        script = "mkdir -p /d; mount -t ext4 /dev/vda /d && cat /d/hello\n"
        status, output = run_busybox(script, 240, net="none", options=("--machine", str(folder / "imported" / "machine.json")))
        assert status == 0 and "from the package" in output, output


main(debian_from_qcow2_over_raw, every_format, imported_machine)
