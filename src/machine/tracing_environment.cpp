// SPDX-License-Identifier: Apache-2.0
#include "machine/tracing_environment.h"

#include "base/log.h"

namespace lodge {

void TracingEnvironment::line(const char* what, std::uint64_t where, unsigned size, std::uint64_t value) const {
  logLine(LogLevel::debug, fmt::format("vcpu{} {} {:#x}/{} {:#x}", index_, what, where, size, value));
}

std::uint64_t TracingEnvironment::readPort(std::uint16_t port, unsigned size) {
  std::uint64_t value = world_.readPort(port, size);
  line("in", port, size, value);
  return value;
}

void TracingEnvironment::writePort(std::uint16_t port, unsigned size, std::uint64_t value) {
  line("out", port, size, value);
  world_.writePort(port, size, value);
}

std::uint64_t TracingEnvironment::readMmio(Gpa gpa, unsigned size) {
  std::uint64_t value = world_.readMmio(gpa, size);
  line("read", raw(gpa), size, value);
  return value;
}

void TracingEnvironment::writeMmio(Gpa gpa, unsigned size, std::uint64_t value) {
  line("write", raw(gpa), size, value);
  world_.writeMmio(gpa, size, value);
}

std::int64_t TracingEnvironment::hypercall(std::uint64_t number, const std::uint64_t (&arguments)[4]) {
  std::int64_t result = world_.hypercall(number, arguments);
  line("hypercall", number, 8, static_cast<std::uint64_t>(result));
  return result;
}

}  // namespace lodge
