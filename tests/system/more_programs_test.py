# SPDX-License-Identifier: Apache-2.0
"""Large programs of Debian's: Java's compilers against its interpreter, encoders with vector code against those without,
valgrind (a translator in the translated guest). Their image is debian-more (tools/make-guest)."""

import functools
import pathlib

from kit import paths
from kit.case import Skip, main
from kit.guest import Debian

GUEST_SOURCES = pathlib.Path(__file__).resolve().parent / "guest"


def java(debian):
    debian.check("cd /tmp && javac -d . /payload/Check.java", 600)
    compiled = debian.check("cd /tmp && java -cp . Check", 600)
    assert debian.check("cd /tmp && java -Xint -cp . Check", 900) == compiled
    assert debian.check("cd /tmp && java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp . Check", 600) == compiled
    assert "primes 14683" in compiled, compiled   # below 160,000


def x264(debian):
    """The encoder's vector code writes the same stream as its plain code."""
    debian.check("cd /tmp && ffmpeg -v error -f lavfi -i testsrc2=size=320x240:rate=25 -frames:v 60 -pix_fmt yuv420p v.y4m", 300)
    x264 = "x264 --quiet --no-progress --cpu-independent --threads 2"
    debian.check(f"cd /tmp && {x264} -o fast.264 v.y4m && {x264} --no-asm -o plain.264 v.y4m && cmp fast.264 plain.264", 600)
    debian.check("cd /tmp && ffmpeg -v error -i fast.264 -f md5 a && ffmpeg -v error -cpuflags 0 -i fast.264 -f md5 b && cmp a b", 300)


def ffmpeg(debian):
    """Codecs with all vector code and without, bit by bit."""
    for codec, suffix in (("mpeg4", "avi"), ("mjpeg", "avi"), ("ffv1", "mkv"), ("flac", "flac"), ("pcm_s16le", "wav")):
        source = ("-f lavfi -i sine=frequency=440:duration=4" if suffix in ("flac", "wav") else
                  "-f lavfi -i mandelbrot=size=320x240:rate=10 -frames:v 20")
        debian.check(f"cd /tmp && ffmpeg -v error -y {source} -flags +bitexact -fflags +bitexact -threads 1 -c {codec} one.{suffix} && "
                     f"ffmpeg -v error -y -i one.{suffix} -flags +bitexact -f framemd5 a && "
                     f"ffmpeg -v error -y -cpuflags 0 -i one.{suffix} -flags +bitexact -f framemd5 b && cmp a b", 600)
    debian.check("cd /tmp && ffmpeg -v error -y -f lavfi -i testsrc2=size=160x120:rate=10 -frames:v 20 -vf "
                 "scale=200:150:flags=bitexact+accurate_rnd+bicubic,hue=s=0 -f framemd5 a && ffmpeg -v error -y -cpuflags 0 -f lavfi -i "
                 "testsrc2=size=160x120:rate=10 -frames:v 20 -vf scale=200:150:flags=bitexact+accurate_rnd+bicubic,hue=s=0 -f framemd5 b "
                 "&& cmp a b", 600)


def valgrind(debian):
    debian.check("cd /tmp && gcc -g -O1 -o compute /payload/compute.c -lm && ./compute >a", 200)
    status, output = debian.run("cd /tmp && valgrind --error-exitcode=9 ./compute >b && cmp a b", 900)
    assert status == 0, output
    leak = "#include <stdlib.h>\nint main(void) { char* p = malloc(10); return p[10] == 3; }\n"
    debian.put("/tmp/leak.c", leak)
    status, output = debian.run("cd /tmp && gcc -g -o leak leak.c && valgrind --leak-check=full --error-exitcode=9 ./leak", 300)
    assert status == 9 and "Invalid read of size 1" in output and "definitely lost: 10 bytes" in output, output
    output = debian.check("cd /tmp && valgrind --tool=cachegrind --cachegrind-out-file=/dev/null ls / 2>&1", 300)
    assert "I   refs:" in output, output


def no_image():
    raise Skip("the image debian-more is not made (tools/make-guest debian-more)")


def run():
    if not paths.DEBIAN_MORE.exists():
        main(no_image)
    with Debian(image=paths.DEBIAN_MORE, payload=GUEST_SOURCES, memory="2G") as debian:
        tests = [functools.partial(test, debian) for test in (java, x264, ffmpeg, valgrind)]
        for test in tests:
            functools.update_wrapper(test, test.func)
        main(*tests)


run()
