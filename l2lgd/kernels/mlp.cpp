// The per-parameter MLP on the CPU: one step of all tensors of all functions.
//
// A step of a tensor takes its means over rows and columns, then goes over its coordinates twice.
// The first pass advances the running moments and sums the squares of all features, whose roots are
// then folded into the weights of the first layer; the second one makes the features again and runs
// the network. Both work in blocks of coordinates, a row for each feature, which stay in the
// innermost cache. What a feature of a whole row or column adds to the first layer is made once for
// that row or column.
//
// Work is cut, and sums are added up, in a way that does not depend on the number of threads.
//
// A tensor is seen as (outer, first, middle, second, inner): the axes `first` and `second` are
// those that are factored. "Across" is what has lost `first` to a mean, and lies as a line of the
// tensor does, (outer, line); "along" is what has lost `second`, (outer, first, middle, inner).

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include "chunks.h"
#include "lanes.h"

// What Python passes; both layouts are repeated in mlp.py.
struct Rule {
  int32_t inputs, layers, vector_features, times;
  int32_t per_matrix, scale_by_parameter, orthogonalise, normalise_update;
  int32_t tensors, threads;
  double second_moment_epsilon, diagonal_epsilon, gradient_clip, normalisation_epsilon;
  double step_size, magnitude;
};

struct Shape {
  int64_t offset, size;  // among the coordinates of a function
  int64_t outer, first, middle, second, inner;
  int64_t matrices;         // in slices of the last two axes
  int32_t vector;           // has less than two axes, so that nothing is factored
  int32_t first_is_largest;  // is `first` the largest axis, which rows have lost?
};

