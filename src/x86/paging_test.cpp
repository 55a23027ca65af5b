// SPDX-License-Identifier: Apache-2.0
// The walk against an oracle written the other way round: rules as tables, evaluated over a recorded path, without any
// shared code.
#include "x86/paging.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <vector>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

struct Level {
  unsigned shift, bits;
  bool mayBeLeaf;
  std::uint64_t leafReserved;   // bits that must be 0 if this is a leaf above the last level
  std::uint64_t otherReserved;  // bits that must be 0 if it points on
};
constexpr std::uint64_t range(unsigned low, unsigned high) {
  std::uint64_t mask = 0;
  for (unsigned i = low; i <= high; ++i) mask |= 1ull << i;
  return mask;
}
const std::vector<Level> kWide{{48, 9, false, 0, range(7, 7)},
                               {39, 9, false, 0, range(7, 7)},
                               {30, 9, true, range(13, 29), 0},
                               {21, 9, true, range(13, 20), 0},
                               {12, 9, false, 0, 0}};
const std::vector<Level> kPae{{21, 9, true, range(13, 20), 0}, {12, 9, false, 0, 0}};
const std::vector<Level> kOld{{22, 10, true, range(21, 21), 0}, {12, 10, false, 0, 0}};

enum class Kind { old32, pae, four, five };

struct Setup {
  Kind kind;
  bool wp, smep, smap, nxe, pse, pke, amd;
  unsigned physicalBits;
  std::uint64_t root, pdpte[4];
  std::uint32_t pkru;
};
struct Query {
  std::uint64_t linear;
  bool write, fetch, user, acOverride;
};
struct Answer {
  bool ok = false;
  std::uint32_t code = 0;
  std::uint64_t gpa = 0, size = 0;
  std::vector<std::uint64_t> path;  // addresses of the entries used, leaf last
};

class Oracle {
 public:
  Oracle(const TestMachine& machine, const Setup& setup) : machine_(machine), setup_(setup) {}

  Answer ask(const Query& q) const {
    Answer a;
    std::vector<Level> levels = setup_.kind == Kind::old32 ? kOld : setup_.kind == Kind::pae ? kPae : kWide;
    if (setup_.kind == Kind::four) levels.erase(levels.begin());
    std::uint64_t table = setup_.root;
    std::vector<std::uint64_t> values;
    if (setup_.kind == Kind::pae) {
      std::uint64_t p = setup_.pdpte[q.linear >> 30 & 3];
      if ((p & 1) == 0) return fail(a, q, 0);
      table = p & range(12, 51);
    }
    for (std::size_t i = 0; i < levels.size(); ++i) {
      const Level& level = levels[i];
      std::uint64_t index = q.linear >> level.shift & ((1ull << level.bits) - 1);
      std::uint64_t address = table + index * size();
      std::uint64_t e = read(address);
      a.path.push_back(address);
      if ((e & 1) == 0) return fail(a, q, 0);
      bool last = i + 1 == levels.size();
      bool large = !last && level.mayBeLeaf && (e & 0x80) != 0 && (setup_.kind != Kind::old32 || setup_.pse);
      if ((e & reserved(levels, i, large)) != 0) return fail(a, q, 1 | 8);
      values.push_back(e);
      if (last || large) return judge(a, q, values, 1ull << level.shift, e);
      table = e & (setup_.kind == Kind::old32 ? range(12, 31) : range(12, 51));
    }
    return a;
  }

 private:
  unsigned size() const { return setup_.kind == Kind::old32 ? 4 : 8; }
  std::uint64_t read(std::uint64_t address) const {
    if (size() == 4) return machine_.memory->isRam(Gpa{address}) ? machine_.load<std::uint32_t>(address) : 0xffff'ffff;
    return machine_.memory->isRam(Gpa{address}) ? machine_.load<std::uint64_t>(address) : ~0ull;
  }
  bool wide() const { return setup_.kind >= Kind::four; }

  std::uint64_t reserved(const std::vector<Level>& levels, std::size_t i, bool large) const {
    if (setup_.kind == Kind::old32) {
      if (!large) return 0;
      std::uint64_t mask = levels[i].leafReserved;
      for (unsigned bit = 32; bit < 40; ++bit) {
        if (bit >= setup_.physicalBits) mask |= 1ull << (bit - 32 + 13);
      }
      return mask;
    }
    std::uint64_t mask = range(setup_.physicalBits, 51);
    if (!setup_.nxe) mask |= 1ull << 63;
    if (setup_.kind == Kind::pae) mask |= range(52, 62);
    mask |= large ? levels[i].leafReserved : levels[i].otherReserved;
    bool top = wide() && i + 3 < levels.size();  // above the PDPTE
    if (top && setup_.amd) mask |= 1 << 8;
    return mask;
  }

