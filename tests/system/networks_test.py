# SPDX-License-Identifier: Apache-2.0
"""Networks with a name, without privileges: user, switch and isolated, their ports and their rules; the peers are network
namespaces."""

import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from kit import paths
from kit.case import Skip, main
from kit.peer import ROOT, Lodge, Peer, need_namespaces, transfer


def resolve(peer, name, server=None):
    """Addresses that a name server gives."""
    out = peer.run(f"busybox nslookup {name} {server or peer.dns}", check=False).stdout
    return [line.split()[-1] for line in out.splitlines() if line.startswith("Address") and "#" not in line and ":53" not in line]


TCP_NAMES = """
import socket,struct,sys
server,name,want=sys.argv[1:]
q=struct.pack('>HHHHHH',9,256,1,0,0,0)+b''.join(bytes([len(l)])+l.encode() for l in name.split('.'))+bytes(1)+struct.pack('>HH',1,1)
s=socket.create_connection((server,53),timeout=20)
s.sendall(struct.pack('>H',len(q))+q); f=s.makefile('rb')
a=f.read(struct.unpack('>H',f.read(2))[0]); print(a[-4:]==socket.inet_aton(want))
s.sendall(struct.pack('>H',len(q))); s.sendall(q)
a=f.read(struct.unpack('>H',f.read(2))[0]); s.shutdown(1); print(a[-4:]==socket.inet_aton(want), f.read())
"""


def names_by_tcp(peer, name, address):
    """Two questions on one connection, the second in two pieces; by IPv4 and by IPv6."""
    show = json.loads(peer.lodge("network", "show", peer.network, "--json").stdout)
    peer.address6()
    for server in (show["nameServer"], show["nameServer6"]):
        said = peer.run(f"python3 - {server} {name} {address} <<'END'\n{TCP_NAMES}END")
        assert said == "True\nTrue b''\n", (server, said)


class Web:
    """An HTTP server on the host's loopback that says hello."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"hello from outside\n")

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def routers_address_is_its_own(peer):
    """A packet from the link-local address that the network's router has goes nowhere."""
    router = re.search(r"default via (fe80::\S+)", peer.run("ip -6 route show default"))[1]
    peer.run(f"""python3 - {router} <<'END'
import socket, sys
own = bytes.fromhex(open('/sys/class/net/eth0/address').read().replace(':', ''))
packet = bytes.fromhex('6000000000003b01') + socket.inet_pton(10, sys.argv[1]) + socket.inet_pton(10, 'ff02::1')
card = socket.socket(17, 3)
card.bind(('eth0', 0))
for _ in range(20): card.send(bytes.fromhex('333300000001') + own + bytes.fromhex('86dd') + packet + bytes(20))
END""")
    for _ in range(50):
        ports = json.loads(peer.lodge("network", "show", peer.network, "--json").stdout)["ports"]
        if [p for p in ports if p["counters"]["spoofed"] >= 20]:
            return
        time.sleep(0.1)
    raise AssertionError(ports)


def user_network_is_shared():
    need_namespaces()
    web = Web()
    with Lodge() as lodge, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        lodge("network", "create", "lab", "--lease", "beta=10.0.2.77", "--forward", f"tcp:127.0.0.1:{port}:10.0.2.77:8080")
        with Peer(lodge, "lab", "alpha") as alpha, Peer(lodge, "lab", "beta") as beta:
            assert alpha.address == "10.0.2.15" and beta.address == "10.0.2.77", (alpha.address, beta.address)
            alpha.must_ping(beta.address)
            names_by_tcp(alpha, "beta.lab.internal", "10.0.2.77")
            assert resolve(alpha, "beta")[:1] == ["10.0.2.77"] and resolve(beta, "alpha.lab.internal")[:1] == ["10.0.2.15"]
            six = beta.address6()
            alpha.address6()
            alpha.must_ping(six)
            transfer(alpha, beta, beta.address)
            transfer(beta, alpha, alpha.address6(), 5)
            routers_address_is_its_own(alpha)
            # Out through NAT, and in through a forward.
            assert "hello from outside" in alpha.run(f"curl -sS --max-time 20 http://10.0.2.2:{web.port}/")
            server = beta.start("cd /; exec python3 -m http.server 8080 --bind 10.0.2.77")
            for _ in range(50):
                done = subprocess.run(["curl", "-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}",
                                       f"http://127.0.0.1:{port}/"], capture_output=True, text=True)
                if done.stdout == "200":
                    break
                time.sleep(0.2)
            assert done.stdout == "200", done
            server.kill()
            leases = json.loads(lodge("network", "leases", "lab", "--json").stdout)
            assert {l["address"]: l["name"] for l in leases} == {"10.0.2.15": "alpha", "10.0.2.77": "beta"}, leases
            assert "lab" in lodge("network", "list").stdout
            lodge.fails("network", "down", "lab", saying="is used by alpha, beta")
        for _ in range(100):
            if "up" not in lodge("network", "list").stdout:
                break
            time.sleep(0.1)
        assert "down" in lodge("network", "list").stdout, "the network stayed up without machines"


