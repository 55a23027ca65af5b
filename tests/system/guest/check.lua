-- SPDX-License-Identifier: Apache-2.0
-- Loops that LuaJIT traces; prints the same with the JIT off.
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
print(fib(25))
local sum = 0
for i = 1, 2000000 do sum = (sum * 31 + i) % 1000003 end
print(sum)
local t = {}
for i = 1, 50000 do t[i] = (i * 7919) % 50021 end
table.sort(t)
print(t[1], t[25000], t[50000])
local real = 0.0
for i = 1, 300000 do real = real + math.sin(i) * math.sqrt(i) end
print(string.format('%.9f', real))
local parts = {}
for i = 1, 2000 do parts[#parts + 1] = string.rep(string.char(97 + i % 26), i % 5) end
print(#table.concat(parts), (table.concat(parts):gsub('bb', '')):len())
local ffi = require('ffi')
local a = ffi.new('uint32_t[1000]')
for round = 1, 300 do for i = 0, 999 do a[i] = bit.bxor(a[i] * 5 + i, round) end end
print(tonumber(a[1]), tonumber(a[999]))
