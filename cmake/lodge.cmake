# SPDX-License-Identifier: Apache-2.0
# How every folder becomes a target: lodge_library(NAME [GUEST_REGISTERS] [DEPENDS ...]).
# Sources are the folder's *.cpp and *.S; *_test.cpp becomes the test program NAME_test; *_fuzz.cpp is left to fuzz/.

find_package(PkgConfig REQUIRED)
find_package(GTest REQUIRED)
find_package(fmt REQUIRED)
find_package(Threads REQUIRED)
find_package(nlohmann_json REQUIRED)
pkg_check_modules(SLIRP REQUIRED IMPORTED_TARGET slirp)

# A static program: every object is the same as in the shared one, but what the libraries are differs. Of libfmt and libslirp
# there are no static ones: the former's functions come out of its headers (src/base/fmt_functions.cpp), the latter is loaded
# when it is needed (src/net/slirp_library.h).
set(LODGE_FMT fmt::fmt)
if(LODGE_STATIC)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
  set(OPENSSL_USE_STATIC_LIBS ON)
  set(ZLIB_USE_STATIC_LIBS ON)
  add_link_options(-static-pie -Wl,-z,pack-relative-relocs)
  set_property(TARGET PkgConfig::SLIRP PROPERTY INTERFACE_LINK_LIBRARIES "")
  add_library(lodge_fmt INTERFACE)
  target_compile_definitions(lodge_fmt INTERFACE $<TARGET_PROPERTY:fmt::fmt,INTERFACE_COMPILE_DEFINITIONS>)
  set(LODGE_FMT lodge_fmt)
endif()

add_library(lodge_options INTERFACE)
target_compile_options(lodge_options INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wconversion-null -Wimplicit-fallthrough
  -fno-strict-aliasing)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # The opcode tables are computed by the compiler, in more steps than clang allows by default.
  target_compile_options(lodge_options INTERFACE -fconstexpr-steps=100000000)
endif()
target_include_directories(lodge_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(lodge_options INTERFACE Threads::Threads)

# Code that runs while the guest's vector and x87 registers are live in the host's: it must not touch them, call libc,
# throw, or use thread-local storage. tools/check verifies the objects' undefined symbols.
add_library(lodge_guest_registers INTERFACE)
set(LODGE_GUEST_REGISTER_FLAGS -fno-exceptions -fno-stack-protector -fcf-protection=none -O2)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND LODGE_GUEST_REGISTER_FLAGS -mgeneral-regs-only -mmemcpy-strategy=rep_8byte:-1:noalign
    -mmemset-strategy=rep_8byte:-1:noalign -fno-tree-loop-distribute-patterns)
else()
  # Clang builds only what the fuzz drivers and checks need, which never enters a guest.
  list(APPEND LODGE_GUEST_REGISTER_FLAGS -mno-implicit-float -fno-vectorize -fno-slp-vectorize)
endif()
target_compile_options(lodge_guest_registers INTERFACE ${LODGE_GUEST_REGISTER_FLAGS})

# Single files of that kind, in folders of ordinary code.
function(lodge_guest_register_sources)
  if(NOT LODGE_SANITIZE)
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "${LODGE_GUEST_REGISTER_FLAGS}")
  endif()
endfunction()

set(LODGE_SANITIZE_FLAGS "")
if(LODGE_SANITIZE)
  set(LODGE_SANITIZE_FLAGS -fsanitize=${LODGE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${LODGE_SANITIZE})
endif()

# libFuzzer's coverage in everything that a driver may reach, guest-register folders too.
set(LODGE_FUZZ_FLAGS "")
if(LODGE_FUZZ)
  set(LODGE_FUZZ_FLAGS -fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined)
endif()

function(lodge_library name)
  cmake_parse_arguments(arg "GUEST_REGISTERS" "" "DEPENDS;LIBRARIES;TEST_DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp ${CMAKE_CURRENT_SOURCE_DIR}/*.S)
  file(GLOB drivers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_fuzz.cpp)
  foreach(driver ${drivers})
    set_property(GLOBAL APPEND PROPERTY LODGE_FUZZ_DRIVERS "${name}=${driver}")
  endforeach()
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|main)\\.cpp$")
  if(sources)
    add_library(lodge_${name} STATIC ${sources})
    target_link_libraries(lodge_${name} PUBLIC lodge_options ${LODGE_FMT} ${arg_LIBRARIES})
    target_compile_options(lodge_${name} PRIVATE ${LODGE_FUZZ_FLAGS})
    foreach(dep ${arg_DEPENDS})
      target_link_libraries(lodge_${name} PUBLIC lodge_${dep})
    endforeach()
    if(arg_GUEST_REGISTERS)
      target_link_libraries(lodge_${name} PRIVATE lodge_guest_registers)
    elseif(LODGE_SANITIZE_FLAGS)
      target_compile_options(lodge_${name} PRIVATE ${LODGE_SANITIZE_FLAGS})
    endif()
  else()
    add_library(lodge_${name} INTERFACE)
    target_link_libraries(lodge_${name} INTERFACE lodge_options ${LODGE_FMT} ${arg_LIBRARIES})
    foreach(dep ${arg_DEPENDS})
      target_link_libraries(lodge_${name} INTERFACE lodge_${dep})
    endforeach()
  endif()
  if(tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE lodge_${name} GTest::gtest GTest::gmock GTest::gtest_main)
    foreach(dep ${arg_TEST_DEPENDS})
      target_link_libraries(${name}_test PRIVATE lodge_${dep})
    endforeach()
    target_compile_options(${name}_test PRIVATE ${LODGE_SANITIZE_FLAGS})
    add_test(NAME unit.${name} COMMAND ${name}_test)
    set_tests_properties(unit.${name} PROPERTIES TIMEOUT 600)
  endif()
endfunction()