  Answer fail(Answer& a, const Query& q, std::uint32_t code) const {
    bool nx = setup_.nxe && setup_.kind != Kind::old32;
    a.code = code | (q.write ? 2 : 0) | (q.user ? 4 : 0) | (q.fetch && (nx || setup_.smep) ? 16 : 0);
    a.ok = false;
    return a;
  }

  Answer judge(Answer& a, const Query& q, const std::vector<std::uint64_t>& values, std::uint64_t pageSize,
               std::uint64_t leaf) const {
    bool user = true, writable = true, nx = false;
    for (std::uint64_t v : values) {
      user &= (v & 4) != 0;
      writable &= (v & 2) != 0;
      nx |= setup_.kind != Kind::old32 && v >> 63 != 0;
    }
    if (setup_.kind == Kind::pae) nx &= setup_.nxe;
    std::uint32_t key = 0;
    if (wide() && setup_.pke && user && !q.fetch) {
      unsigned bits = setup_.pkru >> (leaf >> 59 & 15) * 2 & 3;
      if ((bits & 1) != 0 || ((bits & 2) != 0 && q.write && (q.user || setup_.wp))) key = 32;
    }
    struct Rule {
      bool when, then;
    };
    const Rule denials[] = {
        {q.user, !user},
        {q.user && q.write, !writable},
        {q.fetch, nx},
        {!q.user && q.write && setup_.wp, !writable},
        {!q.user && q.fetch && setup_.smep, user},
        {!q.user && !q.fetch && setup_.smap && !q.acOverride, user},
        {true, key != 0},
    };
    for (const Rule& rule : denials) {
      if (rule.when && rule.then) return fail(a, q, 1 | key);
    }
    std::uint64_t base = leaf & (setup_.kind == Kind::old32 ? range(12, 31) : range(12, 51)) & ~(pageSize - 1);
    if (setup_.kind == Kind::old32 && pageSize > 4096) base |= (leaf >> 13 & 0xff) << 32;
    a.ok = true;
    a.gpa = base | (q.linear & (pageSize - 1));
    a.size = pageSize;
    return a;
  }

  const TestMachine& machine_;
  const Setup& setup_;
};

class RandomTables {
 public:
  explicit RandomTables(unsigned seed) : random_(seed), machine_(seed % 2 ? CpuVendor::amd : CpuVendor::intel) {}

  void round() {
    makeSetup();
    fillTables();
    apply();
    for (int i = 0; i < 40; ++i) check(makeQuery());
  }

  unsigned faults = 0, hits = 0;

 private:
  static constexpr std::uint64_t kTables = 0x10'0000, kPages = 8;
  bool coin(unsigned percent = 50) { return random_() % 100 < percent; }

  void makeSetup() {
    setup_ = {};
    setup_.kind = static_cast<Kind>(random_() % 4);
    for (bool* flag : {&setup_.wp, &setup_.smep, &setup_.smap, &setup_.nxe, &setup_.pse, &setup_.pke}) *flag = coin();
    setup_.amd = machine_.model->vendor == CpuVendor::amd;
    setup_.physicalBits = coin() ? 40 : 36;
    setup_.pkru = coin() ? 0 : random_();
    setup_.root = kTables;
  }

  // Tables that point at each other and at pages, with everything that can be wrong now and then wrong.
  std::uint64_t entry() {
    std::uint64_t e = kTables + (random_() % kPages) * 4096;
    if (coin(20)) e = (random_() % 0x800) << 12;
    e |= coin(93) ? 1 : 0;
    e |= coin(80) ? 2 : 0;
    e |= coin(80) ? 4 : 0;
    e |= random_() & 0x60;
    if (coin(15)) e |= 0x80;
    if (coin(10)) e |= 0x100;
    if (setup_.kind != Kind::old32) {
      if (coin(15)) e |= 1ull << 63;
      if (coin(20)) e |= std::uint64_t{random_() % 128} << 52;
      if (setup_.kind == Kind::pae && coin(90)) e &= ~range(52, 62);
    }
    if (coin(60) && (e & 0x80) != 0) e &= ~range(13, coin() ? 29 : 20);
    if (coin(3)) e |= 1ull << random_() % 64;
    return e;
  }

