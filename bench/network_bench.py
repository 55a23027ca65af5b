#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Networks, as ratios to what Linux and others do in the same run: TCP by iperf3 between network namespaces, latency by ping,
memory and processor time of a network's process. Rows are measured in turn, rounds after each other; each cell is the median over the rounds.

switch and wifi against a Linux bridge with veth pairs; user NAT against libslirp in QEMU (between its tap and user back ends, no
guest in the way) and slirp4netns. Needs root."""

import argparse
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from fcntl import ioctl

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))
from kit import paths  # noqa: E402
from kit.peer import Lodge, Namespace, Peer  # noqa: E402

PORT = 5301


def iperf(client, server, address, seconds, reverse=False):
    """Gigabits a second of one TCP connection."""
    listening = server.start(f"exec iperf3 -s -1 -p {PORT} --forceflush")
    while "listening" not in listening.stdout.readline():
        pass
    out = client.run(f"iperf3 -c {address} -p {PORT} -t {seconds} -O 0.5 -J {'-R' if reverse else ''}", timeout=seconds + 60)
    listening.wait(20)
    return json.loads(out[out.index("{"):out.rindex("}") + 1])["end"]["sum_received"]["bits_per_second"] / 1e9


def latency(peer, address):
    """Microseconds of a round trip: the median of many single pings, sent one after the other."""
    out = peer.run(f"ping -n -c 2000 -i 0.0005 {address}", timeout=60)
    times = sorted(float(line.split("time=")[1].split()[0]) * 1000 for line in out.splitlines() if "time=" in line)
    return statistics.median(times)


def offloads(peer, on, device="eth0"):
    state = "on" if on else "off"
    peer.run(f"ethtool -K {device} tx {state} rx {state} sg {state} tso {state} gso {state} gro {state} 2>/dev/null; true")


def memory(folder):
    """MiB that are a process's alone, and its share of what others use too."""
    return int((folder / "smaps_rollup").read_text().split("\nPss:")[1].split()[0]) / 1024


def processor_seconds(folder):
    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Host:
    """The namespace that the test runs in, as a peer."""

    def run(self, command, timeout=60):
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=timeout, check=True).stdout

    def start(self, command):
        return subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class LinuxBridge:
    """Two namespaces, a veth pair each, a bridge in a third."""

    def __init__(self):
        self.middle, self.a, self.b = Namespace("bridge"), Namespace("a"), Namespace("b")
        self.middle.run("ip link add br0 type bridge forward_delay 0; ip link set br0 up")
        for number, peer in ((1, self.a), (2, self.b)):
            self.middle.run(f"ip link add v{number} type veth peer name eth0 netns {peer.holder.pid} && ip link set v{number} master br0 up")
            peer.run(f"ip addr add 10.66.0.{number}/24 dev eth0; ip link set eth0 up")
        self.address = "10.66.0.2"
        self.a.must_ping(self.address)

    def close(self):
        for n in (self.a, self.b, self.middle):
            n.close()


class LodgeSwitch:
    def __init__(self):
        self.lodge = Lodge()
        self.lodge("network", "create", "wires", "--kind", "switch", "--subnet", "10.66.0.0/24")
        self.a, self.b = Peer(self.lodge, "wires", "a"), Peer(self.lodge, "wires", "b")
        self.address = self.b.address
        self.a.must_ping(self.address)

    def network_process(self):
        return self.lodge.network_process()

    def close(self):
        self.a.close()
        self.b.close()
        self.lodge.__exit__()


class LodgeWifi:
    """A station on a card: from it to a host beyond the card."""

    def __init__(self):
        self.host, self.b = Namespace("host"), Namespace("lan")
        self.b.run(f"ip link add eth0 type veth peer name card0 netns {self.host.holder.pid}; ip link set eth0 up; "
                   "ip addr add 10.67.0.1/24 dev eth0")
        self.host.run("ip link set card0 up; ip addr add 10.67.0.2/24 dev card0")
        self.lodge = Lodge(self.host.enter)
        self.lodge("network", "create", "air", "--kind", "wifi", "--uplink", "card0")
        self.a = Peer(self.lodge, "air", "a", lease=False)
        self.a.run("ip addr add 10.67.0.9/24 dev eth0")
        self.address = "10.67.0.1"
        self.a.must_ping(self.address)

    def network_process(self):
        return self.lodge.network_process()

    def close(self):
        self.a.close()
        self.lodge.__exit__()
        self.host.close()
        self.b.close()


class LodgeNat:
    address = "10.0.2.2"

    def __init__(self):
        self.lodge, self.b = Lodge(), Host()
        self.lodge("network", "create", "home")
        self.a = Peer(self.lodge, "home", "a")

    def network_process(self):
        return self.lodge.network_process()

    def close(self):
        self.a.close()
        self.lodge.__exit__()


def tap_in(namespace, offload):
    """The descriptor of a tap device eth0 in a namespace."""
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            with open(f"/proc/{namespace.holder.pid}/ns/net") as ns:
                if ctypes.CDLL(None, use_errno=True).setns(ns.fileno(), 0) != 0:
                    os._exit(1)
            fd = os.open("/dev/net/tun", os.O_RDWR)
            flags = 0x5002 if offload else 0x1002  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
            ioctl(fd, 0x400454ca, struct.pack("16sH22x", b"eth0", flags))
            socket.send_fds(there, [b"x"], [fd])
        finally:
            os._exit(0)
    there.close()
    _, fds, _, _ = socket.recv_fds(here, 1, 1)
    os.waitpid(child, 0)
    return fds[0]