namespace {

constexpr double kTiny = 1e-30, kLeast = 1e-9;             // as in accumulators.py
constexpr double kRootEpsilon = 1e-8, kScaleEpsilon = 1e-9, kOutputEpsilon = 1e-9;  // as in mlp.py
constexpr double kClipped = 0.1;
constexpr double kTimeScales[] = {1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5};
constexpr int kTimes = sizeof(kTimeScales) / sizeof(double);
constexpr int kDecays = 3;

// In the order of INPUTS of mlp.py.
enum Input {
  kGradient, kClippedGradient, kParameter, kMomentum, kSecondMoment, kScaledMomentum, kInverseRoot,
  kFactoredGradient, kScaledGradient, kRow, kColumn, kInverseRootRow, kInverseRootColumn,
  kFactoredMomentum, kInputs
};
constexpr int kChannels[kInputs] = {1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3};

#if defined(__AVX512F__)
constexpr int kVectors = 4;  // are worked on at once
#else
constexpr int kVectors = 2;  // with half as many registers
#endif
constexpr int kTile = 4;           // outputs of a layer at once
constexpr int64_t kPiece = 8192;   // coordinates that have a sum of their own
constexpr int64_t kLines = 128;    // whose sum is exact enough
constexpr int64_t kGroups = 16;    // of lines, at most
constexpr int64_t kLarge = 1 << 16;  // coordinates of a tensor that threads share
constexpr int64_t kWork = 1 << 14;   // coordinates that are worth a thread

template <class T> using Value = typename Lanes<T>::Value;
template <class T> constexpr int kLanes = kVectorBytes / sizeof(T);
template <class T> constexpr int kPack = kVectors * kLanes<T>;
template <class T> constexpr int kBlock = 512 / sizeof(T);

template <class T> INLINE Value<T> load(const T* from) {
  Value<T> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T> INLINE void store(T* to, Value<T> value) {
  std::memcpy(to, &value, sizeof value);
}
template <class T> INLINE Value<T> fill(T x) { return x - Value<T>{}; }

// to[i] = f(i) for whole vectors, the last of which may go beyond the end.
template <class T, class F> INLINE void each(T* to, int64_t count, F f) {
  for (int64_t i = 0; i < count; i += kLanes<T>) store(to + i, f(i));
}

template <class T> T sum(Value<T> lanes) {
  T total = 0;
  for (int i = 0; i < kLanes<T>; ++i) total += lanes[i];
  return total;
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

// Of numbers that are not too small. NaN stays NaN.
template <class T> INLINE Value<T> inverse_root_of_least(Value<T> x) {
  const Value<T> least = fill(T(kLeast));
  return inverse_root<T>(x < least ? least : x);
}

// exp(x), also where exp2 has an end.
template <class T> INLINE Value<T> exp(Value<T> x) {
  const Value<T> t = x * T(kLog2e), high = fill(T(Lanes<T>::kLargest));
  const auto beyond = (t > high) | (t < -high);
  bool any = false;
  for (int i = 0; i < kLanes<T>; ++i) any |= beyond[i] != 0;
  Value<T> y = exp2<T>(t);
  if (any)
    for (int i = 0; i < kLanes<T>; ++i) y[i] = std::exp(x[i]);
  return y;
}

// -- layers -------------------------------------------------------------------------------------

// A layer's weights (inputs, outputs), packed so that a product reads them in order.
template <class T> struct Layer {
  int inputs, outputs;
  std::vector<T> packed;  // tiles of M outputs, each (inputs, M)

  // Input k has its weights in row rows[k] of a matrix with so many columns, times factors[k].
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

  // out[m] = Σ_k w[k, m] x[k] + bias[m], or + biases[m] of each coordinate, for whole packs. With
  // `rectify`, its positive part.
  template <bool rectify>
  void run(const T* const* x, const T* bias, const T* const* biases, T* const* out, int64_t width) const {
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
        const Value<T> y = acc[m][i];
        store(out[m] + at + i * kLanes<T>, rectify && true ? (y < Value<T>{} ? Value<T>{} : y) : y);
      }
  }
};

// φ of one function.
template <class T> struct Weights {
  std::vector<const T*> weights, biases;
  const T *momentum, *second_moment, *factored;  // decays
  T number;  // t + 1
};

// -- features -----------------------------------------------------------------------------------

struct Feature {
  int input, channel;
  int row;  // of the first layer's weights
};

// What of a tensor the network sees, and how.
struct Plan {
  std::vector<Feature> each;    // a number for each coordinate, made in a block
  std::vector<Feature> across, along;  // one for each row or column
  bool needs[kInputs] = {};      // of each
  bool root, scale;              // needs the root of the second moment, of the factored one
  bool apart;                   // are matrices normalised apart?
  bool raw;                     // is the update left to be made orthogonal?
  bool by_matrix;               // does any of it go by matrices?
  int row_side, column_side;    // 0 across, 1 along

  Plan(const Rule& rule, const int32_t* inputs, const Shape& shape) {
    const bool vector = shape.vector;
    apart = !vector && rule.per_matrix;
    raw = !vector && rule.orthogonalise;
    by_matrix = apart || (!vector && rule.normalise_update && !raw);
    row_side = shape.first_is_largest ? 0 : 1;
    column_side = 1 - row_side;
    const bool tables = !vector && !(apart && shape.matrices > 1);
    int row = 0;
    for (int k = 0; k < rule.inputs; ++k)
      for (int channel = 0; channel < kChannels[inputs[k]]; ++channel, ++row) {
        if (vector && row >= rule.vector_features) continue;
        const int input = inputs[k];
        const bool of_row = input == kRow || input == kInverseRootRow;
        const bool of_column = input == kColumn || input == kInverseRootColumn;
        std::vector<Feature>* into = &each;
        if (tables && of_row) into = row_side ? &along : &across;
        if (tables && of_column) into = column_side ? &along : &across;
        into->push_back({input, channel, row});
        if (into == &each) needs[input] = true;
      }
    root = needs[kScaledMomentum] || needs[kInverseRoot] || needs[kScaledGradient];
    scale = needs[kFactoredGradient] || (needs[kFactoredMomentum] && !vector);
  }

  bool tables() const { return !across.empty() || !along.empty(); }
};

// One tensor of one function; accumulators may be written over.
template <class T> struct Arrays {
  const T *gradient, *theta;
  const T *momentum, *second_moment, *row, *column;
  T *new_momentum, *new_second_moment, *new_row, *new_column;
  T* update;
};

template <class T> struct alignas(kVectorBytes) Row {
  T at[kBlock<T> + kLanes<T>];  // runs may be written in whole vectors
};

// Channels of n numbers each, with room for whole packs and one vector more.
template <class T> struct Table {
  int64_t n = 0, stride = 0;
  std::vector<T> numbers;

  void resize(int64_t channels, int64_t size) {
    n = size;
    stride = (n + kPack<T> - 1) / kPack<T> * kPack<T> + kLanes<T>;
    numbers.assign(channels * stride, T(0));
  }
  T* operator[](int64_t channel) { return &numbers[channel * stride]; }
  const T* operator[](int64_t channel) const { return &numbers[channel * stride]; }
  int64_t width() const { return stride - kLanes<T>; }
};

// What is the same for all coordinates of a row, or of a column.
template <class T> struct Side {
  Table<T> means;   // of the squared gradients of this step, one channel
  Table<T> values;  // running means, one for each decay
  Table<T> inverse_roots, factors;
  Table<T> bias;  // what they add to the first layer

  const T* channel(const Feature& f) const {
    return f.input == kRow || f.input == kColumn ? values[f.channel] : inverse_roots[f.channel];
  }
};

// A block of coordinates, a row for each feature.
template <class T> struct Block {
  Row<T> rows[kInputs][kDecays];
  Row<T> scale[kDecays];
  const T* input[kInputs][kDecays];  // those rows, or memory
};

// What one thread works in.
template <class T> struct Scratch {
  Block<T> block;
  std::vector<Row<T>> hidden, following;
  std::vector<const T*> x;
  std::vector<T*> out;
  std::vector<Value<T>> squares;
  Layer<T> first;
  // What a tensor has, where this thread works on it alone.
  Side<T> sides[2];
  std::vector<double> sums, line_sums;
  std::vector<T> line, sizes, scales;
  std::vector<Layer<T>> layers;
};

// Calls f(at, length, place across, place along) for runs of coordinates from begin on, in which
// places across are neighbours, and places along are too, or the same where there is no inner axis.
template <class F> INLINE void for_runs(const Shape& s, int64_t begin, int64_t count, F f) {
  const int64_t run = s.inner == 1 ? s.second : s.inner, line = s.middle * s.second * s.inner;
  const int64_t mean = s.second * s.inner;
  for (int64_t at = 0; at < count;) {
    const int64_t i = begin + at, length = std::min(count - at, run - i % run);
    f(at, length, i / (s.first * line) * line + i % line, i / mean * s.inner + i % s.inner);
    at += length;
  }
}

// to[c][i] = combine(across[c], along[c]) for the coordinates of a block.
template <class T, class Combine>
INLINE void expand(const Shape& s, int64_t begin, int64_t count, const Table<T>& across,
                   const Table<T>& along, int channels, Row<T>* to, Combine combine) {
  for_runs(s, begin, count, [&](int64_t at, int64_t length, int64_t one, int64_t other) {
    for (int c = 0; c < channels; ++c) {
      const T *a = across[c] + one, *b = along[c] + other;
      if (s.inner == 1) {
        const Value<T> same = fill(*b);
        each(to[c].at + at, length, [&](int64_t i) { return combine(load(a + i), same); });
      } else {
        each(to[c].at + at, length, [&](int64_t i) { return combine(load(a + i), load(b + i)); });
      }
    }
  });
}

template <class T> struct Step {
  const Rule& rule;
  const Shape& shape;
  const Plan& plan;
  const int32_t* widths;
  const Weights<T>& phi;
  const Arrays<T>& a;
  Scratch<T>* scratches;
  int64_t threads;

  bool clips() const { return std::isfinite(rule.gradient_clip); }

  INLINE Value<T> gradient(Value<T> g) const { return clamp<T>(g, T(rule.gradient_clip)); }
  INLINE T gradient(T g) const {
    const T bound = T(rule.gradient_clip);
    g = g < -bound ? -bound : g;
    return g > bound ? bound : g;
  }

  int64_t slices() const { return plan.by_matrix ? shape.matrices : 1; }
  int64_t slice_size() const { return shape.size / slices(); }
  int64_t pieces_of_slice() const { return (slice_size() + kPiece - 1) / kPiece; }

  // Calls work(scratch, piece, slice, begin, end) for all pieces, on threads.
  template <class Work> void for_pieces(Work work) const {
    const int64_t each = pieces_of_slice(), size = slice_size();
    for_chunks(scratches, threads, slices() * each, [&](Scratch<T>& s, int64_t piece) {
      const int64_t slice = piece / each, begin = slice * size + piece % each * kPiece;
      work(s, piece, slice, begin, std::min(begin + kPiece, (slice + 1) * size));
    });
  }

  // -- rows and columns

  // The means of squared gradients over either factored axis.
  void mean_squares() const {
    Scratch<T>& own = *scratches;
    const int64_t line = shape.middle * shape.second * shape.inner;
    Table<T>&across = own.sides[0].means, &along = own.sides[1].means;
    across.resize(1, shape.outer * line);
    along.resize(1, shape.size / shape.second);
    const int64_t lines = std::max((shape.first + kGroups - 1) / kGroups, (kPiece + line - 1) / line);
    const int64_t groups = (shape.first + lines - 1) / lines;
    own.line_sums.assign(shape.outer * groups * line, 0.0);
    for (int64_t i = 0; i < threads; ++i) scratches[i].line.resize(line);
    for_chunks(scratches, threads, shape.outer * groups, [&](Scratch<T>& s, int64_t chunk) {
      const int64_t outer = chunk / groups, begin = chunk % groups * lines;
      double* total = &own.line_sums[chunk * line];
      const int64_t end = std::min(begin + lines, shape.first);
      for (int64_t start = begin; start < end; start += kLines) {
        std::fill(s.line.begin(), s.line.end(), T(0));
        for (int64_t i = start; i < std::min(start + kLines, end); ++i) {
          const int64_t at = outer * shape.first + i;
          squares_of_line(a.gradient + at * line, s.line.data(),
                          along[0] + at * shape.middle * shape.inner);
        }
        for (int64_t i = 0; i < line; ++i) total[i] += s.line[i];
      }
    });
    for (int64_t outer = 0; outer < shape.outer; ++outer) {
      double* total = &own.line_sums[outer * groups * line];
      for (int64_t group = 1; group < groups; ++group)
        for (int64_t i = 0; i < line; ++i) total[i] += total[group * line + i];
      for (int64_t i = 0; i < line; ++i) across[0][outer * line + i] = T(total[i]) / T(shape.first);
    }
    for (int64_t i = 0; i < along.n; ++i) along[0][i] /= T(shape.second);
  }

  // Adds those of a line to sums across and, zero at first, along.
  void squares_of_line(const T* from, T* across, T* along) const {
    const T tiny = T(kTiny);
    if (shape.inner == 1) {
      for (int64_t m = 0; m < shape.middle; ++m) {
        Value<T> lanes = {};
        int64_t i = 0;
        for (; i + kLanes<T> <= shape.second; i += kLanes<T>) {
          const Value<T> g = gradient(load(from + i)), square = g * g + tiny;
          store(across + i, load(across + i) + square);
          lanes += square;
        }
        T total = sum<T>(lanes);
        for (; i < shape.second; ++i) {
          const T g = gradient(from[i]), square = g * g + tiny;
          across[i] += square;
          total += square;
        }
        along[m] = total;
        from += shape.second;
        across += shape.second;
      }
      return;
    }
    for (int64_t m = 0; m < shape.middle; ++m, along += shape.inner)
      for (int64_t q = 0; q < shape.second; ++q, from += shape.inner, across += shape.inner)
        for (int64_t i = 0; i < shape.inner; ++i) {
          const T g = gradient(from[i]), square = g * g + tiny;
          across[i] += square;
          along[i] += square;
        }
  }

  // The running means over rows and columns, and what comes of them.
  void factor() const {
    mean_squares();
    for (const bool is_row : {true, false}) {
      Side<T>& side = scratches->sides[is_row ? plan.row_side : plan.column_side];
      const T* before = is_row ? a.row : a.column;
      T* after = is_row ? a.new_row : a.new_column;
      const int64_t n = side.means.n;
      side.values.resize(kDecays, n);
      side.inverse_roots.resize(kDecays, n);
      side.factors.resize(kDecays, n);
      for (int d = 0; d < kDecays; ++d) {
        const T beta = phi.factored[d];
        const T* mean = side.means[0];
        T *value = side.values[d], *root = side.inverse_roots[d], *factor = side.factors[d];
        for (int64_t i = 0; i < n; ++i) value[i] = beta * before[d * n + i] + (1 - beta) * mean[i];
        std::memcpy(after + d * n, value, n * sizeof(T));
        each(root, n, [&](int64_t i) { return inverse_root<T>(load(value + i) + T(kRootEpsilon)); });
        std::fill(root + n, root + side.values.stride, T(0));
        if (is_row)
          relative(value, factor);
        else
          std::memcpy(factor, value, n * sizeof(T));
        each(factor, n, [&](int64_t i) { return inverse_root_of_least<T>(load(factor + i)); });
      }
    }
  }

  // Rows over their mean along the axis that they have of the two.
  void relative(const T* row, T* to) const {
    const bool across = plan.row_side == 0;
    const int64_t outer = across ? shape.outer * shape.middle : shape.outer;
    const int64_t count = across ? shape.second : shape.first;
    const int64_t inner = across ? shape.inner : shape.middle * shape.inner;
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < inner; ++i) {
        const int64_t begin = o * count * inner + i;
        double total = 0;
        for (int64_t k = 0; k < count; ++k) total += row[begin + k * inner];
        const T mean = T(total) / T(count) + T(kLeast);
        for (int64_t k = 0; k < count; ++k) to[begin + k * inner] = row[begin + k * inner] / mean;
      }
  }

  // -- blocks

  // Makes the running moments of `count` coordinates.
  void advance(int64_t begin, int64_t count) const {
    const T second = *phi.second_moment;
    int64_t i = begin;
    for (; i + kLanes<T> <= begin + count; i += kLanes<T>) {
      const Value<T> g = gradient(load(a.gradient + i));
#pragma GCC unroll 3
      for (int d = 0; d < kDecays; ++d) {
        const int64_t at = d * shape.size + i;
        const T beta = phi.momentum[d];
        store(a.new_momentum + at, beta * load(a.momentum + at) + (1 - beta) * g);
      }
      store(a.new_second_moment + i, second * load(a.second_moment + i) + (1 - second) * (g * g));
      if (shape.vector)
        for (int d = 0; d < kDecays; ++d) {
          const int64_t at = d * shape.size + i;
          const T beta = phi.factored[d];
          store(a.new_row + at, beta * load(a.row + at) + (1 - beta) * (g * g + T(kTiny)));
        }
    }
    for (; i < begin + count; ++i) {
      const T g = gradient(a.gradient[i]);
      for (int d = 0; d < kDecays; ++d) {
        const int64_t at = d * shape.size + i;
        const T beta = phi.momentum[d], factored = phi.factored[d];
        a.new_momentum[at] = beta * a.momentum[at] + (1 - beta) * g;
        if (shape.vector)
          a.new_row[at] = factored * a.row[at] + (1 - factored) * (g * g + T(kTiny));
      }
      a.new_second_moment[i] = second * a.second_moment[i] + (1 - second) * (g * g);
    }
  }

  // A row of the block: memory itself, or a copy where that ends within a pack.
  INLINE const T* row_of(Block<T>& b, Input input, int channel, const T* from, int64_t count) const {
    if (count % kPack<T> == 0) return from;
    T* row = b.rows[input][channel].at;
    std::memcpy(row, from, count * sizeof(T));
    std::fill(row + count, row + kBlock<T>, T(0));
    return row;
  }

  // All features of each coordinate, by new moments. They are zero beyond the last one.
  void make(Scratch<T>& s, int64_t begin, int64_t count) const {
    Block<T>& b = s.block;
    const int64_t width = (count + kPack<T> - 1) / kPack<T> * kPack<T>;
    const bool vector = shape.vector;
    auto row = [&](Input input, int channel, auto f) {
      T* to = b.rows[input][channel].at;
      each(to, width, f);
      if (count < width) std::fill(to + count, to + width, T(0));
      b.input[input][channel] = to;
    };
    const T *g = row_of(b, kGradient, 0, a.gradient + begin, count), *m[kDecays], *scale[kDecays];
    if (clips()) {
      const T* from = g;
      row(kGradient, 0, [&](int64_t i) { return gradient(load(from + i)); });
      g = b.rows[kGradient][0].at;
    }
    b.input[kGradient][0] = g;
    b.input[kParameter][0] = row_of(b, kParameter, 0, a.theta + begin, count);
    const T* v = row_of(b, kSecondMoment, 0, a.new_second_moment + begin, count);
    b.input[kSecondMoment][0] = v;
    for (int d = 0; d < kDecays; ++d)
      m[d] = b.input[kMomentum][d] =
          row_of(b, kMomentum, d, a.new_momentum + d * shape.size + begin, count);
    if (plan.needs[kClippedGradient])
      row(kClippedGradient, 0, [&](int64_t i) { return clamp<T>(load(g + i), T(kClipped)); });
    if (plan.root) {
      const T epsilon = T(rule.second_moment_epsilon);
      row(kInverseRoot, 0, [&](int64_t i) { return inverse_root<T>(load(v + i) + epsilon); });
      const T* root = b.rows[kInverseRoot][0].at;
      if (plan.needs[kScaledMomentum])
        for (int d = 0; d < kDecays; ++d)
          row(kScaledMomentum, d, [&](int64_t i) { return load(m[d] + i) * load(root + i); });
      if (plan.needs[kScaledGradient])
        row(kScaledGradient, 0, [&](int64_t i) { return load(g + i) * load(root + i); });
    }
    for (int d = 0; d < kDecays; ++d) scale[d] = b.scale[d].at;
    if (vector)
      of_vector(b, begin, count, width, row);
    else
      of_matrix(b, begin, count, row);
    for (int d = 0; d < kDecays; ++d) {
      const T* by = scale[d];
      if (plan.needs[kFactoredGradient])
        row(kFactoredGradient, d, [&](int64_t i) { return load(g + i) * load(by + i); });
      if (plan.needs[kFactoredMomentum] && !vector)
        row(kFactoredMomentum, d, [&](int64_t i) { return load(m[d] + i) * load(by + i); });
    }
  }

  // Of a vector, rows and columns are both the running mean of the squared gradient itself.
  template <class MakeRow>
  void of_vector(Block<T>& b, int64_t begin, int64_t count, int64_t width, MakeRow row) const {
    for (int d = 0; d < kDecays; ++d) {
      const T* own = row_of(b, kRow, d, a.new_row + d * shape.size + begin, count);
      b.input[kRow][d] = b.input[kColumn][d] = own;
      for (const Input input : {kInverseRootRow, kInverseRootColumn})
        if (plan.needs[input])
          row(input, d,
              [&](int64_t i) { return inverse_root<T>(load(own + i) + T(kRootEpsilon)); });
      if (plan.scale)
        each(b.scale[d].at, width,
             [&](int64_t i) { return inverse_root_of_least<T>(load(own + i) + T(kLeast)); });
      const T *m = b.input[kMomentum][d], epsilon = T(rule.diagonal_epsilon);
      if (plan.needs[kFactoredMomentum])
        row(kFactoredMomentum, d,
            [&](int64_t i) { return load(m + i) * inverse_root<T>(load(own + i) + epsilon); });
    }
  }

  template <class MakeRow>
  void of_matrix(Block<T>& b, int64_t begin, int64_t count, MakeRow row) const {
    const Side<T>&across = scratches->sides[0], &along = scratches->sides[1];
    if (plan.scale)
      expand(shape, begin, count, across.factors, along.factors, kDecays, b.scale,
             [](Value<T> x, Value<T> y) { return x * y; });
    for (const Input input : {kRow, kColumn, kInverseRootRow, kInverseRootColumn}) {
      if (!plan.needs[input]) continue;
      const bool inverse = input == kInverseRootRow || input == kInverseRootColumn;
      const bool is_row = input == kRow || input == kInverseRootRow;
      const Table<T>& one = inverse ? across.inverse_roots : across.values;
      const Table<T>& other = inverse ? along.inverse_roots : along.values;
      const bool first = (is_row ? plan.row_side : plan.column_side) == 0;
      expand(shape, begin, count, one, other, kDecays, b.rows[input],
             [first](Value<T> x, Value<T> y) { return first ? x : y; });
      for (int d = 0; d < kDecays; ++d) {  // only the end is not yet as it should be
        T* to = b.rows[input][d].at;
        std::fill(to + count, to + kBlock<T>, T(0));
        b.input[input][d] = to;
      }
    }
  }

  // -- the two passes

  // The moments, and for each slice the sums of squares of its features and of its parameters.
  void sum_squares() const {
    const int features = int(plan.each.size()) + 1;
    scratches->sums.assign(slices() * pieces_of_slice() * features, 0.0);
    double* sums = scratches->sums.data();
    for (int64_t i = 0; i < threads; ++i) scratches[i].squares.resize(features);
    for_pieces([&](Scratch<T>& s, int64_t piece, int64_t, int64_t begin, int64_t end) {
      std::fill(s.squares.begin(), s.squares.end(), Value<T>{});
      for (; begin < end; begin += kBlock<T>) {
        const int64_t count = std::min<int64_t>(kBlock<T>, end - begin);
        advance(begin, count);
        make(s, begin, count);
        for (int f = 0; f < features - 1; ++f)
          s.squares[f] += squares(s.block.input[plan.each[f].input][plan.each[f].channel], count);
        if (rule.scale_by_parameter)
          s.squares[features - 1] += squares(s.block.input[kParameter][0], count);
      }
      for (int f = 0; f < features; ++f) sums[piece * features + f] = sum<T>(s.squares[f]);
    });
  }

  static INLINE Value<T> squares(const T* x, int64_t count) {
    Value<T> lanes[kVectors] = {};
    for (int64_t i = 0; i < count; i += kPack<T>)
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) {
        const Value<T> y = load(x + i + k * kLanes<T>);
        lanes[k] += y * y;
      }
    Value<T> total = lanes[0];
    for (int k = 1; k < kVectors; ++k) total += lanes[k];
    return total;
  }

