// Vectors of the widest kind that the CPU has, and functions of them that have no branches.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define INLINED __attribute__((always_inline))  // of lambdas

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;  // NEON, SSE
#endif

// exp2(f) ≈ Σ_k kExp2[k] f^k for |f| <= 1/2, minimax in the relative error; kBias and kShift put
// an integer n into the exponent of a number.
template <class T> struct Lanes;  // Unaligned is how memory is read and written
template <> struct Lanes<float> {
  typedef float Value __attribute__((vector_size(kVectorBytes)));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(float))));
  typedef int32_t Bits __attribute__((vector_size(kVectorBytes)));
  static constexpr float kExp2[] = {1.f,           0.6931469776f,  0.2402224209f,
                                    0.05550733743f, 0.009671512645f, 0.001326472712f};  // 9e-8
  static constexpr float kBias = 0x1.8p23f + 127;
  static constexpr int kShift = 23, kLargest = 125;
};
template <> struct Lanes<double> {
  typedef double Value __attribute__((vector_size(kVectorBytes)));
  typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(double))));
  typedef int64_t Bits __attribute__((vector_size(kVectorBytes)));
  static constexpr double kExp2[] = {
      1.0,                     0.69314718055994533,     0.240226506959101562,
      0.0555041086648199216,   0.00961812910758833524,  0.00133335581467899217,
      0.000154035304625144321, 0.0000152527334899885256, 1.32154330896763992e-6,
      1.01781980216719308e-7,  7.0741056135081428e-9,   4.43528270695727715e-10};  // 3e-18
  static constexpr double kBias = 0x1.8p52 + 1023;
  static constexpr int kShift = 52, kLargest = 1022;
};

constexpr double kLog2e = 1.44269504088896340736;

// Between -bound and bound. NaN stays NaN: a comparison with it is false.
template <class T> INLINE typename Lanes<T>::Value clamp(typename Lanes<T>::Value x, T bound) {
  using Value = typename Lanes<T>::Value;
  const Value high = bound - Value{}, low = -high;
#if defined(__AVX512F__)  // GCC would make two instructions of each
  if constexpr (std::is_same_v<T, float>)
    return (Value)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)x));
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>)
    return (Value)_mm256_min_ps((__m256)high, _mm256_max_ps((__m256)low, (__m256)x));
#endif
  x = x < low ? low : x;
  return x > high ? high : x;
}

// exp2(t) for |t| <= kLargest, beyond as there. NaN stays NaN.
template <class T> INLINE typename Lanes<T>::Value exp2(typename Lanes<T>::Value t) {
  using L = Lanes<T>;
  constexpr int degree = sizeof(L::kExp2) / sizeof(T) - 1;
  constexpr T largest = L::kLargest;
  const typename L::Value x = clamp<T>(t, largest);
  const typename L::Value rounded = x + L::kBias;  // its lowest bits hold the integer part
  const typename L::Value f = x - (rounded - L::kBias);
  const auto power = (typename L::Value)((typename L::Bits)rounded << L::kShift);
  typename L::Value y = L::kExp2[degree] - typename L::Value{};
#pragma GCC unroll 16
  for (int k = degree - 1; k >= 0; --k) y = y * f + L::kExp2[k];
  return y * power;
}

template <class T> using Value = typename Lanes<T>::Value;
template <class T> constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T> INLINE Value<T> load(const T* from) {
  return *reinterpret_cast<const typename Lanes<T>::Unaligned*>(from);
}
template <class T> INLINE void store(T* to, Value<T> value) {
  *reinterpret_cast<typename Lanes<T>::Unaligned*>(to) = value;
}
template <class T> INLINE Value<T> fill(T x) { return x - Value<T>{}; }

// to[i] = f(i) for whole vectors, the last of which may go beyond the end.
template <class T, class F> INLINE void each(T* to, int64_t count, F f) {
  for (int64_t i = 0; i < count; i += kLanes<T>) store(to + i, f(i));
}

template <class T> INLINE T sum(Value<T> lanes) {
  T x[kLanes<T>];
  store(x, lanes);
  for (int half = kLanes<T> / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

// x^(-1/2).
template <class T> INLINE Value<T> inverse_root(Value<T> x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {  // two thirds of what a root and a division take
    const auto guess = (Value<T>)_mm512_rsqrt14_ps((__m512)x);
    const auto better = guess * (T(1.5) - T(0.5) * x * guess * guess);
    return better == better ? better : guess;  // of zero and infinity, the guess is right
  } else {
    return T(1) / (Value<T>)_mm512_sqrt_pd((__m512d)x);
  }
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>)
    return T(1) / (Value<T>)_mm256_sqrt_ps((__m256)x);
  else
    return T(1) / (Value<T>)_mm256_sqrt_pd((__m256d)x);
#else
  for (int i = 0; i < kLanes<T>; ++i) x[i] = T(1) / std::sqrt(x[i]);
  return x;
#endif
}

// to[i] = exp(factor · x[i]) for whole vectors, also where exp2 has an end.
template <class T> void exponentials(const T* x, T factor, T* to, int64_t count) {
  const Value<T> scale = fill(T(factor * kLog2e)), high = fill(T(Lanes<T>::kLargest));
  typename Lanes<T>::Bits beyond = {};
  each(to, count, [&](int64_t i) {
    const Value<T> t = scale * load(x + i);
    beyond |= (t > high) | (t < -high);
    return exp2<T>(t);
  });
  bool any = false;
  for (int i = 0; i < kLanes<T>; ++i) any |= beyond[i] != 0;
  for (int64_t i = 0; any && i < count; ++i) to[i] = std::exp(factor * x[i]);
}

}  // namespace
