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
#include "layer.h"

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
constexpr int kFeatures = kInputs * kDecays;  // room for
constexpr int kChannels[kInputs] = {1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3};

constexpr int64_t kPiece = 8192;   // coordinates that have a sum of their own
constexpr int64_t kLines = 128;    // whose sum is exact enough
constexpr int64_t kGroups = 16;    // of lines, at most
constexpr int64_t kLarge = 1 << 16;  // coordinates of a tensor that threads share
constexpr int64_t kWork = 1 << 14;   // coordinates that are worth a thread

template <class T> constexpr int kBlock = 1024 / sizeof(T);

// Calls f(0), f(1), f(2), with constants.
template <class F> INLINE void for_decays(F f) {
  f(std::integral_constant<int, 0>());
  f(std::integral_constant<int, 1>());
  f(std::integral_constant<int, 2>());
}
static_assert(kDecays == 3);

// Of numbers that are not too small. NaN stays NaN.
template <class T> INLINE Value<T> inverse_root_of_least(Value<T> x) {
  const Value<T> least = fill(T(kLeast));
  return inverse_root<T>(x < least ? least : x);
}

// -- what there is of a function, of a tensor and of a block ------------------------------------

// Decays of the running means.
template <class T> struct Betas { T momentum[kDecays], second_moment, factored[kDecays]; };

// φ of one function.
template <class T> struct Weights {
  Betas<T> beta;
  const T* first;  // the first layer's
  std::vector<T> first_bias;  // with what the number of steps adds to it
  std::vector<const T*> biases;
  std::vector<Layer<T>> layers;  // but for the first one, which differs from tensor to tensor
};

struct Feature {
  int input, channel;
  int row;  // of the first layer's weights

  int index() const { return input * kDecays + channel; }
};

// What of a tensor the network sees, and how.
struct Plan {
  std::vector<Feature> each;    // a number for each coordinate, made in a block
  std::vector<Feature> across, along;  // one for each row or column
  bool needs[kInputs] = {};      // any channel of an input, of each
  bool wants[kFeatures] = {};    // that one, or its sum of squares
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
        if (into == &each) needs[input] = wants[into->back().index()] = true;
      }
    if (rule.scale_by_parameter) wants[kParameter * kDecays] = true;
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

