# SPDX-License-Identifier: Apache-2.0
"""The commands of 'lodge image': results, errors, exit statuses, the qemu-img name, NBD, images made elsewhere."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import unittest

from image_kit import LODGE, ImageTest, pattern

MIB = 1 << 20


class Commands(ImageTest):
    def test_info_and_map(self):
        self.write("base.raw", b"x" * MIB)
        self.lodge("create", "-b", "base.raw", "-F", "raw", "a.qcow2", "2M")
        info = self.lodge_json("info", "a.qcow2")
        self.assertEqual((info["format"], info["virtual-size"], info["backing-filename"]), ("qcow2", 2 * MIB, "base.raw"))
        self.assertEqual(len(self.lodge_json("info", "--backing-chain", "a.qcow2")), 2)
        ranges = self.lodge_json("map", "a.qcow2")
        self.assertEqual([(r["start"], r["length"], r["depth"], r["data"]) for r in ranges],
                         [(0, MIB, 1, True), (MIB, MIB, 0, False)])

    def test_create_tells_what_it_made(self):
        made = self.lodge_json("create", "-o", "cluster_size=4k", "a.qcow2", "3M")
        self.assertEqual(made, {"filename": "a.qcow2", "format": "qcow2", "virtual-size": 3 * MIB})

    def test_compare_tells_the_place(self):
        self.write("a.raw", b"x" * MIB)
        self.write("b.raw", b"x" * 5000 + b"y" + b"x" * (MIB - 5001))
        result = self.lodge("compare", "a.raw", "b.raw", check=False)
        self.assertEqual((result.returncode, result.stdout), (2, "Content mismatch at offset 5000!\n"))

    def test_failed_conversions_leave_nothing(self):
        self.write("a.raw", b"x" * MIB)
        self.write("old.qcow2", b"old")
        for words in ["-O", "qcow2", "-o", "cluster_size=3"], ["-O", "fs"], ["-O", "raw", "-c"]:
            self.assertEqual(self.lodge("convert", *words, "a.raw", "old.qcow2", check=False).returncode, 2)
        self.assertEqual(self.read("old.qcow2"), b"old")
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.raw", "old.qcow2"])

    def test_interrupted_conversions_leave_nothing(self):
        with open(self.path("big.raw"), "wb") as big:
            for _ in range(300):
                big.write(os.urandom(MIB))
        process = subprocess.Popen([LODGE, "image", "convert", "-c", "-O", "qcow2", "big.raw", "out.qcow2"], cwd=self.folder)
        while not any(name.startswith(".out") for name in os.listdir(self.folder)):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(30), 4)
        self.assertEqual(os.listdir(self.folder), ["big.raw"])

    def test_names_in_images_stay_in_their_folder(self):
        os.mkdir(self.path("in"))
        self.write("secret.raw", b"s" * MIB)
        self.lodge("create", "-u", "-b", "../secret.raw", "-F", "raw", "in/a.qcow2", "1M")
        result = self.lodge("convert", "in/a.qcow2", "out.raw", check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn("outside the image's folder", result.stderr)
        self.lodge("convert", "--allow-path", self.folder, "in/a.qcow2", "out.raw")
        self.assertEqual(self.read("out.raw"), b"s" * MIB)

    def test_a_loop_is_found(self):
        self.lodge("create", "-u", "-b", "b.qcow2", "-F", "qcow2", "a.qcow2", "1M")
        self.lodge("create", "-u", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2", "1M")
        result = self.lodge("convert", "a.qcow2", "out.raw", check=False)
        self.assertIn("comes back to", result.stderr)

    def test_sizes(self):
        self.lodge("create", "a.qcow2", "10M")
        self.lodge("resize", "a.qcow2", "+10M")
        self.assertEqual(self.lodge("resize", "a.qcow2", "-5M", check=False).returncode, 2)
        self.lodge("resize", "--shrink", "a.qcow2", "-5M")
        self.assertEqual(self.lodge_json("info", "a.qcow2")["virtual-size"], 15 * MIB)
        self.lodge("create", "huge.qcow2", "16T")
        self.assertLess(os.path.getsize(self.path("huge.qcow2")), MIB)


    def test_commit_over_several_layers(self):
        content = bytearray(pattern(4 * MIB, 9))
        self.write("base.raw", bytes(content[:2 * MIB]))
        self.lodge("create", "-b", "base.raw", "-F", "raw", "one.qcow2", "3M")
        self.lodge("create", "-b", "one.qcow2", "-F", "qcow2", "-o", "cluster_size=4K", "two.qcow2", "4M")
        self.lodge("create", "-b", "two.qcow2", "-F", "qcow2", "-o", "extended_l2=on", "top.qcow2")
        content[2 * MIB:] = bytes(2 * MIB)
        for name, offset, value in ("one.qcow2", 100 << 10, 1), ("two.qcow2", 110 << 10, 2), ("top.qcow2", 3 * MIB + 512, 3):
            self.need_qemu()
            self.run_command("qemu-io", "-f", "qcow2", "-c", "write -P %d %d 50k" % (value, offset), name)
            content[offset:offset + (50 << 10)] = bytes([value]) * (50 << 10)
        refused = self.lodge("commit", "-b", "elsewhere.raw", "top.qcow2", check=False)
        self.assertIn("not among the images", refused.stderr)
        self.lodge("commit", "-b", "base.raw", "top.qcow2")
        self.assertEqualContent(self.read("base.raw"), bytes(content))
        self.lodge("compare", "base.raw", "top.qcow2")

    def test_several_sources_are_joined(self):
        parts = [pattern(MIB + 512, 1), pattern(3 * MIB, 2), pattern(512, 3)]
        for number, part in enumerate(parts):
            self.write("%d.raw" % number, part)
        self.lodge("convert", "1.raw", "1.qcow2")
        for words in ["out.qcow2"], ["-c", "out.qcow2"], ["-O", "vmdk", "-o", "subformat=streamOptimized", "out.vmdk"]:
            self.lodge("convert", "0.raw", "1.qcow2", "2.raw", *words)
            self.lodge("convert", words[-1], "back.raw")
            self.assertEqualContent(self.read("back.raw"), b"".join(parts))

    def test_a_part_of_a_disk(self):
        content = pattern(3 * MIB, 4)
        self.write("a.raw", content)
        self.lodge("convert", "a.raw", "a.qcow2")
        for operands, start, end in [(["bs=1000", "count=77", "skip=13"], 13000, 90000), (["bs=1M", "skip=1"], MIB, 3 * MIB),
                                     (["count=3"], 0, 1536), (["bs=2M", "count=7"], 0, 3 * MIB)]:
            with self.subTest(operands):
                self.lodge("dd", "-O", "vdi", "if=a.qcow2", "of=b.vdi", *operands)
                self.lodge("convert", "b.vdi", "b.raw")
                part = content[start:end]
                self.assertEqualContent(self.read("b.raw"), part + bytes(-len(part) % 512))
        for words, what in [(["if=a.raw"], "both input and output"), (["if=a.raw", "of=x", "seek=1"], "unrecognized operand seek=1"),
                            (["if=a.raw", "of=x", "bs=0"], "Invalid bs"), (["if=a.raw", "of=x", "bs=1M", "skip=4"], "cannot skip")]:
            self.assertIn(what, self.lodge("dd", *words, check=False).stderr)
        self.assertFalse(os.path.exists(self.path("x")))

    def test_requests_are_timed(self):
        self.lodge("create", "a.qcow2", "1M")
        words = ["-w", "--pattern", "7", "-c", "100", "-d", "4", "-s", "4K", "-S", "8K", "--flush-interval", "10", "a.qcow2"]
        told = self.lodge("bench", *words).stdout
        self.assertRegex(told, "Sending 100 write requests, 4096 bytes each, 4 in parallel .starting at offset 0, step size 8192.\n"
                               "Sending flush every 10 requests\nRun completed in [0-9.]+ seconds.\n")
        self.lodge("convert", "a.qcow2", "a.raw")
        self.assertEqualContent(self.read("a.raw"), (bytes([7]) * 4096 + bytes(4096)) * 100 + bytes(MIB - 100 * 8192))
        told = self.lodge_json("bench", "-c", "1000", "-o", "512", "-S", "8K", "a.qcow2")
        self.assertEqual((told["requests"], told["bytes"], told["depth"]), (1000, 4096, 64))
        for words in ["-d", "0"], ["--flush-interval", "100"], ["-s", "2M"]:
            self.assertEqual(self.lodge("bench", *words, "a.qcow2", check=False).returncode, 2)

    def test_a_vdi_child_and_its_parent(self):
        content = bytearray(pattern(4 * MIB, 5))
        self.write("a.raw", bytes(content))
        self.lodge("convert", "-O", "vdi", "a.raw", "parent.vdi")
        self.write("b.raw", bytes(MIB) + b"c" * MIB + bytes(2 * MIB))
        self.lodge("convert", "-O", "vdi", "b.raw", "child.vdi")
        child = bytearray(self.read("child.vdi"))
        child[76:80] = (4).to_bytes(4, "little")  # differencing
        child[424:440] = self.read("parent.vdi")[392:408]
        self.write("child.vdi", child)
        content[MIB:2 * MIB] = b"c" * MIB
        self.lodge("convert", "child.vdi", "out.raw")
        self.assertEqualContent(self.read("out.raw"), bytes(content))
        self.assertIn("differencing", json.dumps(self.lodge_json("info", "child.vdi")))
        refused = self.lodge("resize", "child.vdi", "8M", check=False)
        self.assertIn("differencing", refused.stderr)
        os.unlink(self.path("parent.vdi"))
        alone = self.lodge("convert", "child.vdi", "out.raw", check=False)
        self.assertIn("parent", alone.stderr)


class QemuImgName(ImageTest):
    """Called by the name qemu-img."""

    def setUp(self):
        super().setUp()
        self.name = self.path("qemu-img")
        os.symlink(os.path.abspath(LODGE), self.name)

    def img(self, *words, status=0):
        result = self.run_command(self.name, *words, check=False)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result

    def test_command_lines_of_qemu(self):
        self.img("create", "-f", "qcow2", "-o", "cluster_size=4096", "a.qcow2", "1073741824")
        self.assertEqual(json.loads(self.img("info", "--output=json", "a.qcow2").stdout)["cluster-size"], 4096)
        self.img("snapshot", "-c", "one", "a.qcow2")
        self.assertIn("one", self.img("snapshot", "-l", "a.qcow2").stdout)
        self.img("convert", "-p", "-f", "qcow2", "-O", "raw", "-S", "4k", "-m", "4", "-W", "a.qcow2", "b.raw")
        self.img("compare", "a.qcow2", "b.raw")
        self.img("check", "-r", "all", "a.qcow2")
        self.img("resize", "--shrink", "a.qcow2", "-512M", status=1)  # it has a snapshot
        self.img("snapshot", "-d", "one", "a.qcow2")
        self.img("resize", "--shrink", "a.qcow2", "-512M")
        self.write("c.raw", b"x" * 512)
        self.img("compare", "c.raw", "b.raw", status=1)
        self.img("amend", "a.qcow2", status=1)
        self.assertIn("Run completed", self.img("bench", "-c", "100", "a.qcow2").stdout)
        self.img("dd", "-f", "qcow2", "-O", "raw", "bs=1M", "count=2", "if=a.qcow2", "of=part.raw")
        self.assertEqual(os.path.getsize(self.path("part.raw")), 2 * MIB)
        self.assertIn("cluster_size", self.img("create", "-f", "qcow2", "-o", "help").stdout)
        named = ["json:{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"a.qcow2\"}}", "file:a.qcow2"]
        for words in [[name] for name in named] + [["--image-opts", "driver=qcow2,file.filename=a.qcow2"]]:
            self.assertEqual(json.loads(self.img("info", "--output=json", *words).stdout)["format"], "qcow2")
        self.img("info", "--image-opts", "driver=qcow2,encrypt.key-secret=x,file.filename=a.qcow2", status=1)
        self.img("create", "-f", "vpc", "a.vhd", "10M")
        self.assertEqual(json.loads(self.img("info", "--output=json", "a.vhd").stdout)["format"], "vpc")
        self.img("convert", "--salvage", "-O", "raw", "a.qcow2", "d.raw")
        self.img("convert", "--target-is-zero", "-O", "raw", "a.qcow2", "d.raw", status=1)
        self.img("bitmap", "--add", "--disable", "a.qcow2", "marks")
        self.img("measure", "--output=json", "-O", "qcow2", "-l", "snapshot.name=none", "a.qcow2", status=1)
        self.assertEqual(json.loads(self.img("measure", "--output=json", "-O", "qcow2", "a.qcow2").stdout)["bitmaps"], 3 << 16)


    def test_what_it_refuses_as_qemu_does(self):
        self.need_qemu()
        self.write("base.raw", b"x" * MIB)
        self.qemu_img("create", "-f", "qcow2", "a.qcow2", "1M")
        for words in (["create", "-f", "qcow2", "-b", "base.raw", "b.qcow2"],
                      ["create", "-f", "qcow2", "-u", "-b", "base.raw", "b.qcow2", "1M"],
                      ["convert", "-O", "qcow2", "-B", "base.raw", "a.qcow2", "b.qcow2"],
                      ["rebase", "-b", "base.raw", "a.qcow2"], ["resize", "a.qcow2", "20000001"]):
            with self.subTest(words):
                theirs = self.qemu_img(*words, check=False)
                ours = self.img(*words, status=theirs.returncode)
                self.assertEqual(theirs.returncode, 1)
                self.assertTrue(ours.stderr.startswith(theirs.stderr.splitlines()[0]), ours.stderr + theirs.stderr)
                self.assertFalse(os.path.exists(self.path("b.qcow2")))
        self.img("resize", "-f", "raw", "base.raw", "2000001")
        self.assertEqual(os.path.getsize(self.path("base.raw")), 2000384)


class Nbd(ImageTest):
    def serve(self, *words):
        process = subprocess.Popen([LODGE, "image", "serve", *words], cwd=self.folder, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        self.addCleanup(process.stdout.close)
        return process.stdout.readline().strip()

    def test_our_client_and_our_server(self):
        content = pattern(5 * MIB)
        self.write("a.raw", content)
        self.lodge("convert", "a.raw", "a.qcow2")
        address = self.serve("-r", "-k", self.path("s"), "-x", "disk one", "a.qcow2").replace(" ", "%20")
        self.lodge("convert", address, "b.raw")
        self.assertEqualContent(self.read("b.raw"), content)
        refused = self.lodge("convert", "-n", "-O", "raw", "a.raw", address, check=False)
        self.assertIn("read-only", refused.stderr)

    def test_tcp(self):
        content = pattern(3 * MIB, 6)
        self.write("a.raw", content)
        self.lodge("create", "b.qcow2", str(len(content)))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = self.serve("--port", str(port), "-x", "disk", "b.qcow2")
        self.assertTrue(address.startswith("nbd://"), address)
        self.lodge("convert", "-n", "-O", "raw", "a.raw", address)
        self.lodge("compare", "a.raw", address)
        if shutil.which("qemu-img"):
            self.qemu_img("compare", "a.raw", address)

    def test_writing_through_it(self):
        content = pattern(5 * MIB, 2)
        self.write("a.raw", content)
        self.lodge("create", "b.qcow2", str(len(content)))
        address = self.serve("-k", self.path("s"), "b.qcow2")
        self.lodge("convert", "-n", "-O", "raw", "a.raw", address)
        self.lodge("compare", "a.raw", address)

    def test_an_export_keeps_its_size(self):
        self.lodge("create", "b.raw", "1M")
        address = self.serve("-k", self.path("s"), "-f", "raw", "b.raw")
        for words in ["+1M"], ["--shrink", "-512K"]:
            refused = self.lodge("resize", *words[:-1], address, words[-1], check=False)
            self.assertEqual(refused.returncode, 2)
            self.assertIn("keeps its size of 1 MiB", refused.stderr)
            self.assertIn(address, refused.stderr)

    def test_qemu_as_client(self):
        self.need_qemu()
        content = pattern(5 * MIB, 3)
        self.write("a.raw", content)
        self.lodge("convert", "a.raw", "a.qcow2")
        self.serve("-k", self.path("s"), "-x", "x", "a.qcow2")
        address = "nbd+unix:///x?socket=" + self.path("s")
        self.qemu_img("compare", "a.raw", address)
        self.run_command("qemu-io", "-f", "raw", "-c", "write -P 7 100k 50k", "-c", "write -z 1M 1M", "-c", "discard 3M 1M", "-c", "flush",
                         "-c", "read -P 7 100k 50k", "-c", "read -P 0 1M 1M", address)

    def test_qemu_as_server(self):
        self.need_qemu()
        content = pattern(5 * MIB, 4)
        self.write("a.raw", content)
        process = subprocess.Popen(["qemu-nbd", "-f", "raw", "-k", self.path("q"), "-t", "a.raw"], cwd=self.folder)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        while not os.path.exists(self.path("q")):
            time.sleep(0.02)
        self.lodge("convert", "nbd+unix:///?socket=" + self.path("q"), "b.raw")
        self.assertEqualContent(self.read("b.raw"), content)


if __name__ == "__main__":
    unittest.main()