def ports_obey():
    """Isolation, VLANs, mirroring, spoofing, link, rate, delay and loss, counters."""
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "wires", "--kind", "switch", "--subnet", "10.9.0.0/24")
        with Peer(lodge, "wires", "a", "vlan=10", lease=False) as a, Peer(lodge, "wires", "b", "vlan=10", lease=False) as b, \
                Peer(lodge, "wires", "c", "vlan=20", lease=False) as c, \
                Peer(lodge, "wires", "t", "trunk=10+20", lease=False) as t, \
                Peer(lodge, "wires", "m", "mirror=b", lease=False) as m:
            for number, peer in enumerate((a, b, c, t), 11):
                peer.run(f"ip addr add 10.9.0.{number}/24 dev eth0")
            a.must_ping("10.9.0.12")
            assert not a.pings("10.9.0.13", wait=1), "VLANs are not apart"
            # The trunk's frames for VLAN 20 carry their tag: seen by a raw socket.
            seen = t.start("exec timeout 100 python3 -c \"import socket; s=socket.socket(17,3,0x300); s.bind(('eth0',0)); "
                           "s.setsockopt(263,8,1); print('up',flush=True)\nwhile True:\n d,anc,_,_=s.recvmsg(2048,256)\n"
                           " v=[int.from_bytes(x[2][16:18],'little') for x in anc if x[1]==8]\n"
                           " if v and v[0] in (10,20): print('tag',v[0],flush=True); break\"")
            mirrored = m.start("exec timeout 100 python3 -c \"import socket; s=socket.socket(17,3,0x300); s.bind(('eth0',0)); "
                               "print('up',flush=True)\nwhile True:\n d=s.recv(2048)\n"
                               " if d[12:14]==b'\\x08\\x00' and d[23]==1: print('echo',flush=True); break\"")
            assert seen.stdout.readline() == "up\n" and mirrored.stdout.readline() == "up\n"
            for _ in range(30):
                c.pings("10.9.0.99", wait=1)
                a.pings("10.9.0.12", wait=1)
                if seen.poll() is not None and mirrored.poll() is not None:
                    break
            assert "tag" in seen.communicate(timeout=100)[0]
            assert "echo" in mirrored.communicate(timeout=100)[0]

            # Spoofing: another's IP address, another's MAC; only the spoofer suffers.
            a.run("ip addr add 10.9.0.12/24 dev eth0")
            a.run("busybox ping -c 2 -W 1 -I 10.9.0.12 10.9.0.14; true")
            a.run("ip addr del 10.9.0.12/24 dev eth0")
            a.run("python3 -c \"import socket; s=socket.socket(17,3); s.bind(('eth0',0))\n"
                  "for i in range(2000): s.send(b'\\xff'*6+bytes([2,0,0,0,i>>8,i&255])+b'\\x08\\x00'+bytes(60))\"")
            now = lambda: {p["name"]: p for p in json.loads(lodge("network", "show", "wires", "--json").stdout)["ports"]}
            for _ in range(100):
                ports = now()
                if ports["a"]["counters"]["spoofed"] >= 500:
                    break
                time.sleep(0.1)
            assert ports["a"]["counters"]["spoofed"] >= 500, ports["a"]
            assert ports["b"]["counters"]["framesIn"] > 0 and ports["b"]["counters"]["spoofed"] == 0
            a.must_ping("10.9.0.12")

            lodge("network", "edit", "wires", "--port", "b", "--set", "link=down")
            assert not a.pings("10.9.0.12", wait=1)
            lodge("network", "edit", "wires", "--port", "b", "--set", "link=up,delay=60ms")
            a.must_ping("10.9.0.12")
            out = a.run("busybox ping -c 8 -W 5 10.9.0.12")
            fastest = float(out.split("min/avg/max")[1].split("=")[1].split("/")[0])
            assert 115 < fastest < 3000, out
            lodge("network", "edit", "wires", "--port", "b", "--set", "loss=100%")
            assert not a.pings("10.9.0.12", wait=1)
            lodge("network", "edit", "wires", "--port", "b", "--set", "rate=16M,loss=0%")
            start = time.monotonic()
            transfer(a, b, "10.9.0.12", 4)
            took = time.monotonic() - start
            assert took > 1.7, f"4 MiB at 16 Mbit/s took {took:.2f} s"
            lodge.fails("network", "edit", "wires", "--port", "zzz", "--set", "link=down", saying="has no port 'zzz'")


