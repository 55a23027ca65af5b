// SPDX-License-Identifier: Apache-2.0
#include "cli/run_options.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "cli/disk_option.h"
#include "cli/net_option.h"
#include "cli/parse.h"
#include "cli/verbs.h"
#include "engine/chip_keeper.h"

namespace lodge::cli {
namespace {

Result<RunOptions> options(std::vector<std::string> words) {
  words.insert(words.begin(), {"--kernel", "k"});
  auto invocation = parseArguments(*findVerb("run"), words);
  if (!invocation) return std::move(invocation).error();
  return runOptionsFrom(*invocation);
}

TEST(RunOptions, Defaults) {
  auto o = options({});
  ASSERT_TRUE(o);
  EXPECT_EQ(o->machine.kernel, "k");
  EXPECT_EQ(o->machine.cpus, 1u);
  EXPECT_EQ(o->machine.memory, 1_GiB);
  EXPECT_EQ(o->machine.engine, "auto");
  EXPECT_EQ(o->machine.nets.size(), 1u);
  EXPECT_TRUE(o->machine.balloon);
  EXPECT_FALSE(o->detach);
  EXPECT_FALSE(o->machine.debugExitPort);
}

TEST(RunOptions, DescribedMachine) {
  std::string path = testing::TempDir() + "/described-" + std::to_string(::getpid()) + ".json";
  auto with = [&](const std::string& text, std::vector<std::string> words) -> Result<RunOptions> {
    std::ofstream(path) << text;
    words.insert(words.begin(), {"--machine", path});
    auto invocation = parseArguments(*findVerb("run"), words);
    if (!invocation) return std::move(invocation).error();
    return runOptionsFrom(*invocation);
  };
  const std::string kMachine = R"({"name": "web", "cpus": 2, "memory": 536870912, "firmware": "bios",
    "disks": [{"path": "a.qcow2", "format": "qcow2"}, {"path": "/b"}, {"path": "c"}, {"path": "d"}],
    "cdDrives": [{"path": "cd.iso"}], "nets": [{"network": "n", "model": "e1000", "mac": "08:00:27:11:22:33"}]})";
  auto o = with(kMachine, {});
  ASSERT_TRUE(o) << o.error().message();
  const MachineConfig& m = o->machine;
  EXPECT_EQ(m.board, Board::pc);
  EXPECT_EQ(m.name, "web");
  EXPECT_EQ(m.cpus, 2u);
  EXPECT_EQ(m.memory, 512_MiB);
  ASSERT_EQ(m.disks.size(), 5u);
  EXPECT_EQ(m.disks[0].path, testing::TempDir() + "/a.qcow2");
  EXPECT_EQ(m.disks[0].format, "qcow2");
  EXPECT_EQ(m.disks[1].path, "/b");
  EXPECT_EQ(m.disks[2].bus, DriveBus::ide);
  EXPECT_EQ(m.disks[3].bus, DriveBus::virtio) << "IDE has four drives, one of which is the CD-ROM's";
  EXPECT_TRUE(m.disks[4].cdrom);
  ASSERT_EQ(m.nets.size(), 1u);
  EXPECT_TRUE(m.nets[0].mac);

  o = with(kMachine, {"--kernel", "k", "--cpus", "4", "--net", "none", "--disk", "more.raw"});
  ASSERT_TRUE(o) << o.error().message();
  EXPECT_EQ(o->machine.board, Board::micro);
  EXPECT_EQ(o->machine.cpus, 4u);
  EXPECT_TRUE(o->machine.nets.empty());
  ASSERT_EQ(o->machine.disks.size(), 5u) << "no CD-ROM drive without IDE";
  EXPECT_EQ(o->machine.disks[0].bus, DriveBus::virtio);
  EXPECT_EQ(o->machine.disks[4].path, "more.raw");

  EXPECT_EQ(with(R"({"firmware": "uefi"})", {}).error().kind(), ErrorKind::unsupported);
  EXPECT_TRUE(with(R"({"firmware": "uefi"})", {"--kernel", "k"}));
  EXPECT_EQ(with(R"({"disks": [{}]})", {}).error().kind(), ErrorKind::corrupt);
  EXPECT_EQ(with("nonsense", {}).error().kind(), ErrorKind::corrupt);
  ::unlink(path.c_str());
}

TEST(RunOptions, Everything) {
  auto o = options({"-i",
                    "a",
                    "--initrd",
                    "b c",
                    "-a",
                    "x",
                    "-a",
                    "y=1",
                    "--disk",
                    "d.img,readonly",
                    "--disk",
                    "e.img",
                    "--snapshot",
                    "-c",
                    "4",
                    "-m",
                    "1.5G",
                    "--net",
                    "none",
                    "--name",
                    "web",
                    "-d",
                    "-e",
                    "interpret",
                    "--irqchip",
                    "user",
                    "--nested",
                    "--hyperv",
                    "--cpu",
                    "host",
                    "--no-reboot",
                    "--no-balloon",
                    "--code-cache",
                    "64M",
                    "--debug-exit",
                    "0xf4",
                    "--test-device"});
  ASSERT_TRUE(o) << o.error().message();
  const MachineConfig& m = o->machine;
  EXPECT_EQ(m.initrds, (std::vector<std::string>{"a", "b c"}));
  EXPECT_EQ(m.append, "x y=1");
  ASSERT_EQ(m.disks.size(), 2u);
  EXPECT_TRUE(m.disks[0].readOnly && m.disks[0].snapshot && m.disks[1].snapshot && !m.disks[1].readOnly);
  EXPECT_EQ(m.cpus, 4u);
  EXPECT_EQ(m.memory, 1536_MiB);
  EXPECT_TRUE(m.nets.empty());
  EXPECT_EQ(m.name, "web");
  EXPECT_TRUE(o->detach);
  EXPECT_EQ(m.engine, "interpret");
  EXPECT_EQ(m.cpuModel, "host,nested,hyperv");
  EXPECT_EQ(m.irqchip, Irqchip::user);
  EXPECT_TRUE(m.noReboot && !m.balloon && m.testDevice);
  EXPECT_EQ(m.codeCache, 64_MiB);
  EXPECT_EQ(m.debugExitPort, 0xf4);
}