class QemuNat:
    """libslirp between QEMU's tap and user back ends."""
    address = "10.0.2.2"

    def __init__(self):
        self.a, self.b = Namespace("a"), Host()
        tap = tap_in(self.a, False)
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-serial", "none", "-monitor", "none",
             "-netdev", "user,id=u", "-netdev", f"tap,id=t,fd={tap}", "-netdev", "hubport,id=h1,hubid=0,netdev=u",
             "-netdev", "hubport,id=h2,hubid=0,netdev=t"], pass_fds=[tap], stderr=subprocess.DEVNULL)
        os.close(tap)
        self.a.run("ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0")
        time.sleep(1)

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.a.close()


class Slirp4netns:
    address = "10.0.2.2"

    def __init__(self):
        self.a, self.b = Namespace("a"), Host()
        read, write = os.pipe()
        self.process = subprocess.Popen(["slirp4netns", "-c", f"--ready-fd={write}", str(self.a.holder.pid), "eth0"], pass_fds=[write],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(write)
        os.read(read, 1)

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.a.close()


def measure_wire(kind, seconds):
    site = kind()
    try:
        cells = {"rtt": latency(site.a, site.address)}
        for name, on in (("offloads", True), ("1500", False)):
            offloads(site.a, on)
            offloads(site.b, on)
            process = site.network_process() if hasattr(site, "network_process") else None
            before = processor_seconds(process) if process else 0
            cells[name] = iperf(site.a, site.b, site.address, seconds)
            if process and on:
                cells["Gbit/cpu-s"] = cells[name] * seconds / max(processor_seconds(process) - before, 0.01)
        if process:
            cells["MiB"] = memory(process)
        return cells
    finally:
        site.close()


def measure_nat(kind, seconds):
    site = kind()
    try:
        cells = {"rtt": latency(site.a, site.address)} if kind is not QemuNat else {}
        cells["out"] = iperf(site.a, site.b, site.address, seconds)
        cells["in"] = iperf(site.a, site.b, site.address, seconds, reverse=True)
        if hasattr(site, "network_process"):
            cells["MiB"] = memory(site.network_process())
        return cells
    finally:
        site.close()


WIRES = {"linux bridge": LinuxBridge, "lodge switch": LodgeSwitch, "lodge wifi": LodgeWifi}
NATS = {"libslirp in qemu": QemuNat, "slirp4netns": Slirp4netns, "lodge user": LodgeNat}


def table(title, columns, rows, units):
    print(f"\n{title}")
    print(f"{'':18}" + "".join(f"{c:>14}" for c in columns))
    for name, cells in rows.items():
        print(f"{name:18}" + "".join(f"{cells[c]:14.2f}" if c in cells else f"{'-':>14}" for c in columns))
    print(f"({units})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--quick", action="store_true", help="one round of a second each")
    parser.add_argument("--only", default="", help="rows whose names have this in them")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1
    if os.geteuid() != 0:
        print("network_bench: left out, it needs root for namespaces and cards")
        return
    missing = [p for p in ("iperf3", "ping", "ethtool", "ip", "qemu-system-x86_64", "slirp4netns") if not shutil.which(p)]
    if missing:
        sys.exit(f"network_bench: there is no {', '.join(missing)}; 'make packages-test' installs them")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    results = {}
    for _ in range(options.rounds):
        for measure, kinds in ((measure_wire, WIRES), (measure_nat, NATS)):
            for name, kind in kinds.items():
                if options.only in name:
                    results.setdefault(name, []).append(measure(kind, options.seconds))
    median = {name: {c: statistics.median(r[c] for r in rounds) for c in rounds[0]} for name, rounds in results.items()}
    table("From one namespace to another", ["offloads", "1500", "rtt", "Gbit/cpu-s", "MiB"],
          {n: median[n] for n in WIRES if n in median}, "Gbit/s with offloads and without, at an MTU of 1500; microseconds; "
          "with offloads, for each second of the network process's time; MiB of it")
    table("Through a user's NAT to the host", ["out", "in", "rtt", "MiB"], {n: median[n] for n in NATS if n in median}, "Gbit/s; MTU 1500")
    if not options.only:
        bridge, qemu, slirp = median["linux bridge"], median["libslirp in qemu"], median["slirp4netns"]
        print()
        for name in ("lodge switch", "lodge wifi"):
            print(f"{name}: {median[name]['1500'] / bridge['1500']:.2f} of the bridge's rate at 1500 bytes (wanted: 0.5), "
                  f"{median[name]['offloads'] / bridge['offloads']:.2f} of it with offloads, where a processor of its own would carry "
                  f"{median[name]['Gbit/cpu-s']:.1f} Gbit/s (10), "
                  f"{(median[name]['rtt'] - bridge['rtt']) / 2:.0f} us added a hop (30), {median[name]['MiB']:.1f} MiB (20)")
        for way in ("out", "in"):
            print(f"lodge user, {way}: {median['lodge user'][way] / qemu[way]:.2f} of libslirp's rate in QEMU (1), "
                  f"{median['lodge user'][way] / slirp[way]:.2f} of slirp4netns's (more than 1)")


if __name__ == "__main__":
    main()
