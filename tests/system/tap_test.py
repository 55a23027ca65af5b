# SPDX-License-Identifier: Apache-2.0
"""A guest on a tap device, in a network namespace of the test's own."""

import hashlib
import os
import pathlib
import subprocess
import tempfile

from kit import paths
from kit.boot_disk import need
from kit.case import Skip, main
from kit.machine import Machine, Spec

NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]
SETUP = "ip tuntap add dev tap7 mode tap && ip addr add 10.77.0.1/24 dev tap7 && ip link set tap7 up"


def check_rights():
    need("unshare", "ip")
    tried = subprocess.run([*NAMESPACE, "sh", "-c", SETUP], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if tried.returncode != 0:
        raise Skip(f"no network namespace with a tap device: {tried.stderr.strip()}")


def fetch(content, net, setup=SETUP, cpus=1):
    """A guest reaches the host at 10.77.0.1, and gets a file whole."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        (pathlib.Path(folder) / "file").write_bytes(content)
        prefix = [*NAMESPACE, "sh", "-c", f'{setup} && python3 -m http.server -d {folder} --bind 10.77.0.1 8077 '
                  '>/dev/null 2>&1 </dev/null & sleep 1; exec "$@"', "sh"]
        with Machine(Spec(net=net, cpus=cpus), prefix=prefix) as machine:
            machine.console.wait_for("lodge-guest: ready", 120)
            machine.console.check("ifconfig eth0 10.77.0.2 netmask 255.255.255.0 up; ping -c 3 -s 1400 10.77.0.1", 60)
            machine.console.send("wget -q -O - http://10.77.0.1:8077/file | sha256sum\n")
            machine.console.wait_for(hashlib.sha256(content).hexdigest(), 120)


def a_guest_reaches_the_host():
    check_rights()
    fetch(os.urandom(8 << 20), "tap,ifname=tap7")


def devices_that_cannot_be_had():
    check_rights()
    command = f'{SETUP}; exec "$@"'
    run = [paths.LODGE, "run", "--kernel", paths.VMLINUZ, "--net", "tap,ifname=tap8"]
    done = subprocess.run([*NAMESPACE, "sh", "-c", command, "sh", *run], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode != 0 and "tap8" in done.stderr and "ip tuntap add" in done.stderr, done.stderr
    run[-1] = "tap,ifname=lo"
    done = subprocess.run([*NAMESPACE, "sh", "-c", command, "sh", *run], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode != 0 and "no tap device" in done.stderr, done.stderr


def devices_with_several_queues():
    """A device that was made with several queues, to a card with two pairs; without vhost-net, through this process."""
    check_rights()
    fetch(os.urandom(3 << 20), "tap,ifname=tap7,queues=2,vhost=off", SETUP.replace("mode tap", "mode tap multi_queue"), cpus=2)


def vhost_where_there_is_none():
    check_rights()
    if os.path.exists("/dev/vhost-net"):
        raise Skip("there is /dev/vhost-net")
    run = [paths.LODGE, "run", "--kernel", paths.VMLINUZ, "--net", "tap,ifname=tap7,vhost=on"]
    done = subprocess.run([*NAMESPACE, "sh", "-c", f'{SETUP}; exec "$@"', "sh", *run], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode != 0 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "open /dev/vhost-net" in done.stderr and "load the module vhost_net" in done.stderr, done.stderr


main(a_guest_reaches_the_host, devices_that_cannot_be_had, devices_with_several_queues, vhost_where_there_is_none)
