// SPDX-License-Identifier: Apache-2.0
// Work that makes the JIT compile, optimize and throw away code; prints the same with and without it.
'use strict';
const crypto = require('crypto');
const out = [];

function fib(n) {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}
out.push(fib(24));

// Types change under optimized code: it must be thrown away.
function add(a, b) {
  return a + b;
}
let sum = 0;
for (let i = 0; i < 200000; i++) sum = add(sum, i % 7);
out.push(sum, add('x', 1), add(0.1, 0.2), add(2 ** 53, 1));

const matrix = Array.from({ length: 60 }, (_, i) => Float64Array.from({ length: 60 }, (_, k) => Math.sqrt(i * 61 + k)));
let trace = 0;
for (let i = 0; i < 60; i++) for (let k = 0; k < 60; k++) for (let j = 0; j < 60; j++) trace += matrix[i][k] * matrix[k][j];
out.push(trace);

const map = new Map();
for (let i = 0; i < 30000; i++) map.set('key' + ((i * 7919) % 10007), i);
out.push(map.size, [...map.values()].reduce((a, b) => (a * 31 + b) >>> 0, 0));

for (let i = 0; i < 300; i++) out.push(new Function('a', `return a * ${i} + ${i % 13}`)(i));
let big = 1n;
for (let i = 1n; i <= 300n; i++) big *= i;
out.push(big.toString().length, (big % 1000000007n).toString());
out.push('abc abd'.repeat(500).replace(/ab(?=d)/g, 'X').split('X').length);
try {
  (function deep() {
    return deep() + 1;
  })();
} catch (error) {
  out.push(error.constructor.name);
}
const objects = [];
for (let i = 0; i < 100000; i++) objects[i % 1000] = { i, text: 'n' + i, next: objects[(i * 31) % 1000] && i };
out.push(objects.reduce((a, o) => a + o.i, 0));
console.log(crypto.createHash('sha256').update(out.join('\n')).digest('hex'));