  void fillTables() {
    for (std::uint64_t at = kTables; at < kTables + kPages * 4096; at += 8) {
      std::uint64_t low = entry();
      if (setup_.kind == Kind::old32) low = (low & 0xffff'ffff) | entry() << 32;
      machine_.store(at, low);
    }
    for (std::uint64_t& p : setup_.pdpte) {
      p = (kTables + (random_() % kPages) * 4096) | (coin(90) ? 1 : 0);
    }
  }

  void apply() {
    CpuState& s = machine_.state();
    machine_.model->physicalAddressBits = setup_.physicalBits;
    s.cr0 = cr0::pe | cr0::pg | (setup_.wp ? cr0::wp : 0);
    s.cr4 = (setup_.smep ? cr4::smep : 0) | (setup_.smap ? cr4::smap : 0) | (setup_.pse ? cr4::pse : 0) |
            (setup_.pke ? cr4::pke : 0) | (setup_.kind != Kind::old32 ? cr4::pae : 0) |
            (setup_.kind == Kind::five ? cr4::la57 : 0);
    s.efer = (setup_.nxe ? efer::nxe : 0) | (setup_.kind >= Kind::four ? efer::lme | efer::lma : 0);
    s.cr3 = setup_.root;
    s.pkru = setup_.pkru;
    for (int i = 0; i < 4; ++i) s.pdpte[i] = setup_.pdpte[i];
    clearTlb(*machine_);
  }

  Query makeQuery() {
    Query q{};
    q.linear = random_() | std::uint64_t{random_()} << 32;
    if (setup_.kind <= Kind::pae) q.linear &= 0xffff'ffff;
    if (setup_.kind == Kind::four)
      q.linear = static_cast<std::uint64_t>(static_cast<std::int64_t>(q.linear << 16) >> 16);
    q.write = coin(40);
    q.fetch = !q.write && coin(40);
    q.user = coin();
    q.acOverride = !q.user && coin();
    return q;
  }

  std::vector<std::uint8_t> snapshot() {
    std::vector<std::uint8_t> bytes(kPages * 4096);
    EXPECT_TRUE(machine_.memory->read(Gpa{kTables}, std::as_writable_bytes(std::span(bytes))));
    return bytes;
  }

  void check(const Query& q) {
    Answer want = Oracle(machine_, setup_).ask(q);
    std::vector<std::uint8_t> before = snapshot();
    machine_->exception.valid = false;
    machine_.state().cpl = q.user ? 3 : 0;
    machine_.state().rflags = 2 | (q.acOverride ? flag::ac : 0);
    Access access = q.fetch ? Access::execute : q.write ? Access::write : Access::read;
    PageTranslation got{};
    bool ok = translate(*machine_, q.linear, access, Privilege::current, got);
    ASSERT_EQ(ok, want.ok) << describe(q) << " want code " << want.code << " got " << raised(*machine_).code;
    if (!ok) {
      ++faults;
      ASSERT_EQ(raised(*machine_), pageFault(q.linear, want.code)) << describe(q);
      ASSERT_EQ(before, snapshot()) << "a fault set A or D";
      return;
    }
    ++hits;
    ASSERT_EQ(got.gpa, want.gpa) << describe(q);
    ASSERT_EQ(got.pageSize, want.size) << describe(q);
    for (std::size_t i = 0; i < want.path.size(); ++i) {
      std::uint64_t at = want.path[i] - kTables;
      if (at >= before.size()) continue;
      before[at] |= 0x20;
      if (q.write && i + 1 == want.path.size()) before[at] |= 0x40;
    }
    ASSERT_EQ(before, snapshot()) << "A and D as they must be, and nothing else: " << describe(q);
  }

  std::string describe(const Query& q) const {
    char text[160];
    std::snprintf(text, sizeof text, "kind %d linear %llx w%d x%d u%d ac%d wp%d smep%d smap%d nxe%d pse%d pke%d",
                  static_cast<int>(setup_.kind), static_cast<unsigned long long>(q.linear), q.write, q.fetch, q.user,
                  q.acOverride, setup_.wp, setup_.smep, setup_.smap, setup_.nxe, setup_.pse, setup_.pke);
    return text;
  }

  std::mt19937 random_;
  TestMachine machine_;
  Setup setup_{};
};

TEST(Paging, agreesWithTheOracleOnRandomTables) {
  unsigned faults = 0, hits = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    RandomTables tables(seed);
    for (int i = 0; i < 60; ++i) {
      tables.round();
      if (HasFatalFailure()) return;
    }
    faults += tables.faults;
    hits += tables.hits;
  }
  EXPECT_GT(hits, 5000u);
  EXPECT_GT(faults, 5000u);
}

