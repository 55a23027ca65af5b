// SPDX-License-Identifier: Apache-2.0
#include "image/ovf.h"

#include <gtest/gtest.h>

#include "base/units.h"
#include "image/tar.h"

namespace lodge::image::ovf {

namespace {

std::string wrap(const std::string& references, const std::string& hardware) {
  return "<Envelope xmlns:ovf='x'><References>" + references +
         "</References><DiskSection><Disk ovf:diskId='d1' ovf:fileRef='f1' ovf:capacity='3' "
         "ovf:capacityAllocationUnits='byte * 2^30'/></DiskSection><VirtualSystem ovf:id='m'><VirtualHardwareSection>" +
         hardware + "</VirtualHardwareSection></VirtualSystem></Envelope>";
}

std::string item(const std::string& content) {
  return "<Item>" + content + "</Item>";
}

TEST(Ovf, ReadsWhatItWrites) {
  Machine machine;
  machine.name = "a <&\"> machine";
  machine.cpus = 3;
  machine.memory = 1536_MiB;
  machine.efi = machine.secureBoot = true;
  machine.osType = "Ubuntu_64";
  machine.osId = 94;
  machine.description = "two\nlines";
  for (int i = 0; i < 2; ++i) {
    Disk disk;
    disk.file = "x-disk" + std::to_string(i + 1) + ".vmdk";
    disk.fileBytes = 70000;
    disk.capacity = 5_GiB;
    disk.populated = 12345;
    disk.streamOptimized = true;
    machine.disks.push_back(disk);
  }
  machine.nics = {{"lan", "VmxNet3", "52:54:00:12:34:56"}, {"", "", ""}};
  auto package = parse(write(machine));
  ASSERT_TRUE(package.ok()) << package.error().message();
  ASSERT_EQ(package->machines.size(), 1U);
  const Machine& back = package->machines[0];
  EXPECT_EQ(back.name, machine.name);
  EXPECT_EQ(back.cpus, 3U);
  EXPECT_EQ(back.memory, 1536_MiB);
  EXPECT_TRUE(back.efi && back.secureBoot);
  EXPECT_EQ(back.osType, "Ubuntu_64");
  EXPECT_EQ(back.description, machine.description);
  ASSERT_EQ(back.disks.size(), 2U);
  EXPECT_EQ(back.disks[1].file, "x-disk2.vmdk");
  EXPECT_EQ(back.disks[1].capacity, 5_GiB);
  EXPECT_EQ(back.disks[1].unit, 1U);
  EXPECT_EQ(back.disks[1].bus, Bus::sata);
  ASSERT_EQ(back.nics.size(), 2U);
  EXPECT_EQ(back.nics[0].network, "lan");
  EXPECT_EQ(back.nics[0].model, "VmxNet3");
  EXPECT_EQ(back.nics[0].mac, "52:54:00:12:34:56");
}

TEST(Ovf, RefusesTricks) {
  for (const char* name : {"../x.vmdk", "/etc/passwd", "a/../../b", "http://host/x", "c:x", "a\\b", "a//b", ""}) {
    auto package = parse(wrap(std::string("<File ovf:id='f1' ovf:href='") + name + "'/>", ""));
    ASSERT_FALSE(package.ok()) << name;
    EXPECT_EQ(package.error().kind(), ErrorKind::permissionDenied) << name;
  }
  auto entities = parse("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><Envelope/>");
  ASSERT_FALSE(entities.ok());
  EXPECT_EQ(entities.error().kind(), ErrorKind::unsupported);
  EXPECT_FALSE(parse("").ok());
  EXPECT_FALSE(parse("<Envelope>").ok());
  EXPECT_FALSE(parse("<Envelope/>").ok());
}

TEST(Ovf, NamesWhatIsWrong) {
  std::string file = "<File ovf:id='f1' ovf:href='x.vmdk'/>";
  auto missing = parse(wrap(file, item("<ResourceType>17</ResourceType><HostResource>ovf:/disk/d2</HostResource>")));
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message().find("'d2'"), std::string::npos) << missing.error().message();
  auto cpus = parse(wrap(file, item("<ResourceType>3</ResourceType><VirtualQuantity>many</VirtualQuantity>")));
  ASSERT_FALSE(cpus.ok());
  auto memory = parse(wrap(file, item("<ResourceType>4</ResourceType><VirtualQuantity>4</VirtualQuantity>"
                                      "<AllocationUnits>fathoms</AllocationUnits>")));
  ASSERT_FALSE(memory.ok());
  EXPECT_NE(memory.error().message().find("fathoms"), std::string::npos);
  auto configuration = parse(wrap(file, ""), "large");
  ASSERT_FALSE(configuration.ok());
  EXPECT_EQ(configuration.error().kind(), ErrorKind::invalidArgument);
}

TEST(Ovf, Units) {
  EXPECT_EQ(*bytesIn("4", "byte * 2^20"), 4_MiB);
  EXPECT_EQ(*bytesIn("512", "MegaBytes"), 512_MiB);
  EXPECT_EQ(*bytesIn("2", "GB"), 2_GiB);
  EXPECT_EQ(*bytesIn("7", ""), 7U);
  EXPECT_FALSE(bytesIn("1", "byte * 2^99").ok());
  EXPECT_FALSE(bytesIn("99999999999", "TB").ok());
  EXPECT_FALSE(bytesIn("-1", "MB").ok());
}

TEST(Ovf, Manifest) {
  std::string sha1(40, 'a'), sha256(64, 'B');
  auto digests = parseManifest("SHA1(a (1).vmdk)= " + sha1 + "\r\nSHA256 (b.ovf) = " + sha256 + "\n\n");
  ASSERT_TRUE(digests.ok()) << digests.error().message();
  ASSERT_EQ(digests->size(), 2U);
  EXPECT_EQ((*digests)[0].file, "a (1).vmdk");
  EXPECT_EQ((*digests)[1].algorithm, "SHA256");
  EXPECT_EQ((*digests)[1].hex, std::string(64, 'b'));
  EXPECT_FALSE(parseManifest("SHA1(x)= 12\n").ok());
  EXPECT_FALSE(parseManifest("MD5(x)= " + sha1).ok());
  auto out = parseManifest("SHA1(../x)= " + sha1);
  ASSERT_FALSE(out.ok());
  EXPECT_NE(out.error().message().find("leads out"), std::string::npos);
}

TEST(Tar, ReadsItsOwnHeaders) {
  auto file = makeMemoryFile("x.tar");
  std::uint64_t large = 9_GiB;
  auto first = tar::makeHeader("a.ovf", 700), second = tar::makeHeader("b.vmdk", large);
  ASSERT_EQ(file->write(0, first.data(), first.size()), 0);
  ASSERT_EQ(file->write(512 + 1024, second.data(), second.size()), 0);
  ASSERT_EQ(file->truncate(2048 + large + 1024), 0);
  auto members = tar::readIndex(*file);
  ASSERT_TRUE(members.ok()) << members.error().message();
  ASSERT_EQ(members->size(), 2U);
  EXPECT_EQ((*members)[0].name, "a.ovf");
  EXPECT_EQ((*members)[0].bytes, 700U);
  EXPECT_EQ((*members)[1].bytes, large);
  EXPECT_EQ((*members)[1].offset, 2048U);
  ASSERT_EQ(file->truncate(4096), 0);
  EXPECT_FALSE(tar::readIndex(*file).ok());
  std::byte zero{};
  ASSERT_EQ(file->write(0, &zero, 1), 0);
  EXPECT_FALSE(tar::readIndex(*file).ok());
}

}  // namespace

}  // namespace lodge::image::ovf
