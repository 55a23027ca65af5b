// SPDX-License-Identifier: Apache-2.0
// Every function of the C mathematics library, in float, double and long double and in all rounding modes, over random
// and special arguments: a digest of results and exception flags a function. Linked statically, the same file must
// print the same on any processor with the same features.
#define _GNU_SOURCE
#include <complex.h>
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { kTurns = 12000 };

static uint64_t random64(void) {
  static uint64_t state = 0x9e3779b97f4a7c15;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/// Special values first, then numbers of usual size, then any bits.
static double argument(int turn) {
  static const double special[] = {0.0,      -0.0,      1.0,  -1.0,      0.5,       2.0,
                                   INFINITY, -INFINITY, NAN,  0x1p-1074, 0x1p-1022, 0x1.fffffffffffffp1023,
                                   1e-20,    -1e300,    M_PI, M_PI_2,    709.78,    -745.2,
                                   0x1p52,   1e22};
  enum { kSpecial = sizeof special / sizeof *special };
  if (turn < kSpecial * kSpecial) return special[random64() % kSpecial];
  uint64_t bits = random64();
  double value;
  if (turn % 3 != 0) return ((double)(int64_t)bits) * 0x1p-57 * ((turn & 4) != 0 ? 1 : 1000);
  memcpy(&value, &bits, 8);
  return value;
}

static const int kModes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
static uint64_t digest = 0xcbf29ce484222325;

static void add(const void* bytes, size_t length) {
  for (size_t i = 0; i < length; ++i) digest = (digest ^ ((const unsigned char*)bytes)[i]) * 0x100000001b3;
}
static void addFloat(float value) {
  add(&value, 4);
}
static void addDouble(double value) {
  add(&value, 8);
}
static void addLong(long double value) {
  add(&value, 10);
}
/// One round's arguments.
struct Arguments {
  double x, y, z;
  float xf, yf, zf;
  long double xl, yl, zl;
};

static struct Arguments begin(int turn) {
  struct Arguments a = {.x = argument(turn), .y = argument(turn + 1), .z = argument(turn)};
  a.xf = (float)a.x, a.yf = (float)a.y, a.zf = (float)a.z;
  a.xl = (long double)a.x * 1.0000000000000000001L, a.yl = a.y, a.zl = a.z;
  fesetround(kModes[turn & 3]);
  feclearexcept(FE_ALL_EXCEPT);
  return a;
}

static void end(void) {
  int flags = fetestexcept(FE_ALL_EXCEPT);
  add(&flags, 4);
  fesetround(FE_TONEAREST);
}

static void print(const char* name) {
  printf("%-10s %016llx\n", name, (unsigned long long)digest);
  digest = 0xcbf29ce484222325;
}

#define EACH_TURN                                               \
  for (int turn = 0, once = 1; turn < kTurns; ++turn, once = 1) \
    for (struct Arguments a = begin(turn); once; once = 0, end())

static void one(const char* name, double (*d)(double), float (*f)(float), long double (*l)(long double)) {
  EACH_TURN {
    addDouble(d(a.x));
    addFloat(f(a.xf));
    addLong(l(a.xl));
  }
  print(name);
}

static void two(const char* name, double (*d)(double, double), float (*f)(float, float),
                long double (*l)(long double, long double)) {
  EACH_TURN {
    addDouble(d(a.x, a.y));
    addFloat(f(a.xf, a.yf));
    addLong(l(a.xl, a.yl));
  }
  print(name);
}

static void whole(const char* name, long (*d)(double), long (*f)(float), long (*l)(long double)) {
  EACH_TURN {
    long results[] = {d(a.x), f(a.xf), l(a.xl)};
    add(results, sizeof results);
  }
  print(name);
}

static void complexOne(const char* name, double complex (*d)(double complex), float complex (*f)(float complex)) {
  EACH_TURN {
    double complex r = d(CMPLX(a.x, a.y));
    float complex rf = f(CMPLXF(a.xf, a.yf));
    addDouble(creal(r)), addDouble(cimag(r)), addFloat(crealf(rf)), addFloat(cimagf(rf));
  }
  print(name);
}

#define ONE(name) one(#name, name, name##f, name##l)
#define TWO(name) two(#name, name, name##f, name##l)
#define WHOLE(name) whole(#name, name, name##f, name##l)
#define COMPLEX(name) complexOne(#name, name, name##f)

static void elementary(void) {
  ONE(sin), ONE(cos), ONE(tan), ONE(asin), ONE(acos), ONE(atan);
  ONE(sinh), ONE(cosh), ONE(tanh), ONE(asinh), ONE(acosh), ONE(atanh);
  ONE(exp), ONE(exp2), ONE(exp10), ONE(expm1), ONE(log), ONE(log2), ONE(log10), ONE(log1p), ONE(logb);
  ONE(sqrt), ONE(cbrt), ONE(erf), ONE(erfc), ONE(tgamma), ONE(lgamma), ONE(j0), ONE(j1), ONE(y0), ONE(y1);
  TWO(pow), TWO(atan2), TWO(hypot);
  COMPLEX(csqrt), COMPLEX(cexp), COMPLEX(clog), COMPLEX(csin), COMPLEX(ctan), COMPLEX(casinh), COMPLEX(cacosh);
}

static void roundings(void) {
  ONE(ceil), ONE(floor), ONE(trunc), ONE(round), ONE(roundeven), ONE(rint), ONE(nearbyint), ONE(fabs), ONE(significand);
  TWO(fmod), TWO(remainder), TWO(fdim), TWO(fmax), TWO(fmin), TWO(copysign), TWO(nextafter);
  WHOLE(lrint), WHOLE(lround);
}

static void arithmetic(void) {
  EACH_TURN {
    addDouble(fma(a.x, a.y, a.z)), addFloat(fmaf(a.xf, a.yf, a.zf)), addLong(fmal(a.xl, a.yl, a.zl));
  }
  print("fma");
  EACH_TURN {
    int exponents[2] = {0, 0};
    addDouble(ldexp(a.x, turn - 2000)), addDouble(frexp(a.x, &exponents[0])), addLong(frexpl(a.xl, &exponents[1]));
    add(exponents, sizeof exponents);
  }
  print("scaling");
  EACH_TURN {
    double part = 0;
    long double partl = 0;
    int quotient = 0;
    addDouble(modf(a.x, &part)), addDouble(part), addLong(modfl(a.xl, &partl)), addLong(partl);
    addDouble(remquo(a.x, a.y, &quotient)), add(&quotient, 4);
  }
  print("parts");
  EACH_TURN {
    volatile struct Arguments v = a;
    addDouble(v.x + v.y), addDouble(v.x - v.y), addDouble(v.x * v.y), addDouble(v.x / v.y);
    addFloat(v.xf + v.yf), addFloat(v.xf - v.yf), addFloat(v.xf * v.yf), addFloat(v.xf / v.yf);
    addLong(v.xl + v.yl), addLong(v.xl - v.yl), addLong(v.xl * v.yl), addLong(v.xl / v.yl);
    int compared = (v.x < v.y) | (v.x == v.y) << 1 | (v.xl > v.yl) << 2 | (isunordered(v.xf, v.yf) != 0) << 3;
    add(&compared, 4);
  }
  print("operators");
}

int main(void) {
  elementary();
  roundings();
  arithmetic();
  return 0;
}
