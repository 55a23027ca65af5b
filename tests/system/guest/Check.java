// SPDX-License-Identifier: Apache-2.0
// Java that checks itself: what compilers make of it while it runs must compute what the interpreter (-Xint) does.
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;

public class Check {
  static long seed = 42;

  static int random() {
    seed = seed * 6364136223846793005L + 1442695040888963407L;
    return (int) (seed >>> 33);
  }

  static double matrices(int n) {
    double[][] a = new double[n][n], b = new double[n][n];
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        a[i][j] = random() % 100 / 7.0;
        b[i][j] = random() % 100 / 3.0;
      }
    }
    double trace = 0;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (int k = 0; k < n; ++k) sum += a[i][k] * b[k][j];
        if (i == j) trace += sum;
      }
    }
    return trace;
  }

  static long collections() {
    Map<String, Integer> counts = new HashMap<>();
    for (int i = 0; i < 60000; ++i) counts.merge("key" + random() % 5000, 1, Integer::sum);
    long sum = 0;
    for (Map.Entry<String, Integer> e : new TreeMap<>(counts).entrySet())
      sum = sum * 31 + e.getKey().hashCode() * (long) e.getValue();
    return sum;
  }

  static long exceptions() {
    long caught = 0;
    int[] small = new int[10];
    for (int i = 0; i < 40000; ++i) {
      try {
        small[random() % 12] += 1000 / (random() % 5);
      } catch (ArithmeticException e) {
        caught += 1;
      } catch (ArrayIndexOutOfBoundsException e) {
        caught += 1000000;
      }
      Object none = random() % 3 == 0 ? null : "x";
      try {
        caught += none.hashCode() & 1;
      } catch (NullPointerException e) {
        caught += 1000000000000L;
      }
    }
    return caught;
  }

  static long threads() throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(4);
    List<Future<Long>> parts = new ArrayList<>();
    for (int t = 0; t < 16; ++t) {
      int from = t * 10000;
      parts.add(pool.submit(() -> IntStream.range(from, from + 10000).filter(n -> BigInteger.valueOf(n).isProbablePrime(20)).count()));
    }
    long sum = 0;
    for (Future<Long> part : parts) sum += part.get();
    pool.shutdown();
    return sum;
  }

  public static void main(String[] arguments) throws Exception {
    System.out.println("matrices " + matrices(120));
    System.out.println("collections " + collections());
    System.out.println("exceptions " + exceptions());
    System.out.println("primes " + threads());
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    for (int i = 0; i < 3000; ++i) digest.update(("line " + random()).getBytes(StandardCharsets.UTF_8));
    System.out.println("sha256 " + new BigInteger(1, digest.digest()).toString(16));
    BigInteger f = BigInteger.ONE;
    for (int i = 2; i < 1500; ++i) f = f.multiply(BigInteger.valueOf(i));
    System.out.println("factorial " + f.mod(BigInteger.valueOf(1000000007L * 998244353L)));
  }
}