  // From sums of squares to what features are divided by, inverse: one row for each that is
  // normalised apart.
  void invert_sizes() const {
    const int features = int(plan.each.size()) + 1;
    const int64_t count = plan.apart ? slices() : 1, each = slices() * pieces_of_slice() / count;
    const T n = T(shape.size / count), epsilon = T(rule.normalisation_epsilon);
    scratches->sizes.resize(count * features);
    for (int64_t slice = 0; slice < count; ++slice)
      for (int f = 0; f < features; ++f) {
        double total = 0;
        for (int64_t k = 0; k < each; ++k)
          total += scratches->sums[(slice * each + k) * features + f];
        scratches->sizes[slice * features + f] = 1 / std::sqrt(T(total) / n + epsilon);
      }
  }

  // The root mean square of the parameters, where updates are in proportion to it.
  T size_of_parameters() const {
    if (!rule.scale_by_parameter) return 1;
    const int features = int(plan.each.size()) + 1;
    double total = 0;
    for (int64_t k = 0; k < slices() * pieces_of_slice(); ++k)
      total += scratches->sums[k * features + features - 1];
    return std::sqrt(T(total) / T(shape.size) + T(kScaleEpsilon));
  }

  // The first layer for the features of rows or columns, with the bias along.
  void fold(Side<T>& side, const std::vector<Feature>& features, const T* bias) const {
    Scratch<T>& s = *scratches;
    const int outputs = widths[1];
    side.bias.resize(outputs, side.values.n);
    s.scales.clear();
    s.x.clear();
    for (const Feature& f : features) {
      const T* x = side.channel(f);
      double total = 0;
      for (int64_t i = 0; i < side.values.n; i += kBlock<T>)
        total += sum<T>(squares(x + i, std::min<int64_t>(kBlock<T>, side.values.n - i)));
      const T mean = T(total) / T(side.values.n);
      s.scales.push_back(1 / std::sqrt(mean + T(rule.normalisation_epsilon)));
      s.x.push_back(x);
    }
    s.out.clear();
    for (int h = 0; h < outputs; ++h) s.out.push_back(side.bias[h]);
    s.first.pack(phi.weights[0], int(features.size()), outputs, outputs,
                 [&](int k) { return features[k].row; }, [&](int k) { return s.scales[k]; });
    s.first.template run<false>(s.x.data(), bias, nullptr, s.out.data(), side.bias.width());
  }

