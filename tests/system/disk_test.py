# SPDX-License-Identifier: Apache-2.0
"""Data on disks: what a guest has flushed survives the kill of its machine, a full disk and a full host file system are the
guest's errors only, and nothing of a snapshot stays."""

import hashlib
import os
import pathlib
import re
import subprocess
import tempfile

from kit import paths
from kit.archive import cpio_archive
from kit.case import Skip, main
from kit.guest import run_busybox
from kit.machine import Disk, Machine, Spec

DISK_BYTES = 256 << 20
FLUSHED = r"^flushed (\d+) ([0-9a-f]{64})"


def make_disk(path, size=DISK_BYTES):
    with open(path, "wb") as disk:
        disk.truncate(size)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", path], check=True,
                   stdin=subprocess.DEVNULL)


def with_script(folder, script):
    """An initramfs that runs the script."""
    first = paths.INITRD.read_bytes()
    initrd = pathlib.Path(folder) / "initrd"
    initrd.write_bytes(first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, script.encode())]))
    return initrd


# Flushed files, each named on the console only after its fsync; and writers that never stop, so that the kill comes in the
# middle of writes of data and of metadata.
WRITER = """
mkdir -p /data; mount -t ext4 /dev/vda /data || exit 1
(while true; do for i in 1 2 3 4 5 6; do echo $i >/data/busy.$i; mv /data/busy.$i /data/moved.$i; done; done) &
(while true; do dd if=/dev/urandom of=/data/noise bs=64k count=50 2>/dev/null; done) &
n=0
while true; do
  n=$((n + 1))
  dd if=/dev/urandom of=/data/file.$n bs=10000 count=7 conv=fsync 2>/dev/null || exit 2
  echo "flushed $n $(sha256sum </data/file.$n)"
done
"""

READER = """
mkdir -p /data; mount -t ext4 /dev/vda /data || exit 1
dmesg | grep -o 'EXT4-fs (vda): recovery complete'
for f in /data/file.*; do echo "${f##*.} $(sha256sum <$f)"; done
umount /data
"""


def flushed_data_survives_a_kill():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk"
        make_disk(disk)
        flushed = {}
        initrd = with_script(folder, WRITER)
        for _ in range(2):
            with Machine(Spec(initrd=initrd, append="console=ttyS0 quiet", disks=[Disk(disk)], cpus=2)) as machine:
                for _ in range(25):
                    match = machine.console.wait_for(FLUSHED, 240)
                    flushed[match.group(1)] = match.group(2)
                machine.kill()
            for match in re.finditer(FLUSHED, machine.console.text, re.MULTILINE):
                flushed[match.group(1)] = match.group(2)
            status, output = run_busybox(READER, 240, disks=[Disk(disk)])
            assert status == 0, output
            assert "recovery complete" in output, f"the journal was not replayed: {output}"
            found = dict(line.split()[:2] for line in output.splitlines() if line[0].isdigit())
            lost = {n: digest for n, digest in flushed.items() if found.get(n) != digest}
            assert not lost, f"flushed files are lost or changed: {lost}"
        check = subprocess.run(["/sbin/e2fsck", "-fn", disk], capture_output=True, text=True)
        assert check.returncode == 0, check.stdout


def full_disk():
    script = """
mkdir -p /data; mount -t ext4 /dev/vda /data || exit 1
dd if=/dev/zero of=/data/all bs=1M && exit 2
df /data | tail -n 1
rm /data/all; echo room >/data/again; sync; cat /data/again
dd if=/dev/zero of=/dev/vda bs=1M count=8 seek=60 2>/dev/null && exit 3
umount /data
"""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk"
        make_disk(disk, 64 << 20)
        status, output = run_busybox(script, 240, disks=[Disk(disk)])
        assert status == 0, f"status {status}: {output}"
        assert "100%" in output and "room" in output, output
        assert disk.stat().st_size == 64 << 20


def full_host():
    """The file system under the image is full: the guest gets I/O errors, and the machine ends as the guest likes."""
    script = "dd if=/dev/urandom of=/dev/vda bs=1M count=48 conv=fsync 2>&1 && exit 2; echo 'the guest lives'; exit 0\n"
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0:
        raise Skip("this host does not let users make mount namespaces")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        small = pathlib.Path(folder) / "small"
        small.mkdir()
        initrd = with_script(folder, script)
        spec = Spec(initrd=initrd, append="console=ttyS0 quiet", disks=[Disk(small / "disk")])
        prefix = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=16m tmpfs {small} && truncate -s 64M {small}/disk && "
                  'exec "$@"', "sh"]
        with Machine(spec, prefix=prefix) as machine:
            machine.console.wait_for("^the guest lives$", 240)
            assert machine.wait_end(60) == 0, machine.errors


def snapshot_leaves_no_trace():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk"
        disk.write_bytes(os.urandom(8 << 20))
        before = hashlib.sha256(disk.read_bytes()).hexdigest()
        script = "dd if=/dev/zero of=/dev/vda bs=1M count=8 conv=fsync 2>/dev/null; sha256sum </dev/vda\n"
        status, output = run_busybox(script, 240, disks=[Disk(disk)], snapshot=True)
        assert status == 0 and output.split()[0] == hashlib.sha256(bytes(8 << 20)).hexdigest(), output
        assert hashlib.sha256(disk.read_bytes()).hexdigest() == before
        status, output = run_busybox("dd if=/dev/zero of=/dev/vda bs=1M count=1 conv=fsync 2>&1 && exit 9; exit 0\n", 240,
                                     disks=[Disk(disk, readonly=True)])
        assert status == 0, output
        assert hashlib.sha256(disk.read_bytes()).hexdigest() == before


main(flushed_data_survives_a_kill, full_disk, full_host, snapshot_leaves_no_trace)
