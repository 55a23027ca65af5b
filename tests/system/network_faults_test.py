# SPDX-License-Identifier: Apache-2.0
"""Networks under strain: a thousand ports, a full address table, clashes of addresses, floods, processes that die, a bridge whose
gateway is lost."""

import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

from kit import paths
from kit.case import Skip, main
from kit.peer import ROOT, Lodge, Namespace, Peer, need_namespaces

HEADER = bytes(10)  # virtio's, which asks for nothing


class Cable:
    """A port by its socket, as a machine has it."""

    def __init__(self, lodge, network, name, **settings):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(f"{lodge.folder}/lodge-networks/{network}/ports")
        self.socket.send(json.dumps({"name": name, **settings}).encode())
        self.reply = json.loads(self.socket.recv(65536))

    def send(self, to, source, kind=b"\x88\xb5", data=bytes(46)):
        self.socket.send(HEADER + to + source + kind + data)

    def close(self):
        self.socket.close()


def mac(number):
    return b"\x02\x00" + number.to_bytes(4, "big")


def text(address):
    return ":".join(f"{b:02x}" for b in address)


def show(lodge, name):
    return json.loads(lodge("network", "show", name, "--json").stdout)


def a_thousand_ports():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        raise Skip("too few open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    with Lodge() as lodge:
        lodge("network", "create", "big", "--kind", "isolated", "--subnet", "10.99.0.0/16")
        lodge("network", "up", "big")
        cables = [Cable(lodge, "big", f"m{n}", mac=text(mac(n))) for n in range(1000)]
        assert all(c.reply["ok"] for c in cables), [c.reply for c in cables if not c.reply["ok"]][:3]
        # A frame to one goes to one; a broadcast to all others.
        cables[3].send(mac(999), mac(3))
        assert cables[999].socket.recv(2000)[10:16] == mac(999)
        cables[5].send(b"\xff" * 6, mac(5))
        for n in (0, 4, 6, 500, 999):
            frame = cables[n].socket.recv(2000)
            assert frame[10:22] == b"\xff" * 6 + mac(5), (n, frame)
        pss = int((lodge.network_process() / "smaps_rollup").read_text().split("\nPss:")[1].split()[0])
        assert pss < 20 << 10, f"{pss} KiB with a thousand ports"
        more = []
        for n in range(1000, 1040):
            try:
                more.append(Cable(lodge, "big", f"m{n}", mac=text(mac(n))))
            except (OSError, ValueError):
                break
            if not more[-1].reply["ok"]:
                break
        assert "the most there can be" in more[-1].reply["error"], more[-1].reply
        for c in cables + more:
            c.close()
        for _ in range(100):
            if len([p for p in show(lodge, "big")["ports"] if p["role"] == "machine"]) == 0:
                break
            time.sleep(0.1)
        with_one = Cable(lodge, "big", "again", mac=text(mac(1)))
        assert with_one.reply["ok"], with_one.reply
        lodge("network", "down", "big", "--force")


def strangers_fill_only_their_own():
    """A full table, clashes, floods."""
    with Lodge() as lodge:
        lodge("network", "create", "wires", "--kind", "switch", "--subnet", "10.9.0.0/24")
        lodge("network", "up", "wires")
        wild, one, two = (Cable(lodge, "wires", "wild", antiSpoof=False), Cable(lodge, "wires", "one", mac=text(mac(1))),
                          Cable(lodge, "wires", "two", mac=text(mac(2))))
        for n in range(3000):
            wild.send(mac(2), mac(1000 + n))
        for _ in range(300):
            seen = show(lodge, "wires")
            if seen["addressesRefused"] >= 2700:
                break
            time.sleep(0.1)
        assert seen["addressesRefused"] >= 2700, seen["addressesRefused"]
        assert len([e for e in seen["addressTable"] if not e["fixed"]]) <= 256 * 3
        # The flooder has one's address: what is for one goes to one all the same.
        wild.send(mac(2), mac(1))
        two.socket.setblocking(False)
        try:
            while True:
                two.socket.recv(2000)
        except BlockingIOError:
            pass
        two.socket.settimeout(20)
        two.send(mac(1), mac(2))
        assert one.socket.recv(2000)[10:22] == mac(1) + mac(2)
        # Broadcasts beyond the limit are dropped at the port they come from, however slowly a busy host sends them.
        end = time.monotonic() + 120
        while show(lodge, "wires")["floodsDropped"] <= 100 and time.monotonic() < end:
            for n in range(12000):
                try:
                    wild.socket.send(HEADER + b"\xff" * 6 + mac(7) + b"\x88\xb5" + bytes(46), socket.MSG_DONTWAIT)
                except BlockingIOError:
                    time.sleep(0.01)
        assert show(lodge, "wires")["floodsDropped"] > 100
        for settings, saying in (({"mac": text(mac(1))}, "belongs to 'one'"), ({"addresses": ["10.9.0.2"]}, "is the network's own"),
                                 ({"addresses": ["192.0.2.1"]}, "is not in 10.9.0.0/24"), ({"mac": "ff:ff:ff:ff:ff:ff"}, "not a card's"),
                                 ({"vlan": 5000}, "is not 1 to 4094"), ({"cable": {"rate": -1}}, "out of range")):
            reply = Cable(lodge, "wires", "clash", **settings).reply
            assert not reply["ok"] and saying in reply["error"], (settings, reply)
        lodge("network", "down", "wires", "--force")


def a_killed_network_comes_back():
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "lab", "--kind", "isolated")
        # The proxy is a port that joins again, as machines' cards do.
        proxy = subprocess.Popen([str(paths.LODGE), "proxy", "lab", "--socks", "127.0.0.1:0"], env=lodge.environment,
                                 stdout=subprocess.PIPE, text=True)
        assert proxy.stdout.readline().startswith("socks ")
        os.kill(int(lodge.network_process().name), signal.SIGKILL)
        for _ in range(200):
            done = lodge("network", "leases", "lab", check=False)
            if "proxy" in done.stdout:
                break
            time.sleep(0.1)
        assert "proxy" in done.stdout, done
        proxy.terminate()
        assert proxy.wait(20) == 0