  // The first layer's bias, with what the number of steps adds to it.
  std::vector<T> first_bias() const {
    const int outputs = widths[1], features = widths[0] - rule.times * kTimes;
    std::vector<T> bias(phi.biases[0], phi.biases[0] + outputs);
    if (rule.times)
      for (int k = 0; k < kTimes; ++k) {
        const T time = std::tanh((phi.number - 1) / T(kTimeScales[k]) - 1);
        for (int h = 0; h < outputs; ++h)
          bias[h] += time * phi.weights[0][(features + k) * outputs + h];
      }
    return bias;
  }

  void run_network() const {
    const int features = int(plan.each.size()), hidden = *std::max_element(widths, widths + rule.layers + 1);
    const std::vector<T> bias = first_bias();
    Scratch<T>& own = *scratches;
    const int last = rule.layers - 1, used = rule.magnitude ? 2 : 1;  // outputs
    auto outputs = [&](int layer) { return layer == last ? used : widths[layer + 1]; };
    if (plan.tables()) {
      fold(own.sides[0], plan.across, bias.data());
      fold(own.sides[1], plan.along, nullptr);
    }
    own.layers.resize(rule.layers);
    for (int l = 1; l < rule.layers; ++l)
      own.layers[l].pack(phi.weights[l], widths[l], outputs(l), widths[l + 1],
                         [](int k) { return k; }, [](int) { return T(1); });
    for (int64_t i = 0; i < threads; ++i) {
      scratches[i].hidden.resize(hidden);
      scratches[i].following.resize(hidden);
    }
    const T factor = size_of_parameters() * (plan.raw || rule.normalise_update ? T(1) : -T(rule.step_size));
    for_pieces([&](Scratch<T>& s, int64_t, int64_t slice, int64_t begin, int64_t end) {
      const T* sizes = &own.sizes[(plan.apart ? slice : 0) * (features + 1)];
      s.first.pack(phi.weights[0], features, outputs(0), widths[1],
                   [&](int k) { return plan.each[k].row; }, [&](int k) { return sizes[k]; });
      for (; begin < end; begin += kBlock<T>)
        network(s, bias.data(), factor, begin, std::min<int64_t>(kBlock<T>, end - begin));
    });
  }