def capture_is_read_by_tshark():
    need_namespaces()
    if not shutil.which("tshark"):
        raise Skip("there is no tshark")
    with Lodge() as lodge, tempfile.TemporaryDirectory() as folder:
        lodge("network", "create", "tape", "--kind", "isolated")
        with Peer(lodge, "tape", "x") as x, Peer(lodge, "tape", "y") as y:
            file = pathlib.Path(folder) / "all.pcapng"
            capture = subprocess.Popen([str(lodge_path()), "network", "capture", "tape", "-w", str(file)],
                                       env=lodge.environment)
            for _ in range(200):  # until its header is there
                if file.exists() and file.stat().st_size > 0:
                    break
                time.sleep(0.1)
            before = file.stat().st_size
            x.must_ping(y.address)
            size = before
            while size != file.stat().st_size or size == before:  # until all has been written
                size = file.stat().st_size
                time.sleep(1)
            capture.send_signal(signal.SIGINT)
            assert capture.wait(30) == 0
            out = subprocess.run(["tshark", "-r", str(file), "-Y", "icmp.type == 8", "-T", "fields", "-e", "frame.interface_name",
                                  "-e", "ip.dst"], capture_output=True, text=True, timeout=60)
            rows = {tuple(line.split("\t")) for line in out.stdout.splitlines()}
            assert {("x", y.address), ("y", y.address)} <= rows, out
            names_by_tcp(x, "y.tape.internal", y.address)
            assert x.router is None or not x.pings("198.51.100.1", wait=1)


def tunnels_join_switches():
    """Two switches of two folders, as of two users, over TCP and UDP; one has the services."""
    need_namespaces()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for protocol in ("tcp", "udp"):
        with Lodge() as here, Lodge() as there:
            here("network", "create", "left", "--kind", "switch", "--subnet", "10.55.0.0/24", "--tunnel", f"{protocol}:listen:127.0.0.1:{port}")
            there("network", "create", "right", "--kind", "switch", "--subnet", "10.55.0.0/24", "--dhcp", "off",
                  "--tunnel", f"{protocol}:connect:127.0.0.1:{port}")
            with Peer(here, "left", "a") as a, Peer(there, "right", "b") as b:
                assert a.address and b.address and a.address != b.address, (a.address, b.address)
                a.must_ping(b.address)
                transfer(a, b, b.address, 5)
                transfer(b, a, a.address, 5)
                assert resolve(b, "a", "10.55.0.2") == [a.address]
                # The side that listens goes and comes back.
                assert f"{protocol}:listen:127.0.0.1:{port}" in here("network", "show", "left").stdout
                if protocol == "udp":
                    continue
                noise = socket.create_connection(("127.0.0.1", port))
                noise.sendall(bytes(range(256)) * 99)
                noise.close()
                a.must_ping(b.address, tries=20)
            here.fails("network", "create", "x", "--kind", "switch", "--tunnel", "tcp:listen:nowhere:1", saying="is no tunnel")
            here.fails("network", "create", "x", "--tunnel", f"tcp:listen:127.0.0.1:{port}", saying="only a switch has tunnels")


def lodge_path():
    from kit import paths
    return paths.LODGE


