# SPDX-License-Identifier: Apache-2.0
"""Pictures of screens: JPEG files, and PNG files as `lodge screenshot` writes them, 8 bits a channel, without interlacing."""

import struct
import subprocess
import zlib


def read_png(path):
    """(width, height, rows): each row the bytes of its pixels."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", path
    at, packed, header = 8, b"", None
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        if kind == b"IDAT":
            packed += body
        at += 12 + length
    width, height, depth, color, _, _, interlaced = header
    assert depth == 8 and color in (2, 6) and not interlaced, path
    size = 3 if color == 2 else 4
    raw, stride, rows, before = zlib.decompress(packed), width * size, [], bytes(width * size)
    for y in range(height):
        row = _unfilter(raw[y * (stride + 1)], raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)], before, size)
        rows.append(row)
        before = row
    return width, height, rows


def _unfilter(kind, given, above, size):
    """RFC 2083, 6: the filters by which PNG makes rows easier to compress."""
    if kind == 0:
        return given
    row = bytearray(given)
    for n in range(len(row)):
        left = row[n - size] if n >= size else 0
        corner = above[n - size] if n >= size else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = above[n]
        elif kind == 3:
            guess = (left + above[n]) // 2
        else:
            estimate = left + above[n] - corner
            guess = min((left, above[n], corner), key=lambda v: abs(estimate - v))
        row[n] = (row[n] + guess) & 255
    return bytes(row)


def read_jpeg(path):
    """The same of a JPEG file, by djpeg."""
    data = subprocess.run(["djpeg", "-pnm", path], check=True, capture_output=True).stdout
    kind, size, most, pixels = data.split(b"\n", 3)
    width, height = (int(word) for word in size.split())
    assert kind == b"P6" and most == b"255", path
    return width, height, [pixels[3 * width * y:3 * width * (y + 1)] for y in range(height)]


def likeness(first, second, tolerance=0):
    """The part of bytes that differ by no more than `tolerance`, 0 to 1; 0 for pictures of different sizes."""
    width, height, rows = first
    if (width, height) != second[:2] or len(rows[0]) != len(second[2][0]):
        return 0.0
    equal = sum(len(a) if a == b else sum(abs(x - y) <= tolerance for x, y in zip(a, b)) for a, b in zip(rows, second[2]))
    return equal / (len(rows) * len(rows[0]))
