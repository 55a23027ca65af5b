# SPDX-License-Identifier: Apache-2.0
"""A host of the tests' own: a network namespace with a card to a LAN, whose router is another."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from kit.case import Skip
from kit.peer import ROOT, Lodge, Namespace, need_namespaces


def need_rights():
    need_namespaces()
    if not ROOT:
        raise Skip("needs root")
    for program in ("nft", "dnsmasq"):
        if not shutil.which(program):
            raise Skip(f"there is no {program}")
    tried = subprocess.run(["unshare", "-n", "sh", "-c", "ip link add br9 type bridge && ip link add ve9 type veth && "
                            "nft add table inet t"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise Skip(f"the kernel cannot: {tried.stderr.strip()}")


class Site:
    """A host with a card to a LAN with a router, which serves DHCP. The access point between them may be picky."""

    def __init__(self):
        self.host, self.lan = Namespace("host"), Namespace("lan")
        h, l = self.host.holder.pid, self.lan.holder.pid
        self.lan.run("ip link add br0 type bridge forward_delay 0; ip addr add 203.0.113.1/24 dev br0; "
                     "ip addr add 2001:db8::1/64 dev br0 nodad; ip link set br0 up; sysctl -q net.ipv6.conf.all.forwarding=1")
        self.lan.run(f"ip link add ap0 type veth peer name card0 netns {h} && ip link set ap0 master br0 up")
        self.host.run("ip link set card0 up; ip addr add 203.0.113.2/24 brd + dev card0; "
                      "ip route add default via 203.0.113.1")
        self.folder = tempfile.mkdtemp(prefix="lodge-lan-")
        self.lan.run(f"dnsmasq --pid-file={self.folder}/pid --dhcp-leasefile={self.folder}/leases --interface=br0 --bind-interfaces "
                     "--dhcp-range=203.0.113.50,203.0.113.90,1h --dhcp-range=2001:db8::,ra-only,64 --enable-ra --port=0 "
                     "--conf-file=/dev/null --user=root")
        self.lodge = Lodge(self.host.enter)

    def links(self):
        return {link["ifname"] for link in json.loads(self.host.run("ip -j link"))}

    def tables(self):
        return self.host.run("nft list tables")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lodge.__exit__()
        try:
            os.kill(int(open(f"{self.folder}/pid").read()), signal.SIGTERM)
        except (OSError, ValueError):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        self.host.close()
        self.lan.close()


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)