TEST(RunOptions, IrqchipsByName) {
  EXPECT_EQ(options({})->machine.irqchip, Irqchip::best);
  EXPECT_EQ(options({"--irqchip", "split"})->machine.irqchip, Irqchip::split);
  EXPECT_EQ(options({"--irqchip", "kernel"})->machine.irqchip, kKernelIrqchip);
  EXPECT_FALSE(options({"--irqchip", "best"}));
}

TEST(RunOptions, MemoryIsWholePages) {
  EXPECT_EQ(options({"-m", "1.0001M"})->machine.memory, 1_MiB);
}

TEST(DiskOption, Forms) {
  EXPECT_EQ(parseDisk("a.img")->path, "a.img");
  EXPECT_EQ(parseDisk("a,,b.img,format=raw,readonly,snapshot")->path, "a,b.img");
  EXPECT_TRUE(parseDisk("a,snapshot")->snapshot);
  for (const char* bad : {"", ",readonly", "a,", "a,ro", "a,format=", "a,readonly=1"})
    EXPECT_FALSE(parseDisk(bad)) << bad;
  EXPECT_EQ(parseDisk("a,format=fs").error().kind(), ErrorKind::invalidArgument);
}

TEST(NetOption, Forms) {
  EXPECT_FALSE(*parseNet("none"));
  auto net = parseNet(
      "user,forward=tcp:127.0.0.1:2222:22,forward=udp::53:10.0.2.15:5353,mac=52:54:00:12:34:5f,hostname=web,"
      "ipv6=off,restricted");
  ASSERT_TRUE(net) << net.error().message();
  const UserNetOptions& user = (*net)->user;
  ASSERT_EQ(user.forwards.size(), 2u);
  EXPECT_EQ(user.forwards[0].hostAddress, "127.0.0.1");
  EXPECT_EQ(user.forwards[0].hostPort, 2222);
  EXPECT_EQ(user.forwards[0].guestPort, 22);
  EXPECT_TRUE(user.forwards[1].udp);
  EXPECT_EQ(user.forwards[1].hostAddress, "");
  EXPECT_EQ(user.forwards[1].guestAddress, "10.0.2.15");
  EXPECT_EQ((*net)->mac, (MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x5f}));
  EXPECT_EQ(user.hostname, "web");
  EXPECT_FALSE(user.ipv6);
  EXPECT_TRUE(user.restricted);
}

TEST(NetOption, Queues) {
  EXPECT_EQ((*parseNet("user"))->queues, 0u);
  EXPECT_EQ((*parseNet("user,queues=8"))->queues, 8u);
  EXPECT_EQ((*parseNet("tap,queues=2,ifname=tap0"))->queues, 2u);
  EXPECT_EQ((*parseNet("tap,ifname=tap0,vhost=on"))->port, R"({"vhost":"on"})");
  EXPECT_FALSE(parseNet("tap,ifname=tap0,vhost=maybe"));
  for (const char* bad : {"user,queues=0", "user,queues=9", "user,queues=", "tap,ifname=tap0,queues=x"})
    EXPECT_FALSE(parseNet(bad)) << bad;
}

TEST(NetOption, OnlyNetworksWithANameHaveDirectPorts) {
  EXPECT_FALSE(parseNet("tap,ifname=tap0,direct=on"));
  EXPECT_FALSE(parseNet("user,direct=on"));
}

TEST(NetOption, IPv6InBrackets) {
  auto forward = parseForward("tcp:[::1]:2222:[fec0::1]:22");
  ASSERT_TRUE(forward);
  EXPECT_EQ(forward->hostAddress, "::1");
  EXPECT_EQ(forward->guestAddress, "fec0::1");
}

TEST(NetOption, RefusesNonsense) {
  for (const char* bad : {"", "tap", "user,", "user,forward=", "user,ipv6=maybe", "user,restricted=1", "none,mac=1"}) {
    EXPECT_FALSE(parseNet(bad)) << bad;
  }
  for (const char* bad : {"", "tcp", "tcp:::", "tcp::22", "tcp::1:2:3:4", "sctp::1:2", "tcp::0:1", "tcp::65536:1",
                          "tcp::1:x", "tcp::0x10:1", "tcp:1.2.3:1:2", "tcp:[::1:1:2", "tcp:::1]:1:2", "tcp::-1:2"}) {
    EXPECT_FALSE(parseForward(bad)) << bad;
  }
  for (const char* bad :
       {"", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:56:78", "53:54:00:12:34:56", "gg:54:00:12:34:56"}) {
    EXPECT_FALSE(parseMac(bad)) << bad;
  }
}

}  // namespace
}  // namespace lodge::cli
