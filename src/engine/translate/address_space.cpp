// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/address_space.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/memory_file.h"
#include "base/trace.h"
#include "engine/translate/host_call.h"
#include "engine/translate/host_features.h"

namespace lodge::translate {

namespace {
constexpr std::uint64_t kKernelCodeBytes = std::uint64_t{8} << layout::kernelCodeBits;
constexpr std::uint64_t kBlockBytes =
    kKernelCodeBytes + FRAME_SIZE + static_cast<std::uint64_t>(layout::kernelTable) + kTlbBytesPerHalf;
/// From an AddressSpace's area to its user table.
constexpr std::uint64_t kUserCodeBytes =
    (std::uint64_t{8} << layout::user64CodeBits) + (std::uint64_t{8} << layout::user32CodeBits);
constexpr std::uint64_t kTableOffset = kUserCodeBytes + kTableHeaderBytes;
constexpr std::uint64_t kSpaceBytes = kTableOffset + 2 * kTlbBytesPerHalf;

// mmap by direct system call; null on failure, with errno.
std::byte* map(std::byte* at, std::uint64_t bytes, int protection, int flags, int fd, std::uint64_t offset) {
  long p = hostCall(SYS_mmap, reinterpret_cast<std::uint64_t>(at), bytes, static_cast<std::uint64_t>(protection),
                    static_cast<std::uint64_t>(flags), static_cast<std::uint64_t>(fd), offset);
  if (p < 0 && p > -4096) {
    errno = static_cast<int>(-p);
    return nullptr;
  }
  hostCall(SYS_madvise, static_cast<std::uint64_t>(p), bytes, MADV_DONTDUMP);
  hostCall(SYS_madvise, static_cast<std::uint64_t>(p), bytes, MADV_DONTFORK);  // no executor's business
  return reinterpret_cast<std::byte*>(p);
}
void unmap(std::byte* at, std::uint64_t bytes) {
  hostCall(SYS_munmap, reinterpret_cast<std::uint64_t>(at), bytes);
}

constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

std::uint64_t* words(std::byte* p) {
  return reinterpret_cast<std::uint64_t*>(p);
}
}  // namespace

std::uint64_t AddressSpace::gsBase() const {
  return reinterpret_cast<std::uint64_t>(area) + kTableOffset;
}

void AddressSpace::release() {
  user.release();
  user64.release();
  user32.release();
  supervisorCount = 0;
  // The logs are empty now.
  hostCall(SYS_madvise, gsBase() - kTableHeaderBytes, offsetof(TableHeader, returns), MADV_DONTNEED);
}

Result<std::unique_ptr<AddressSpaces>> AddressSpaces::create(std::uint64_t missTable, unsigned spaceCount) {
  auto failed = [](const char* what) {
    return Error::fromErrno(errno, what)
        .withHint(
            "the translate engine reserves (without using) 2 to 7 TiB of address space a vCPU: raise `ulimit -v`, and "
            "do not "
            "set vm.overcommit_memory=2; or use --engine interpret");
  };
  auto spaces = std::unique_ptr<AddressSpaces>(new AddressSpaces());
  spaces->missTable_ = missTable;
  if (isWithheld(HostFeature::reservation)) {
    errno = ENOMEM;
    return failed("reserve address space for a vCPU");
  }
  spaces->spaceCount_ = spaceCount;
  spaces->kernelFile_ = makeMemoryFile("lodge-soft-tlb");
  if (!spaces->kernelFile_ || ::ftruncate(spaces->kernelFile_.get(), kTlbBytesPerHalf) != 0)
    return failed("create the kernel soft TLB");
  spaces->block_ = map(nullptr, kBlockBytes, kReadWrite, kPrivate, -1, 0);
  if (!spaces->block_) return failed("reserve address space for a vCPU");
  std::byte* state = spaces->block_ + kCpuOffset;
  std::byte* table = state + layout::kernelTable;
  if (!map(table, kTlbBytesPerHalf, kReadWrite, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, spaces->kernelFile_.get(), 0) ||
      !map(spaces->block_, kKernelCodeBytes, PROT_NONE, kPrivate | MAP_FIXED, -1, 0)) {
    return failed("map the kernel soft TLB");
  }
  auto* header = reinterpret_cast<TableHeader*>(state + layout::kernelHeader);
  spaces->kernel_.attach(words(table), header->tlbLog, replaceKernel, spaces.get());
  spaces->kernelCode_.attach(words(state + layout::kernelCodeTop), layout::kernelCodeBits, header->codeLog[0],
                             header->returns[0], missTable);
  if (!spaces->switchTo(0)) return failed("map a soft TLB");
  return spaces;
}

AddressSpaces::~AddressSpaces() {
  for (AddressSpace& space : spaces_) {
    if (space.area) unmap(space.area, kSpaceBytes);
  }
  if (block_) unmap(block_, kBlockBytes);
}

bool AddressSpaces::mapSpace(AddressSpace& space) {
  std::byte* area = map(nullptr, kSpaceBytes, kReadWrite, kPrivate, -1, 0);
  if (!area) return false;
  std::byte* table = area + kTableOffset;
  if (!map(table + kTlbBytesPerHalf, kTlbBytesPerHalf, kReadWrite, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
           kernelFile_.get(), 0) ||
      !map(area, kUserCodeBytes, PROT_NONE, kPrivate | MAP_FIXED, -1, 0)) {
    unmap(area, kSpaceBytes);
    return false;
  }
  auto* header = reinterpret_cast<TableHeader*>(table - kTableHeaderBytes);
  space.area = area;
  space.user.attach(words(table), header->tlbLog, replaceUser, &space);
  space.user64.attach(words(table + layout::user64CodeTop), layout::user64CodeBits, header->codeLog[0],
                      header->returns[0], missTable_);
  space.user32.attach(words(table + layout::user32CodeTop), layout::user32CodeBits, header->codeLog[1],
                      header->returns[1], missTable_);
  return true;
}

// A fresh mapping frees page tables, too, which MADV_DONTNEED would not.
void AddressSpaces::replaceUser(void* context) {
  auto* space = static_cast<AddressSpace*>(context);
  map(space->area + kTableOffset, kTlbBytesPerHalf, kReadWrite, kPrivate | MAP_FIXED, -1, 0);
}

void AddressSpaces::replaceKernel(void* context) {
  auto* spaces = static_cast<AddressSpaces*>(context);
  hostCall(SYS_fallocate, static_cast<std::uint64_t>(spaces->kernelFile_.get()),
           FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kTlbBytesPerHalf);
}

AddressSpace* AddressSpaces::find(std::uint16_t pcid) {
  for (AddressSpace& space : spaces_) {
    if (space.used && space.pcid == pcid) return &space;
  }
  return nullptr;
}

bool AddressSpaces::switchTo(std::uint16_t pcid) {
  AddressSpace* space = find(pcid);
  if (!space) {
    space = &spaces_[0];
    for (unsigned i = 0; i < spaceCount_; ++i) {
      AddressSpace& candidate = spaces_[i];
      if (!candidate.used) {
        space = &candidate;
        break;
      }
      if (candidate.lastUse < space->lastUse) space = &candidate;
    }
    if (!space->area && !mapSpace(*space)) {
      // Out of address space: share what there is.
      space = current_;
      if (!space) return false;
    }
    if (space->used) dropSpace(*space);
    space->pcid = pcid;
    space->used = true;
  }
  space->lastUse = ++uses_;
  current_ = space;
  return true;
}

void AddressSpaces::loadGsBase() {
  setGsBase(current_->gsBase());
}

bool AddressSpaces::dropPage(AddressSpace& space, std::uint64_t linear) {
  space.user.drop(linear);
  bool code = space.user64.dropPage(linear);
  return space.user32.dropPage(linear) || code;
}

bool AddressSpaces::dropPage(std::uint64_t linear) {
  bool code = kernelCode_.dropPage(linear);
  if ((linear >> 47 & 1) != 0) {
    kernel_.drop(linear);
    // User code may execute upper-half pages (vsyscall).
    code |= current_->user64.dropPage(linear);
    return code;
  }
  if ((linear >> 32) == 0) kernel_.drop(linear);  // a 32-bit kernel's
  code |= dropPage(*current_, linear);
  for (AddressSpace& space : spaces_) {
    if (lowGlobal_ && space.used && &space != current_) dropPage(space, linear);
  }
  return code;
}

void AddressSpaces::dropSpace(AddressSpace& space) {
  space.user.dropAll(true);
  space.user64.dropAll(true);
  space.user32.dropAll(true);
  space.supervisorCount = 0;
}

void AddressSpaces::dropKernel(bool globalToo) {
  kernel_.dropAll(globalToo);
  kernelCode_.dropAll(globalToo);
}

void AddressSpaces::dropCurrent(bool globalToo) {
  dropSpace(*current_);
  dropKernel(globalToo);
  for (AddressSpace& space : spaces_) {
    if (globalToo && lowGlobal_ && space.used && &space != current_) dropSpace(space);
  }
}

void AddressSpaces::dropEverything() {
  for (AddressSpace& space : spaces_) {
    if (space.used) dropSpace(space);
    if (&space != current_) space.used = false;
  }
  dropKernel(true);
  lowGlobal_ = false;
}

void AddressSpaces::dropCode() {
  for (AddressSpace& space : spaces_) {
    if (!space.used) continue;
    space.user64.dropAll(true);
    space.user32.dropAll(true);
  }
  kernelCode_.dropAll(true);
}

void AddressSpaces::releaseMemory() {
  for (AddressSpace& space : spaces_) {
    if (space.area) space.release();
  }
  kernelCode_.release();
}

void AddressSpaces::dropReturns() {
  for (AddressSpace& space : spaces_) {
    if (!space.used) continue;
    space.user64.dropReturns();
    space.user32.dropReturns();
  }
  kernelCode_.dropReturns();
}

void AddressSpaces::noteSupervisorPage(std::uint64_t linear) {
  if (current_->supervisorCount < AddressSpace::kSupervisorPages)
    current_->supervisorPages[current_->supervisorCount] = linear;
  ++current_->supervisorCount;
}

void AddressSpaces::dropSupervisorPages() {
  AddressSpace& space = *current_;
  if (space.supervisorCount > AddressSpace::kSupervisorPages) {
    space.user.dropAll(true);
  } else {
    for (unsigned i = 0; i < space.supervisorCount; ++i) space.user.drop(space.supervisorPages[i]);
  }
  space.supervisorCount = 0;
}

}  // namespace lodge::translate