TEST(Paging, offMeansIdentity) {
  TestMachine m;
  m.protected32();
  PageTranslation page{};
  ASSERT_TRUE(translate(*m, 0x1234'5678, Access::write, Privilege::current, page));
  EXPECT_EQ(page.gpa, 0x1234'5678u);
}

TEST(Paging, implicitAccessesIgnoreCplAndAc) {
  TestMachine m;
  m.long64(3, false);
  PageTranslation page{};
  EXPECT_FALSE(translate(*m, 0x1000, Access::read, Privilege::current, page));
  EXPECT_EQ(take(*m), pageFault(0x1000, pf::present | pf::user));
  EXPECT_TRUE(translate(*m, 0x1000, Access::read, Privilege::implicitSupervisor, page));

  TestMachine user;
  user.long64(0);
  user.state().cr4 |= cr4::smap;
  user.state().rflags |= flag::ac;
  EXPECT_TRUE(translate(*user, 0x1000, Access::read, Privilege::current, page));
  EXPECT_FALSE(translate(*user, 0x1000, Access::read, Privilege::implicitSupervisor, page));
  EXPECT_EQ(take(*user), pageFault(0x1000, pf::present));
}

TEST(Paging, gigabytePagesNeedTheModel) {
  TestMachine m;
  m.long64();
  m.store<std::uint64_t>(at::pageTables + 0x1000, 0x80 | 7);
  PageTranslation page{};
  ASSERT_TRUE(translate(*m, 0x1234'5678 & 0x3fff'ffff, Access::read, Privilege::current, page));
  EXPECT_EQ(page.pageSize, 1_GiB);
  m.model->gigabytePages = false;
  EXPECT_FALSE(translate(*m, 0x1000, Access::read, Privilege::current, page));
  EXPECT_EQ(take(*m), pageFault(0x1000, pf::present | pf::reserved));
}

TEST(Paging, pdpteRegistersAreCheckedWhenLoaded) {
  TestMachine m;
  m.protected32();
  std::uint64_t table = 0x20'0020;
  for (std::uint64_t i = 0; i < 4; ++i) m.store(table + 8 * i, (0x30'0000 + i * 0x1000) | 1);
  ASSERT_TRUE(writeControl(*m, 4, cr4::pae));
  ASSERT_TRUE(writeControl(*m, 3, table));
  m.store<std::uint64_t>(table + 8, 0x30'1000 | 1 | 2);
  EXPECT_FALSE(writeControl(*m, 0, cr0::pe | cr0::pg));
  EXPECT_EQ(take(*m), gp(0));
  EXPECT_EQ(m.state().cr0 & cr0::pg, 0u);
  m.store<std::uint64_t>(table + 8, 2);  // not present: anything goes
  ASSERT_TRUE(writeControl(*m, 0, cr0::pe | cr0::pg));
  EXPECT_EQ(m.state().pdpte[0], 0x30'0001u);
  // Memory changes reach the registers with the next load only.
  m.store<std::uint64_t>(table, 0);
  EXPECT_EQ(m.state().pdpte[0], 0x30'0001u);
  ASSERT_TRUE(writeControl(*m, 3, table));
  EXPECT_EQ(m.state().pdpte[0], 0u);
}

TEST(Paging, entriesOutsideRamReadAsOnes) {
  TestMachine m;
  m.long64();
  m.store<std::uint64_t>(at::pageTables + 0x1000, 0x1'0000'0000 | 7);
  PageTranslation page{};
  EXPECT_FALSE(translate(*m, 0x1000, Access::read, Privilege::current, page));
  EXPECT_EQ(take(*m), pageFault(0x1000, pf::present | pf::reserved));
}

TEST(Paging, aClosedA20GateTakesBit20FromEveryPhysicalAddress) {
  TestMachine m;
  PageTranslation page{};
  auto gpaOf = [&](std::uint64_t linear) {
    EXPECT_TRUE(translate(*m, linear, Access::read, Privilege::current, page)) << linear;
    return page.gpa;
  };
  m.real();
  EXPECT_EQ(gpaOf(0x10'ffef), 0x10'ffefu);
  m.memory->setCpuAddressMask(~0x10'0000ull);
  EXPECT_EQ(gpaOf(0x10'ffef), 0xffefu);
  EXPECT_EQ(gpaOf(0x3f'0000), 0x2f'0000u);
  EXPECT_EQ(gpaOf(0x2f'0000), 0x2f'0000u);
  m.memory->setCpuAddressMask(~0ull);

  // With line 20 low, tables at 1 MiB are those at 0: a copy there, which maps 2 MiB to 6 MiB.
  m.long64();
  for (std::uint64_t n = 0; n < 0x3000; n += 8) m.store(0x40'0000 + n, m.load<std::uint64_t>(at::pageTables + n));
  m.store<std::uint64_t>(0x40'0000, 0x50'1000 | 7);
  m.store<std::uint64_t>(0x40'1000, 0x50'2000 | 7);
  m.store<std::uint64_t>(0x40'2008, 0x60'0000 | 0x80 | 7);
  m.memory->setCpuAddressMask(~0x10'0000ull);
  m.state().cr3 = 0x50'0000;
  EXPECT_EQ(gpaOf(0x23'4567), 0x63'4567u);
  EXPECT_EQ(gpaOf(0x33'4567), 0x63'4567u);
}

}  // namespace
}  // namespace lodge::x86