// Channels of n numbers each, with room for whole packs from any of them on.
template <class T> struct Table {
  int64_t n = 0, stride = 0;
  std::vector<T> numbers;

  void resize(int64_t channels, int64_t size) {
    n = size;
    stride = whole_packs<T>(n) + kPack<T>;
    numbers.assign(channels * stride, T(0));
  }
  T* operator[](int64_t channel) { return &numbers[channel * stride]; }
  const T* operator[](int64_t channel) const { return &numbers[channel * stride]; }
  int64_t width() const { return stride - kPack<T>; }
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

// Coordinates whose places across are neighbours, and whose places along are too or, where there is
// no inner axis, are the same.
struct Run {
  int64_t at, length;  // in a block
  int64_t across, along;
};

// A block of coordinates, a row for each feature.
template <class T> struct Block {
  Run runs[kBlock<T>];
  int num_runs;
  Row<T> rows[kInputs][kDecays];
  Row<T> scale[kDecays];  // the inverse root of the factored second moment
};

// What one thread works in.
template <class T> struct Scratch {
  Block<T> block;
  std::vector<Row<T>> hidden, following;
  std::vector<const T*> x, biases;
  std::vector<T*> out;
  std::vector<T> line, bias;
  Layer<T> first;
  int64_t function = -1;  // that these weights are of
  Weights<T> phi;
  // What a tensor has, where this thread works on it alone.
  Side<T> sides[2];
  std::vector<double> sums, line_sums;
  std::vector<T> sizes, scales;
};

// The inverse root of the factored second moment, at coordinate i of a block: x[d][i] · by[d].
template <class T> struct Scale {
  const T* x[kDecays];
  T by[kDecays];
};

template <class T> void find_runs(Block<T>& b, const Shape& s, int64_t begin, int64_t count) {
  const int64_t length = s.inner == 1 ? s.second : s.inner, mean = s.second * s.inner;
  const int64_t line = s.middle * mean;
  int64_t in_run = begin % length, in_mean = begin % mean, in_line = begin % line;
  int64_t row = begin / line % s.first, across = begin / (s.first * line) * line + in_line;
  int64_t along = begin / mean * s.inner + begin % s.inner;
  b.num_runs = 0;
  for (int64_t at = 0; at < count;) {
    const int64_t rest = std::min(count - at, length - in_run);
    b.runs[b.num_runs++] = {at, rest, across, along};
    at += rest;
    in_mean += rest;
    in_line += rest;
    across += rest;
    in_run = 0;  // or this was the last one
    if (s.inner > 1) along += rest;
    if (in_mean == mean) {
      in_mean = 0;
      if (s.inner == 1) ++along;
    } else if (s.inner > 1) {
      along -= s.inner;
    }
    if (in_line < line) continue;
    in_line = 0;
    if (++row < s.first)
      across -= line;
    else
      row = 0;
  }
}

// to[c][i] = combine(across[c], along[c]) for the coordinates of a block.
template <class T, class Combine>
INLINE void expand(const Block<T>& b, bool inner, const Table<T>& across, const Table<T>& along,
                   int channels, Row<T>* to, Combine combine) {
  for (int c = 0; c < channels; ++c) {
    const T *one = across[c], *other = along[c];
    for (const Run* run = b.runs; run < b.runs + b.num_runs; ++run) {
      const T *x = one + run->across, *y = other + run->along;
      T* z = to[c].at + run->at;
      const int64_t length = run->length;
      if (inner) {
        each(z, length, [&](int64_t i) INLINED { return combine(load(x + i), load(y + i)); });
      } else {
        const Value<T> same = fill(*y);
        each(z, length, [&](int64_t i) INLINED { return combine(load(x + i), same); });
      }
    }
  }
}

// -- the step -----------------------------------------------------------------------------------

// Of one tensor of one function.
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
  INLINE Value<T> clipped(Value<T> g) const { return clamp<T>(g, T(rule.gradient_clip)); }
  INLINE T clipped(T g) const {
    const T bound = T(rule.gradient_clip);
    g = g < -bound ? -bound : g;
    return g > bound ? bound : g;
  }

  int64_t slices() const { return plan.by_matrix ? shape.matrices : 1; }
  int64_t slice_size() const { return shape.size / slices(); }
  int64_t pieces_of_slice() const { return ceil_div(slice_size(), kPiece); }

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
    const int64_t lines = std::max(ceil_div(shape.first, kGroups), ceil_div(kPiece, line));
    const int64_t groups = ceil_div(shape.first, lines);
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
          const Value<T> g = clipped(load(from + i)), square = g * g + tiny;
          store(across + i, load(across + i) + square);
          lanes += square;
        }
        T total = sum<T>(lanes);
        for (; i < shape.second; ++i) {
          const T g = clipped(from[i]), square = g * g + tiny;
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
          const T g = clipped(from[i]), square = g * g + tiny;
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
        const T beta = phi.beta.factored[d];
        const T* mean = side.means[0];
        T *value = side.values[d], *root = side.inverse_roots[d], *factor = side.factors[d];
        for (int64_t i = 0; i < n; ++i) value[i] = beta * before[d * n + i] + (1 - beta) * mean[i];
        std::memcpy(after + d * n, value, n * sizeof(T));
        const T epsilon = T(kRootEpsilon);
        each(root, n, [&](int64_t i) { return inverse_root<T>(load(value + i) + epsilon); });
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

  // Of one vector of coordinates, or the `count` of them that there are: makes their running
  // moments, in the first pass, and calls sink(input, channel, feature) for what a coordinate has.
  template <bool first, bool vector, bool whole, class Sink>
  INLINE void visit(const Arrays<T>& a, const Betas<T>& beta, const Scale<T>& scale, int64_t begin,
                    int64_t i, int64_t count, Sink sink) const {
    const int64_t at = begin + i, size = shape.size;
    auto get = [&](const T* from) INLINED {
      if constexpr (whole) return load(from + at);
      Value<T> x = {};
      std::memcpy(&x, from + at, count * sizeof(T));
      return x;
    };
    auto put = [&](T* to, Value<T> x) INLINED {
      if constexpr (whole)
        store(to + at, x);
      else
        std::memcpy(to + at, &x, count * sizeof(T));
    };
    // A running mean, from before this step or, in the second pass, as it now is.
    auto mean = [&](const T* before, T* after, T beta, Value<T> x) INLINED {
      if constexpr (!first) return get(after);
      const Value<T> now = beta * get(before) + (1 - beta) * x;
      put(after, now);
      return now;
    };
    const Value<T> g = clipped(get(a.gradient)), square = g * g;
    sink(kGradient, 0, g);
    sink(kParameter, 0, get(a.theta));
    if (plan.needs[kClippedGradient]) sink(kClippedGradient, 0, clamp<T>(g, T(kClipped)));
    const Value<T> v = mean(a.second_moment, a.new_second_moment, beta.second_moment, square);
    sink(kSecondMoment, 0, v);
    Value<T> m[kDecays];
    for_decays([&](auto d) INLINED {
      m[d] = mean(a.momentum + d * size, a.new_momentum + d * size, beta.momentum[d], g);
      sink(kMomentum, d, m[d]);
    });
    if (plan.root) {
      const Value<T> root = inverse_root<T>(v + T(rule.second_moment_epsilon));
      sink(kInverseRoot, 0, root);
      sink(kScaledGradient, 0, g * root);
      for_decays([&](auto d) INLINED { sink(kScaledMomentum, d, m[d] * root); });
    }
    for_decays([&](auto d) INLINED {
      if constexpr (vector) {
        // Rows and columns are both the running mean of the squared gradient itself.
        const Value<T> own = mean(a.row + d * size, a.new_row + d * size, beta.factored[d],
                                  square + T(kTiny));
        const Value<T> root = inverse_root<T>(own + T(kRootEpsilon));
        sink(kRow, d, own);
        sink(kColumn, d, own);
        sink(kInverseRootRow, d, root);
        sink(kInverseRootColumn, d, root);
        sink(kFactoredGradient, d, g * inverse_root_of_least<T>(own + T(kLeast)));
        sink(kFactoredMomentum, d, m[d] * inverse_root<T>(own + T(rule.diagonal_epsilon)));
      } else if (plan.scale) {
        const Value<T> own = load(scale.x[d] + i) * scale.by[d];
        sink(kFactoredGradient, d, g * own);
        sink(kFactoredMomentum, d, m[d] * own);
      }
    });
  }

  // The same of all coordinates of a block; those beyond are zero.
  template <bool first, bool vector, class Sink>
  INLINE void visit_all(const Scale<T>& scale, int64_t begin, int64_t count, Sink sink) const {
    const Arrays<T> a = this->a;  // nothing that is written lies among these
    const Betas<T> beta = phi.beta;
    int64_t i = 0;
    auto all = [&](int input, int d, Value<T> x) INLINED { sink(i, input, d, x); };
    for (; i + kLanes<T> <= count; i += kLanes<T>)
      visit<first, vector, true>(a, beta, scale, begin, i, kLanes<T>, all);
    if (i == count) return;
    auto some = [&](int input, int d, Value<T> x) INLINED {
      Value<T> y = {};
      std::memcpy(&y, &x, (count - i) * sizeof(T));
      sink(i, input, d, y);
    };
    visit<first, vector, false>(a, beta, scale, begin, i, count - i, some);
  }

  // What a block's rows and columns have, for each of its coordinates.
  Scale<T> expand_sides(Block<T>& b, int64_t begin, int64_t count) const {
    const Side<T>&across = scratches->sides[0], &along = scratches->sides[1];
    find_runs(b, shape, begin, count);
    if (plan.scale)
      expand(b, shape.inner > 1, across.factors, along.factors, kDecays, b.scale,
             [](Value<T> x, Value<T> y) { return x * y; });
    for (const Input input : {kRow, kColumn, kInverseRootRow, kInverseRootColumn}) {
      if (!plan.needs[input]) continue;
      const bool inverse = input == kInverseRootRow || input == kInverseRootColumn;
      const bool is_row = input == kRow || input == kInverseRootRow;
      const Table<T>& one = inverse ? across.inverse_roots : across.values;
      const Table<T>& other = inverse ? along.inverse_roots : along.values;
      const bool first = (is_row ? plan.row_side : plan.column_side) == 0;
      expand(b, shape.inner > 1, one, other, kDecays, b.rows[input],
             [first](Value<T> x, Value<T> y) { return first ? x : y; });
      for (Row<T>& row : b.rows[input]) std::fill(row.at + count, row.at + kBlock<T>, T(0));
    }
    return {{b.scale[0].at, b.scale[1].at, b.scale[2].at}, {1, 1, 1}};
  }

  // Are runs so long that blocks do best to end with them, as packs are then nearly full?
  bool has_long_runs() const {
    const int64_t rest = -shape.second & (kPack<T> - 1);
    return plan.tables() && shape.inner == 1 && 8 * rest <= shape.second;
  }

  // -- the two passes

  // The moments, and for each piece the sums of squares of its features and of its parameters.
  template <bool vector> void sum_squares() const {
    scratches->sums.assign(slices() * pieces_of_slice() * kFeatures, 0.0);
    double* sums = scratches->sums.data();
    for_pieces([&](Scratch<T>& s, int64_t piece, int64_t, int64_t begin, int64_t end) {
      double* own = sums + piece * kFeatures;
      Value<T> squares[kFeatures] = {};
      for (; begin < end; begin += kBlock<T>) {
        const int64_t count = std::min<int64_t>(kBlock<T>, end - begin);
        Scale<T> scale;
        if constexpr (!vector) scale = expand_sides(s.block, begin, count);
        auto add = [&](int64_t, int input, int d, Value<T> x) INLINED {
          squares[input * kDecays + d] += x * x;
        };
        visit_all<true, vector>(scale, begin, count, add);
        if constexpr (!vector)
          for (const Input input : {kRow, kColumn, kInverseRootRow, kInverseRootColumn})
            if (plan.needs[input])
              for (int d = 0; d < kDecays; ++d)
                own[input * kDecays + d] += sum_of_squares(s.block.rows[input][d].at, count);
      }
      for (int f = 0; f < kFeatures; ++f)
        if (plan.wants[f]) own[f] += sum<T>(squares[f]);
    });
  }

  // Of whole packs, beyond the last of which there are zeros.
  static INLINE T sum_of_squares(const T* x, int64_t count) {
    Value<T> lanes[kVectors] = {};
    for (int64_t i = 0; i < count; i += kPack<T>)
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) {
        const Value<T> y = load(x + i + k * kLanes<T>);
        lanes[k] += y * y;
      }
    for (int k = 1; k < kVectors; ++k) lanes[0] += lanes[k];
    return sum<T>(lanes[0]);
  }

  // From sums of squares to what features are divided by, inverse: one row for each that is
  // normalised apart.
  void invert_sizes() const {
    const int64_t count = plan.apart ? slices() : 1, each = slices() * pieces_of_slice() / count;
    const T n = T(shape.size / count), epsilon = T(rule.normalisation_epsilon);
    scratches->sizes.resize(count * kFeatures);
    for (int64_t slice = 0; slice < count; ++slice)
      for (int f = 0; f < kFeatures; ++f)
        if (plan.wants[f])
          scratches->sizes[slice * kFeatures + f] =
              1 / std::sqrt(total(slice * each, each, f) / n + epsilon);
  }

  // A sum of squares over so many pieces.
  T total(int64_t piece, int64_t count, int feature) const {
    double sum = 0;
    for (int64_t k = piece; k < piece + count; ++k)
      sum += scratches->sums[k * kFeatures + feature];
    return T(sum);
  }

  // The root mean square of the parameters, where updates are in proportion to it.
  T size_of_parameters() const {
    if (!rule.scale_by_parameter) return 1;
    const T squares = total(0, slices() * pieces_of_slice(), kParameter * kDecays);
    return std::sqrt(squares / T(shape.size) + T(kScaleEpsilon));
  }

  // What the features of rows or columns, and the bias, give to the first layer.
  void fold(Side<T>& side, const std::vector<Feature>& features, const T* bias) const {
    Scratch<T>& s = *scratches;
    const int outputs = widths[1];
    side.bias.resize(outputs, side.values.n);
    s.scales.clear();
    s.x.clear();
    for (const Feature& f : features) {
      const T* x = side.channel(f);
      double total = 0;
      for (int64_t i = 0; i < side.values.n; i += kPiece)
        total += sum_of_squares(x + i, std::min<int64_t>(kPiece, side.values.n - i));
      const T mean = T(total) / T(side.values.n);
      s.scales.push_back(1 / std::sqrt(mean + T(rule.normalisation_epsilon)));
      s.x.push_back(x);
    }
    s.out.clear();
    for (int h = 0; h < outputs; ++h) s.out.push_back(side.bias[h]);
    s.first.pack(phi.first, int(features.size()), outputs, outputs,
                 [&](int k) { return features[k].row; }, [&](int k) { return s.scales[k]; });
    s.first.template run<false>(s.x.data(), bias, nullptr, s.out.data(), side.bias.width());
  }

  int outputs_of(int layer) const {
    if (layer + 1 < rule.layers) return widths[layer + 1];
    return rule.magnitude ? 2 : 1;
  }

  template <bool vector> void run_network() const {
    const int features = int(plan.each.size());
    const int hidden = *std::max_element(widths, widths + rule.layers + 1);
    if (plan.tables()) {
      fold(scratches->sides[0], plan.across, phi.first_bias.data());
      fold(scratches->sides[1], plan.along, nullptr);
    }
    for (int64_t i = 0; i < threads; ++i) {
      scratches[i].hidden.resize(hidden);
      scratches[i].following.resize(hidden);
    }
    const bool raw = plan.raw || rule.normalise_update, long_runs = has_long_runs();
    const T factor = size_of_parameters() * (raw ? T(1) : -T(rule.step_size));
    for_pieces([&](Scratch<T>& s, int64_t, int64_t slice, int64_t begin, int64_t end) {
      const T* sizes = &scratches->sizes[(plan.apart ? slice : 0) * kFeatures];
      s.first.pack(phi.first, features, outputs_of(0), widths[1],
                   [&](int k) { return plan.each[k].row; },
                   [&](int k) { return sizes[plan.each[k].index()]; });
      for (int64_t count; begin < end; begin += count) {
        count = std::min<int64_t>(kBlock<T>, end - begin);
        if (long_runs) count = std::min(count, shape.second - begin % shape.second);
        network<vector>(s, factor, long_runs, begin, count);
      }
    });
  }

  // What rows and columns have for a block, and for the first layer.
  Scale<T> expand_all(Scratch<T>& s, int64_t begin, int64_t count) const {
    const Side<T>&across = scratches->sides[0], &along = scratches->sides[1];
    const Scale<T> scale = expand_sides(s.block, begin, count);
    if (!plan.tables()) return scale;
    expand(s.block, shape.inner > 1, across.bias, along.bias, s.first.outputs, s.following.data(),
           [](Value<T> x, Value<T> y) { return x + y; });
    s.bias.assign(s.first.outputs, T(0));
    s.biases.clear();
    for (int h = 0; h < s.first.outputs; ++h) s.biases.push_back(s.following[h].at);
    return scale;
  }

  // The same within a run, where it need not be written out.
  Scale<T> place_sides(Scratch<T>& s, int64_t begin) const {
    const Side<T>&across = scratches->sides[0], &along = scratches->sides[1];
    const int64_t line = shape.middle * shape.second, other = begin / shape.second;
    const int64_t one = begin / (shape.first * line) * line + begin % line;
    Scale<T> scale;
    for (int d = 0; d < kDecays; ++d) {
      scale.x[d] = across.factors[d] + one;
      scale.by[d] = along.factors[d][other];
    }
    s.bias.clear();
    s.biases.clear();
    for (int h = 0; h < s.first.outputs; ++h) {
      s.bias.push_back(along.bias[h][other]);
      s.biases.push_back(across.bias[h] + one);
    }
    return scale;
  }

  // Where a feature of a block lies: memory has some, but their end is copied.
  const T* place(const Block<T>& b, const Feature& f, int64_t begin, bool copied) const {
    if (!copied) {
      if (f.input == kGradient && !clips()) return a.gradient + begin;
      if (f.input == kParameter) return a.theta + begin;
      if (f.input == kSecondMoment) return a.new_second_moment + begin;
      if (f.input == kMomentum) return a.new_momentum + f.channel * shape.size + begin;
    }
    return b.rows[f.input][f.channel].at;
  }

  template <bool vector>
  void network(Scratch<T>& s, T factor, bool in_run, int64_t begin, int64_t count) const {
    const int64_t width = whole_packs<T>(count);
    const bool copied = begin + width > shape.size, clips = this->clips();
    Scale<T> scale;
    if constexpr (!vector) scale = in_run ? place_sides(s, begin) : expand_all(s, begin, count);
    auto put = [&](int64_t i, int input, int d, Value<T> x) INLINED {
      const bool in_memory = (input == kGradient && !clips) || input == kParameter ||
                             input == kSecondMoment || input == kMomentum;
      if (in_memory ? copied : plan.wants[input * kDecays + d])
        store(s.block.rows[input][d].at + i, x);
    };
    visit_all<false, vector>(scale, begin, copied ? count : width, put);
    s.x.clear();
    for (const Feature& f : plan.each) s.x.push_back(place(s.block, f, begin, copied));
    for (int l = 0; l < rule.layers; ++l) {
      const Layer<T>& layer = l ? phi.layers[l] : s.first;
      s.out.clear();
      for (int h = 0; h < layer.outputs; ++h) s.out.push_back(s.hidden[h].at);
      const bool tables = l == 0 && plan.tables();
      const T* bias = l ? phi.biases[l] : tables ? s.bias.data() : phi.first_bias.data();
      const T* const* biases = tables ? s.biases.data() : nullptr;
      if (l + 1 < rule.layers)
        layer.template run<true>(s.x.data(), bias, biases, s.out.data(), width);
      else
        layer.template run<false>(s.x.data(), bias, biases, s.out.data(), width);
      s.x.assign(s.out.begin(), s.out.end());
      std::swap(s.hidden, s.following);
    }
    T* update = s.out[0];
    if (rule.magnitude) {
      T* size = s.hidden[0].at;
      exponentials(s.out[1], T(rule.magnitude), size, width);
      each(update, width, [&](int64_t i) { return factor * load(update + i) * load(size + i); });
    } else {
      each(update, width, [&](int64_t i) { return factor * load(update + i); });
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
      T total = sum_of_squares(a.update + begin, whole - begin);
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

  template <bool vector> void run() const {
    if (!vector) factor();
    sum_squares<vector>();
    invert_sizes();
    run_network<vector>();
    if (rule.normalise_update && !plan.raw) normalise();
  }
};

// What Python passes for φ: pointers to the weights and the biases of each layer, then to decays; and
// how far apart functions are in each, 0 where they share it.
template <class T> struct Phi {
  const T* const* pointers;
  const int64_t* strides;
  const T* numbers;  // t + 1
  int64_t number_stride;

  const T* part(int k, int64_t function) const { return pointers[k] + function * strides[k]; }

  void unpack(const Rule& rule, const int32_t* widths, int64_t function, Weights<T>& into) const {
    const int outputs = widths[1], features = widths[0] - rule.times * kTimes;
    into.first = part(0, function);
    std::memcpy(&into.beta, part(2 * rule.layers, function), sizeof into.beta);
    into.first_bias.assign(part(1, function), part(1, function) + outputs);
    if (rule.times)
      for (int k = 0; k < kTimes; ++k) {
        const T t = numbers[function * number_stride] - 1;
        const T time = std::tanh(t / T(kTimeScales[k]) - 1);
        for (int h = 0; h < outputs; ++h)
          into.first_bias[h] += time * into.first[(features + k) * outputs + h];
      }
    into.biases.resize(rule.layers);
    into.layers.resize(rule.layers);
    for (int l = 1; l < rule.layers; ++l) {
      into.biases[l] = part(2 * l + 1, function);
      const int used = l + 1 < rule.layers ? widths[l + 1] : rule.magnitude ? 2 : 1;
      into.layers[l].pack(part(2 * l, function), widths[l], used, widths[l + 1],
                          [](int k) { return k; }, [](int) { return T(1); });
    }
  }
};

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
          const Phi<T>& phi, const T* gradient, const T* theta, T* const* before, T* const* after,
          T* update, int64_t functions, int64_t n) {
  std::vector<Plan> plans;
  for (int k = 0; k < rule.tensors; ++k) plans.emplace_back(rule, inputs, shapes[k]);
  const int64_t worth = std::max<int64_t>(1, functions * n / kWork);
  const int64_t threads = std::min<int64_t>(rule.threads, worth);
  std::vector<Scratch<T>> scratches(threads);
  std::atomic<bool> failed{false};
  auto run = [&](Scratch<T>* own, int64_t count, int64_t function, int k) {
    try {
      if (own->function != function) phi.unpack(rule, widths, function, own->phi);
      own->function = function;
      const auto arrays = arrays_of(shapes[k], function, n, gradient, theta, before + 4 * k,
                                    after + 4 * k, update);
      const Step<T> step{rule, shapes[k], plans[k], widths, own->phi, arrays, own, count};
      if (shapes[k].vector)
        step.template run<true>();
      else
        step.template run<false>();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  // Threads share out small tensors, and work on large ones together.
  for_chunks(scratches.data(), threads, functions * rule.tensors, [&](Scratch<T>& s, int64_t i) {
    const int k = int(i % rule.tensors);
    if (shapes[k].size < kLarge) run(&s, 1, i / rule.tensors, k);
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
    step<T>(*rule, inputs, widths, shapes, {pointers, strides, numbers, number_stride},          \
            gradient, theta, before, after, update, functions, n);                               \
    return 0;                                                                                    \
  } catch (const std::bad_alloc&) {                                                              \
    return 1;                                                                                    \
  }
EXPORT(float, float)
EXPORT(double, double)
