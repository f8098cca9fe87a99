// A layer of a small network, on many coordinates whose inputs and outputs are a row each.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "lanes.h"

namespace {

#if defined(__AVX512F__)
constexpr int kVectors = 4;  // are worked on at once
#else
constexpr int kVectors = 2;  // with half as many registers
#endif
constexpr int kTile = 4;  // outputs at once
template <class T> constexpr int kPack = kVectors * kLanes<T>;

template <class T> int64_t whole_packs(int64_t count) {
  return (count + kPack<T> - 1) / kPack<T> * kPack<T>;
}

// A layer's weights (inputs, outputs), packed so that a product reads them in order.
template <class T> struct Layer {
  int inputs, outputs;
  std::vector<T> packed;  // tiles of M outputs, each (inputs, M)

  // Input k has its weights in row(k) of a matrix with so many columns, times factor(k).
  template <class Row, class Factor>
  void pack(const T* weights, int inputs, int outputs, int columns, Row row, Factor factor) {
    this->inputs = inputs;
    this->outputs = outputs;
    packed.clear();
    for (int begin = 0; begin < outputs; begin += kTile)
      for (int k = 0; k < inputs; ++k)
        for (int m = begin; m < std::min(begin + kTile, outputs); ++m)
          packed.push_back(factor(k) * weights[int64_t(row(k)) * columns + m]);
  }

  // out[m] = Σ_k w[k, m] x[k] + bias[m] + biases[m], the last of which has a number for each
  // coordinate, in whole packs; either may be missing. With `rectify`, the positive part.
  template <bool rectify>
  void run(const T* const* x, const T* bias, const T* const* biases, T* const* out,
           int64_t width) const {
    const T* weights = packed.data();
    int begin = 0;
    auto tile = [&](auto M) {
      for (int64_t at = 0; at < width; at += kPack<T>)
        product<M, rectify>(weights, x, bias ? bias + begin : nullptr,
                            biases ? biases + begin : nullptr, out + begin, at);
      weights += int64_t(M) * inputs;
      begin += M;
    };
    while (begin + kTile <= outputs) tile(std::integral_constant<int, kTile>());
    switch (outputs - begin) {
      case 1: return tile(std::integral_constant<int, 1>());
      case 2: return tile(std::integral_constant<int, 2>());
      case 3: return tile(std::integral_constant<int, 3>());
    }
  }

  template <int M, bool rectify>
  INLINE void product(const T* weights, const T* const* x, const T* bias, const T* const* biases,
                      T* const* out, int64_t at) const {
    Value<T> acc[M][kVectors];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        acc[m][i] = biases ? load(biases[m] + at + i * kLanes<T>) : Value<T>{};
        if (bias) acc[m][i] += bias[m];
      }
    for (int k = 0; k < inputs; ++k, weights += M) {
      Value<T> factor[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) factor[i] = load(x[k] + at + i * kLanes<T>);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) acc[m][i] += weights[m] * factor[i];
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        Value<T> y = acc[m][i];
        if constexpr (rectify) y = y < Value<T>{} ? Value<T>{} : y;  // NaN stays NaN
        store(out[m] + at + i * kLanes<T>, y);
      }
  }
};

}  // namespace