def egress_rules():
    """Domains, aliases, addresses, DNS by TCP; the name server outside is a program of the test's."""
    need_namespaces()
    server = NameServer()
    web = Web()
    with Lodge() as lodge:
        lodge("network", "create", "closed", "--egress-default", "deny", "--egress", "allow *.good.test",
              "--egress", "deny udp 198.51.100.0/24", "--dns", "127.0.0.1")
        # Names are asked of port 53 of the loopback only where the test may listen there.
        if not server.start():
            raise Skip("port 53 of the loopback is not to be had")
        with Peer(lodge, "closed", "guest") as guest:
            # 10.0.2.2 is inside; what is outside is told apart by refusals in the log.
            assert "hello" in guest.run(f"curl -sS --max-time 20 http://10.0.2.2:{web.port}/")

            def tried(address, port):
                guest.run(f"python3 -c \"import socket; s=socket.socket({'10' if ':' in address else '2'}); s.settimeout(0.7)\n"
                          f"try: s.connect(('{address}',{port}))\nexcept OSError: pass\"")
                time.sleep(0.2)
                return f"tcp {address} port {port} refused" in lodge.log("closed")

            def refused(address, port=80):
                """Tried until the log says so: on a busy host the network may be slow."""
                return any(tried(address, port) for _ in range(10))

            def passes(address, port=80):
                return not tried(address, port)

            assert refused("203.0.113.1")
            assert resolve(guest, "www.good.test") == ["203.0.113.5"], resolve(guest, "www.good.test")
            assert passes("203.0.113.5")
            assert resolve(guest, "alias.good.test")[-1:] == ["203.0.113.6"]
            assert passes("203.0.113.6")
            assert resolve(guest, "evil.test") == ["203.0.113.7"]
            assert refused("203.0.113.7")
            # Somebody else's name for the same address opens nothing, and neither does an address without a look-up.
            assert refused("203.0.113.8")
            guest.run("python3 -c \"import socket,struct; q=struct.pack('>HHHHHH',9,256,1,0,0,0)+b'\\x03tcp\\x04good\\x04test\\0'"
                      f"+struct.pack('>HH',1,1); s=socket.create_connection(('{guest.dns}',53),timeout=10); "
                      "s.sendall(struct.pack('>H',len(q))+q); print(len(s.recv(4096)))\"")
            assert passes("203.0.113.9"), "an answer by TCP was not seen"
            # Aliases of aliases lead to the address of the name that was asked for; an alias that leads to a good
            # name's address is not a good name.
            assert resolve(guest, "chain.good.test")[-1:] == ["203.0.113.10"]
            assert passes("203.0.113.10")
            assert resolve(guest, "sly.test")[-1:] == ["203.0.113.11"]
            assert refused("203.0.113.11")
            # The answer changes: the new address is open from its look-up on, and the old one still is for a while.
            server.NAMES["www.good.test"] = "203.0.113.15"
            assert refused("203.0.113.15")
            assert resolve(guest, "www.good.test") == ["203.0.113.15"]
            time.sleep(0.6)  # refused flows are judged again each half second
            assert passes("203.0.113.15", 81) and passes("203.0.113.5", 81)
            # IPv6: by its own look-up only.
            guest.address6()
            assert refused("2001:db8::5") and refused("2001:db8::7")
            assert "2001:db8::5" in resolve(guest, "six.good.test")
            time.sleep(0.6)
            assert passes("2001:db8::5", 81)
            assert resolve(guest, "six.evil.test") == ["2001:db8::7"]
            time.sleep(0.6)
            assert refused("2001:db8::7", 81)
            show = lodge("network", "show", "closed").stdout
            assert "allow *.good.test" in show and "refused by rule 'default'" in show, show
            lodge("network", "edit", "closed", "--no-egress-rules", "--egress-default", "allow")
            assert passes("203.0.113.77")
    server.stop()


