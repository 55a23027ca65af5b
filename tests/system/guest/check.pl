# SPDX-License-Identifier: Apache-2.0
# Perl's own modules on known answers.
use strict;
use warnings;
use Test::More;
use Digest::SHA qw(sha1_hex sha512_hex);
use Digest::MD5 qw(md5_hex);
use Math::BigInt;
use Math::BigFloat;
use MIME::Base64;
use POSIX qw(floor fmod strtol :sys_wait_h);
use Storable qw(dclone freeze thaw);
use List::Util qw(sum reduce shuffle);
use Time::HiRes qw(usleep);
use Compress::Zlib;
use Encode;

is(sha1_hex('abc'), 'a9993e364706816aba3e25717850c26c9cd0d89d', 'SHA-1');
is(substr(sha512_hex('abc'), 0, 32), 'ddaf35a193617abacc417349ae204131', 'SHA-512');
is(md5_hex('a' x 1_000_000), '7707d6ae4e027c70eea2a935c2296f21', 'MD5 of a million');
is(Math::BigInt->new(100)->bfac->bstr, do { my $f = Math::BigInt->new(1); $f *= $_ for 1 .. 100; $f->bstr }, '100!');
is(Math::BigInt->new(2)->bpow(521)->bsub(1)->bmod(1_000_000_007)->bstr,
  do { my $m = 1; $m = $m * 2 % 1_000_000_007 for 1 .. 521; $m - 1 }, '2^521 - 1 modulo a prime');
is(Math::BigFloat->bpi(40)->bstr, '3.141592653589793238462643383279502884197', 'pi');
is(decode_base64(encode_base64(join '', map chr, 0 .. 255)), join('', map chr, 0 .. 255), 'base 64');
is(sprintf('%.15g', fmod(1e15, 7)), sprintf('%.15g', 1e15 - 7 * floor(1e15 / 7)), 'fmod');
my %deep = map { $_ => { list => [1 .. $_ % 10], text => "n$_" } } 1 .. 2000;
is_deeply(thaw(freeze(dclone(\%deep))), \%deep, 'Storable');
my $text = join ' ', map { "word$_" } 1 .. 20000;
is(uncompress(compress($text)), $text, 'zlib');
is((() = $text =~ /\bword(?=\d*7\b)/g), 2000, 'regular expressions');
is(sum(map { length } sort { $b cmp $a } shuffle split / /, $text), length($text) - 19999, 'sort');
is(decode('UTF-8', encode('UTF-8', "\x{20ac}\x{1f600}" x 1000)), "\x{20ac}\x{1f600}" x 1000, 'UTF-8');
my @sieve = (1) x 20001;
for my $i (2 .. 141) { if ($sieve[$i]) { for (my $k = $i * $i; $k <= 20000; $k += $i) { $sieve[$k] = 0 } } }
is(scalar(grep { $sieve[$_] } 2 .. 20000), 2262, 'primes');
is(sprintf('%.12f', reduce { $a + 1 / ($b * $b) } 0, 1 .. 100000), '1.644924066898', 'a sum of doubles');
my @children = map { my $n = $_; my $pid = fork; $pid or exit $n; $pid } 1 .. 20;
my $total = 0;
for my $pid (@children) { waitpid $pid, 0; $total += $? >> 8 }
is($total, 210, 'children');
my $alarms = 0;
local $SIG{ALRM} = sub { ++$alarms; Time::HiRes::ualarm(5000) if $alarms < 20 };
Time::HiRes::ualarm(5000);
my $end = time + 60;
usleep(1000) while $alarms < 20 && time < $end;
is($alarms, 20, 'alarms');
done_testing;
