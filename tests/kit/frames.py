# SPDX-License-Identifier: Apache-2.0
"""Ethernet frames, honest and not, and ports of Lodge's networks that send and receive them as a machine would."""

import fcntl
import ipaddress
import json
import os
import select
import socket
import struct
import time

HEADER = bytes(10)  # virtio's, which asks for nothing
BROADCAST = b"\xff" * 6
IP4, ARP, IP6, VLAN, SERVICE_VLAN = 0x800, 0x806, 0x86dd, 0x8100, 0x88a8
ICMP, IGMP, UDP, ICMP6 = 1, 2, 17, 58
QUERY6, RS, RA, NS, NA = 130, 133, 134, 135, 136
ALL_NODES = "ff02::1"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ip(text):
    return ipaddress.ip_address(text).packed


def link_local(hardware):
    return str(ipaddress.ip_address(b"\xfe\x80" + bytes(6) + bytes([hardware[0] ^ 2]) + hardware[1:3] + b"\xff\xfe" + hardware[3:]))


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data[:len(data) & ~1])) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ether(to, source, kind, payload):
    return to + source + struct.pack(">H", kind) + payload


def arp(sender_mac, sender, target, reply=True, hardware=1):
    return struct.pack(">HHBBH", hardware, IP4, 6, 4, 2 if reply else 1) + sender_mac + ip(sender) + BROADCAST + ip(target)


def udp(source_port, port, data=b"x"):
    return struct.pack(">HHHH", source_port, port, 8 + len(data), 0) + data


def ip4(source, to, protocol, payload, words=5, options=b""):
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, 20 + len(options) + len(payload), 7, 0, 64, protocol, 0) + ip(source) + ip(to)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + options + payload


def ip6(source, to, protocol, payload, limit=255):
    return struct.pack(">IHBB", 0x60000000, len(payload), protocol, limit) + ip(source) + ip(to) + payload


def icmp6(source, to, kind, body):
    data = struct.pack(">BBH", kind, 0, 0) + body
    pseudo = ip(source) + ip(to) + struct.pack(">II", len(data), ICMP6)
    return data[:2] + struct.pack(">H", checksum(pseudo + data)) + data[4:]


def address_option(kind, hardware):
    return bytes([kind, 1]) + hardware


def advert(source, target, *options):
    """An unsolicited neighbour advertisement."""
    return icmp6(source, ALL_NODES, NA, b"\x20\0\0\0" + ip(target) + b"".join(options))


def marked(frame, number):
    """The frame with a number in it that it has when it arrives: the identification of IPv4, the flow label of IPv6, what
    comes behind other payloads (behind an IP packet the host may cut it off)."""
    kind, at = struct.unpack(">H", frame[12:14])[0], 14
    if kind == IP4:
        head = bytearray(frame[at:at + 4 * (frame[at] & 15)])
        head[4:6], head[10:12] = struct.pack(">H", number), b"\0\0"
        head[10:12] = struct.pack(">H", checksum(head))
        return frame[:at] + bytes(head) + frame[at + len(head):]
    if kind == IP6:
        return frame[:at + 2] + struct.pack(">H", number) + frame[at + 4:]
    return frame + bytes(max(0, 60 - len(frame))) + struct.pack(">4sH", b"mark", number)


def mark_of(frame):
    """The number that marked() put in; None: there is none."""
    kind, at = struct.unpack(">H", frame[12:14])[0], 14
    if kind in (IP4, IP6):
        return struct.unpack(">H", frame[at + 4:at + 6] if kind == IP4 else frame[at + 2:at + 4])[0]
    return struct.unpack(">H", frame[-2:])[0] if frame[-6:-2] == b"mark" else None


class Port:
    """A port of a network, by its socket: behind the switch, or (`direct`) a tap device in the host's bridge."""

    def __init__(self, lodge, network, name, hardware, direct=False, must=True, **settings):
        self.name, self.mac = name, hardware
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(30)
        self.socket.connect(f"{lodge.folder}/lodge-networks/{network}/ports")
        request = {"name": name, "mac": ":".join(f"{b:02x}" for b in hardware), **settings}
        if direct:
            request["direct"] = {"queues": 1, "must": must}
        self.socket.send(json.dumps(request).encode())
        reply, self.fds, _, _ = socket.recv_fds(self.socket, 65536, 8)
        self.reply = json.loads(reply)
        assert self.reply["ok"], self.reply
        assert bool(self.fds) == direct, self.reply
        self.fd = self.fds[0] if direct else self.socket.fileno()
        fcntl.fcntl(self.fd, fcntl.F_SETFL, fcntl.fcntl(self.fd, fcntl.F_GETFL) | os.O_NONBLOCK)

    def send(self, frame):
        os.write(self.fd, HEADER + frame)

    def receive(self):
        """The next frame; None: there is none."""
        try:
            return os.read(self.fd, 70000)[len(HEADER):]
        except BlockingIOError:
            return None

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class PacketSocket:
    """All frames of a card, in whatever namespace that is."""

    def __init__(self, namespace, card):
        with open("/proc/self/ns/net") as own, open(f"/proc/{namespace.holder.pid}/ns/net") as other:
            setns(other.fileno())
            try:
                self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                self.socket.bind((card, 0))
            finally:
                setns(own.fileno())
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.fd = self.socket.fileno()
        self.socket.setblocking(False)
        self.name = card

    def receive(self):
        try:
            return self.socket.recv(70000)
        except BlockingIOError:
            return None

    def send(self, frame):
        self.socket.send(frame)

    def close(self):
        self.socket.close()


def setns(fd):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def received(port, last, seconds=30):
    """The numbers of all frames up to the one with the number `last`, which must come."""
    numbers, end = [], time.monotonic() + seconds
    while True:
        frame = port.receive()
        if frame is None:
            left = end - time.monotonic()
            assert left > 0, f"{port.name}: what was to come did not; {len(numbers)} other frames did"
            select.select([port.fd], [], [], left)
            continue
        if len(frame) >= 20:
            numbers.append(mark_of(frame))
            if numbers[-1] == last:
                return numbers