def a_killed_network_knows_its_leases():
    """Who comes after the process that gave addresses was killed gets another's from nobody."""
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "lab", "--kind", "isolated", "--subnet", "10.44.0.0/24")
        with Peer(lodge, "lab", "first") as first:
            leases = pathlib.Path(lodge.folder, "lodge-networks/lab/leases")
            for _ in range(100):
                if leases.exists() and first.address in leases.read_text():
                    break
                time.sleep(0.1)
            os.kill(int(lodge.network_process().name), signal.SIGKILL)
            first.cable.wait(20)
            with Peer(lodge, "lab", "second") as second:
                assert second.address != first.address, second.address
                mine = {l["name"]: l["address"] for l in json.loads(lodge("network", "leases", "lab", "--json").stdout)}
                assert mine == {"first": first.address, "second": second.address}, mine
        for _ in range(100):  # in good order nothing stays
            if not leases.exists():
                break
            time.sleep(0.1)
        assert not leases.exists()


def one_that_runs_is_kept_up():
    """`network up` of a network that something else brought up holds it, too; with --while-used it does not."""
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "lab", "--kind", "isolated")
        for kept in (False, True):
            lodge("network", "up", "lab", "--while-used")
            lodge("network", "up", "lab", *([] if kept else ["--while-used"]))
            time.sleep(6)  # unused ones go after three seconds
            for _ in range(200):
                up = "up" in lodge("network", "list").stdout
                if up == kept:
                    break
                time.sleep(0.1)
            assert up == kept, (kept, lodge.log("lab"))
        lodge("network", "down", "lab")


def requests_without_end():
    """A machine that asks for addresses under a thousand names gets what is its own, and another gets its lease."""
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "lab", "--kind", "isolated", "--subnet", "10.45.0.0/27")
        lodge("network", "up", "lab")
        wild = Cable(lodge, "lab", "wild", mac=text(mac(1)))
        for spoofed in (True, False):
            for n in range(1000):
                client = mac(1000 + n)
                data = (b"\1\1\6\0" + bytes(24) + client + bytes(202) + b"\x63\x82\x53\x63" + b"\x35\1\1\xff").ljust(300, b"\0")
                udp = b"\0\x44\0\x43" + (8 + len(data)).to_bytes(2, "big") + b"\0\0" + data
                head = b"\x45\0" + (20 + len(udp)).to_bytes(2, "big") + bytes(4) + b"\x40\x11\0\0" + bytes(4) + b"\xff" * 4
                words = sum(int.from_bytes(head[i:i + 2], "big") for i in range(0, 20, 2))
                head = head[:10] + (~(words % 65535) & 0xffff).to_bytes(2, "big") + head[12:]
                wild.send(b"\xff" * 6, client if spoofed else mac(1), b"\x08\0", head + udp)
        with Peer(lodge, "lab", "tame") as tame:
            assert tame.address.startswith("10.45.0."), tame.address
            leases = json.loads(lodge("network", "leases", "lab", "--json").stdout)
            assert len(leases) <= 2, leases
        wild.close()
        lodge("network", "down", "lab", "--force")


def a_bridge_is_rolled_back():
    """The gateway does not answer once the card is in the bridge: all is as it was, and one line says why."""
    need_namespaces()
    if not ROOT:
        raise Skip("needs root")
    host, lan = Namespace("host"), Namespace("lan")
    try:
        lan.run(f"ip link add eth0 type veth peer name card0 netns {host.holder.pid}; ip link set eth0 up; ip addr add 203.0.113.1/24 dev eth0")
        host.run("ip link set card0 up; ip addr add 203.0.113.2/24 brd + dev card0; ip route add default via 203.0.113.1")
        host.must_ping("203.0.113.1")
        host.run("nft add table inet f; nft 'add chain inet f o { type filter hook output priority 0 ; }'; "
                 "nft 'add rule inet f o oifname \"lg-*\" drop'")
        state = lambda: host.run("ip -br link | grep -v '^lo' | cut -d' ' -f1; ip -4 -o addr show scope global | grep -o 'inet .*brd'; ip -4 route")
        before = state()
        with Lodge(host.enter) as lodge:
            lodge("network", "create", "wire", "--kind", "bridge", "--uplink", "card0")
            lodge.fails("network", "up", "wire", saying="the gateway 203.0.113.1 does not answer any more")
            assert state() == before, (before, state())
            host.must_ping("203.0.113.1")
            host.run("nft delete table inet f")
            # The card goes down and up again below a network that is up.
            with Peer(lodge, "wire", "guest", lease=False) as guest:
                guest.run("ip addr add 203.0.113.9/24 dev eth0")
                guest.must_ping("203.0.113.1")
                host.run("ip link set card0 down; sleep 0.3; ip link set card0 up")
                guest.must_ping("203.0.113.1", tries=20)
    finally:
        host.close()
        lan.close()


if sys.argv[1:] == ["leases"]:
    main(a_killed_network_knows_its_leases)
else:
    main(a_thousand_ports, strangers_fill_only_their_own, requests_without_end, one_that_runs_is_kept_up, a_killed_network_comes_back, a_bridge_is_rolled_back)