  void network(Scratch<T>& s, const T* bias, T factor, int64_t begin, int64_t count) const {
    const int64_t width = (count + kPack<T> - 1) / kPack<T> * kPack<T>;
    const Side<T>* sides = scratches->sides;
    make(s, begin, count);
    s.x.clear();
    for (const Feature& f : plan.each) s.x.push_back(s.block.input[f.input][f.channel]);
    if (plan.tables())
      expand(shape, begin, count, sides[0].bias, sides[1].bias, s.first.outputs, s.following.data(),
             [](Value<T> x, Value<T> y) { return x + y; });
    for (int l = 0; l < rule.layers; ++l) {
      const Layer<T>& layer = l ? scratches->layers[l] : s.first;
      s.out.clear();
      for (int h = 0; h < layer.outputs; ++h) s.out.push_back(s.hidden[h].at);
      const bool table = l == 0 && plan.tables();
      std::vector<const T*> own;
      if (table)
        for (int h = 0; h < layer.outputs; ++h) own.push_back(s.following[h].at);
      const T* constant = l ? phi.biases[l] : table ? nullptr : bias;
      const T* const* each = table ? own.data() : nullptr;
      if (l + 1 < rule.layers)
        layer.template run<true>(s.x.data(), constant, each, s.out.data(), width);
      else
        layer.template run<false>(s.x.data(), constant, each, s.out.data(), width);
      s.x.assign(s.out.begin(), s.out.end());
      std::swap(s.hidden, s.following);
    }
    T* update = s.out[0];
    for (int64_t i = 0; i < width; i += kLanes<T>) {
      Value<T> u = load(update + i);
      if (rule.magnitude) u *= exp<T>(T(rule.magnitude) * load(s.out[1] + i));
      store(update + i, factor * u);
    }
    std::memcpy(a.update + begin, update, count * sizeof(T));
  }