class NameServer:
    """Names of .test, by UDP and TCP, on the loopback's port 53."""
    NAMES = {"www.good.test": "203.0.113.5", "target.cdn.test": "203.0.113.6", "evil.test": "203.0.113.7",
             "tcp.good.test": "203.0.113.9", "far.cdn.test": "203.0.113.10", "fine.good.test": "203.0.113.11"}
    NAMES6 = {"six.good.test": "2001:db8::5", "six.evil.test": "2001:db8::7"}
    ALIASES = {"alias.good.test": "target.cdn.test", "chain.good.test": "near.cdn.test", "near.cdn.test": "mid.cdn.test",
               "mid.cdn.test": "far.cdn.test", "sly.test": "fine.good.test"}

    def start(self):
        try:
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind(("127.0.0.1", 53))
            self.tcp = socket.socket()
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.tcp.bind(("127.0.0.1", 53))
            self.tcp.listen()
        except OSError:
            return False
        threading.Thread(target=self.serve_udp, daemon=True).start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()
        return True

    def stop(self):
        self.udp.close()
        self.tcp.close()

    def answer(self, query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question = query[12:at + 5]
        name, kind = ".".join(labels), query[at + 2]
        encode = lambda text: b"".join(bytes([len(p)]) + p.encode() for p in text.split(".")) + b"\0"
        records, final = [], name
        while final in self.ALIASES:
            target = encode(self.ALIASES[final])
            records.append(encode(final) + b"\0\x05\0\x01\0\0\0\x3c" + len(target).to_bytes(2, "big") + target)
            final = self.ALIASES[final]
        if kind == 1 and final in self.NAMES:
            records.append(encode(final) + b"\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton(self.NAMES[final]))
        if kind == 28 and final in self.NAMES6:
            records.append(encode(final) + b"\0\x1c\0\x01\0\0\0\x3c\0\x10" + socket.inet_pton(socket.AF_INET6, self.NAMES6[final]))
        code = 0 if final in self.NAMES or final in self.NAMES6 else 3
        return query[:2] + bytes([0x81, 0x80 | code]) + b"\0\x01" + len(records).to_bytes(2, "big") + bytes(4) + question + \
            b"".join(records)

    def serve_udp(self):
        while True:
            try:
                query, client = self.udp.recvfrom(4096)
                self.udp.sendto(self.answer(query), client)
            except OSError:
                return

    def serve_tcp(self):
        while True:
            try:
                client, _ = self.tcp.accept()
            except OSError:
                return
            with client:
                data = client.recv(4096)
                answer = self.answer(data[2:])
                client.sendall(len(answer).to_bytes(2, "big") + answer)


def bad_input_is_one_line():
    with Lodge() as lodge:
        lodge("network", "create", "one", "--kind", "switch", "--subnet", "10.77.0.0/16")
        lodge.fails("network", "create", "one", saying="is there already")
        lodge.fails("network", "create", "two", "--kind", "switch", "--subnet", "10.77.3.0/24", saying="overlaps with network 'one'")
        lodge.fails("network", "create", "two", "--subnet", "10.77.3.1/24", saying="host bits are set; 10.77.3.0/24 was meant?")
        lodge.fails("network", "create", "two", "--subnet", "10.77.3.0/33", saying="must be 0 to 32")
        lodge.fails("network", "create", "two", "--lease", "a=192.0.2.1", saying="is not in 10.0.2.0/24")
        lodge.fails("network", "create", "two", "--kind", "bridge", saying="needs the host's card")
        lodge.fails("network", "create", "two", "--egress", "permit any", saying="neither allow nor deny")
        lodge.fails("network", "create", "user", saying="is no name for a network")
        lodge.fails("network", "show", "two", saying="there is no network 'two'")
        lodge.fails("network", "leases", "one", saying="is not up")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            lodge("network", "create", "three", "--forward", f"tcp:127.0.0.1:{port}:80")
            lodge.fails("network", "up", "three", saying=f"forward tcp 127.0.0.1:{port}")
            assert "down" in lodge("network", "list").stdout
        # What was brought up by name stays up, edited or not, until it is taken down.
        lodge("network", "up", "one")
        lodge("network", "edit", "one", "--egress-default", "deny")
        time.sleep(5)
        assert json.loads(lodge("network", "list", "--json").stdout)[0]["up"], lodge("network", "list").stdout
        lodge("network", "down", "one")
        left = {json.loads(lodge("network", "list", "--json").stdout)[i]["name"] for i in range(2)}
        assert left == {"one", "three"}


def kinds_that_one_cannot_have():
    """Who may not bring a network up is told when it is made, with what would help."""
    other = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if ROOT else []
    helper = paths.BUILD / "lodge-network-helper"
    if subprocess.run([*other, "test", "-x", helper]).returncode != 0:
        raise Skip("another user cannot reach the program")
    if os.getxattr(helper, "security.capability") if "security.capability" in os.listxattr(helper) else None:
        raise Skip("everybody may")
    with Lodge(other) as lodge:
        if ROOT:
            os.chown(lodge.folder, 65534, 65534)
        done = lodge("network", "create", "out", "--kind", "nat")
        lines = done.stderr.splitlines()
        assert done.stdout == "out\n" and len(lines) == 1 and "'out' of kind nat cannot come up yet: CAP_NET_ADMIN is needed: run as root" in lines[0], done
        lodge.fails("network", "up", "out", saying="CAP_NET_ADMIN")
        assert lodge("network", "create", "alone", "--kind", "isolated").stderr == ""
        assert "not nat, internal, bridge and wifi: CAP_NET_ADMIN is needed" in " ".join(lodge("doctor", check=False).stdout.split())


main(user_network_is_shared, ports_obey, tunnels_join_switches, capture_is_read_by_tshark, egress_rules, bad_input_is_one_line,
     kinds_that_one_cannot_have)
