# SPDX-License-Identifier: Apache-2.0
"""The static program: made, and boots a guest whose network reaches the host and that writes its disk; a description of
what is missing where libslirp is not there."""

import os
import pathlib
import socket
import subprocess
import tempfile
import threading

from kit import paths
from kit.archive import cpio_archive
from kit.case import main
from kit.machine import Disk, Machine, Spec

STATIC = paths.TOP / "build/static/lodge"
SCRIPT = """
ip link set eth0 up; udhcpc -i eth0 -s /etc/udhcpc.script -q -n >/dev/null 2>&1 || exit 2
echo "static: $(echo hello | nc -w 5 10.0.2.2 PORT)"
dd if=/dev/zero bs=4k count=4 2>/dev/null | tr '\\0' 'x' | dd of=/dev/vda bs=4k oflag=direct 2>/dev/null
sync
poweroff -f
"""


def build():
    subprocess.run([paths.TOP / "tools/build", "static", "lodge", "lodge-network-helper"], check=True, stdout=subprocess.DEVNULL)
    listed = subprocess.run(["ldd", STATIC], capture_output=True, text=True)
    assert "statically linked" in listed.stdout + listed.stderr, listed


class Static(Machine):
    def command(self):
        return [str(STATIC), *super().command()[1:]]


def answer_once(server):
    peer, _ = server.accept()
    with peer:
        peer.sendall(b"heard " + peer.recv(100))


def it_boots_with_disk_and_network():
    build()
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=answer_once, args=(server,), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk, initrd = pathlib.Path(folder) / "disk", pathlib.Path(folder) / "initrd"
        disk.write_bytes(bytes(1 << 20))
        first = paths.INITRD.read_bytes()
        script = SCRIPT.replace("PORT", str(server.getsockname()[1]))
        initrd.write_bytes(first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, script.encode())]))
        with Static(Spec(initrd=initrd, append="console=ttyS0 quiet", disks=[Disk(disk)], net="user", memory="192M")) as machine:
            machine.console.wait_for("^static: heard hello", 120)
            assert machine.wait_end(60) == 0, machine.errors
        assert disk.read_bytes()[:16384] == b"x" * 16384


def without_libslirp_it_says_so():
    """In a mount namespace of its own, where the library's folder is empty."""
    hidden = "mount -t tmpfs none /usr/lib/x86_64-linux-gnu && exec \"$@\""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        done = subprocess.run(["unshare", "-r", "-m", "sh", "-c", hidden, "sh", STATIC, "run", "-k", paths.VMLINUZ, "--net", "user"],
                              capture_output=True, text=True, env=dict(os.environ, XDG_RUNTIME_DIR=folder), stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    assert "start the user network: libslirp.so.0" in done.stderr and "install libslirp0" in done.stderr, done.stderr


if __name__ == "__main__":
    main(it_boots_with_disk_and_network, without_libslirp_it_says_so)