  // Divides the update, of each matrix or of a vector, by its root mean square.
  void normalise() const {
    const int64_t each = pieces_of_slice();
    scratches->sums.assign(slices() * each, 0.0);
    double* sums = scratches->sums.data();
    for_pieces([&](Scratch<T>&, int64_t piece, int64_t, int64_t begin, int64_t end) {
      const int64_t whole = begin + (end - begin) / kPack<T> * kPack<T>;
      Value<T> lanes = squares(a.update + begin, whole - begin);
      T total = sum<T>(lanes);
      for (int64_t i = whole; i < end; ++i) total += a.update[i] * a.update[i];
      sums[piece] = total;
    });
    for_pieces([&](Scratch<T>&, int64_t, int64_t slice, int64_t begin, int64_t end) {
      double total = 0;
      for (int64_t k = 0; k < each; ++k) total += sums[slice * each + k];
      const T mean = T(total) / T(slice_size());
      const T factor = -T(rule.step_size) / std::sqrt(T(kOutputEpsilon) + mean);
      for (int64_t i = begin; i < end; ++i) a.update[i] *= factor;
    });
  }

  void run() const {
    if (!shape.vector) factor();
    sum_squares();
    invert_sizes();
    run_network();
    if (rule.normalise_update && !plan.raw) normalise();
  }
};

// What Python passes for φ: pointers to each layer's weights and biases, then to the decays; and how
// far apart functions are in each, 0 where they share it.
template <class T>
Weights<T> weights_of(const Rule& rule, const T* const* pointers, const int64_t* strides,
                      const T* numbers, int64_t number_stride, int64_t function) {
  Weights<T> phi;
  for (int l = 0; l < rule.layers; ++l) {
    phi.weights.push_back(pointers[2 * l] + function * strides[2 * l]);
    phi.biases.push_back(pointers[2 * l + 1] + function * strides[2 * l + 1]);
  }
  phi.momentum = pointers[2 * rule.layers] + function * strides[2 * rule.layers];
  phi.second_moment = phi.momentum + kDecays;
  phi.factored = phi.second_moment + 1;
  phi.number = numbers[function * number_stride];
  return phi;
}

template <class T>
Arrays<T> arrays_of(const Shape& shape, int64_t function, int64_t n, const T* gradient,
                    const T* theta, T* const* before, T* const* after, T* update) {
  const int64_t size = shape.size, at = function * n + shape.offset;
  const int64_t across = size / shape.first, along = size / shape.second;
  int64_t rows = size, columns = 0;
  if (!shape.vector) {
    rows = shape.first_is_largest ? across : along;
    columns = shape.first_is_largest ? along : across;
  }
  const int64_t steps[] = {kDecays * size, size, kDecays * rows, kDecays * columns};
  T *from[4], *to[4];
  for (int k = 0; k < 4; ++k) {
    from[k] = before[k] + function * steps[k];
    to[k] = after[k] + function * steps[k];
  }
  return {gradient + at, theta + at, from[0], from[1], from[2], from[3],
          to[0],         to[1],      to[2],   to[3],   update + at};
}

template <class T>
void step(const Rule& rule, const int32_t* inputs, const int32_t* widths, const Shape* shapes,
          const T* const* pointers, const int64_t* strides, const T* numbers, int64_t number_stride,
          const T* gradient, const T* theta, T* const* before, T* const* after, T* update,
          int64_t functions, int64_t n) {
  std::vector<Plan> plans;
  for (int k = 0; k < rule.tensors; ++k) plans.emplace_back(rule, inputs, shapes[k]);
  const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(rule.threads, functions * n / kWork));
  std::vector<Scratch<T>> scratches(threads);
  std::atomic<bool> failed{false};
  auto run = [&](Scratch<T>* own, int64_t count, int64_t function, int k) {
    try {
      const auto phi = weights_of(rule, pointers, strides, numbers, number_stride, function);
      const auto arrays = arrays_of(shapes[k], function, n, gradient, theta, before + 4 * k,
                                    after + 4 * k, update);
      Step<T>{rule, shapes[k], plans[k], widths, phi, arrays, own, count}.run();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  // Threads share out small tensors, and work on large ones together.
  for_chunks(scratches.data(), threads, functions * rule.tensors, [&](Scratch<T>& s, int64_t i) {
    const int k = int(i % rule.tensors);
    if (shapes[k].size < kLarge && shapes[k].size) run(&s, 1, i / rule.tensors, k);
  });
  for (int64_t i = 0; i < functions * rule.tensors; ++i) {
    const int k = int(i % rule.tensors);
    if (shapes[k].size >= kLarge) run(scratches.data(), threads, i / rule.tensors, k);
  }
  if (failed) throw std::bad_alloc();
}

}  // namespace

// 0, or 1 when there is not enough memory. Gradients, parameters and updates are (functions, n).
// `before` and `after` point to the four accumulators of each tensor, and may be the same.
#define EXPORT(T, suffix)                                                                        \
  extern "C" int step_##suffix(const Rule* rule, const int32_t* inputs, const int32_t* widths,   \
                               const Shape* shapes, const T* const* pointers,                    \
                               const int64_t* strides, const T* numbers, int64_t number_stride,  \
                               const T* gradient, const T* theta, T* const* before,              \
                               T* const* after, T* update, int64_t functions, int64_t n) try {   \
    step<T>(*rule, inputs, widths, shapes, pointers, strides, numbers, number_stride, gradient,  \
            theta, before, after, update, functions, n);                                         \
    return 0;                                                                                    \
  } catch (const std::bad_alloc&) {                                                              \
    return 1;                                                                                    \
  }
EXPORT(float, float)
EXPORT(double, double)
