// The coordinatewise LSTM on the CPU: one step, the weight gradient of an unroll, and one step back.
//
// Coordinates are independent and share the weights. So a block of them, a few vectors wide, goes
// through all steps of an unroll and back at once, and its activations never leave the cache.
// The work is cut into chunks in a way that does not depend on the number of threads, and sums
// are added up in the order of the chunks: results are the same, bit by bit, for any number.
//
// Flat weights φ, and their gradient: for each layer the weight (4H, in + H) and the bias (4H),
// then the output weight (H) and the output bias (1). Gates in the order input, forget, output,
// candidate.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <vector>

#include "chunks.h"
#include "lanes.h"

// What Python passes; the layout is repeated in coordinatewise.py.
struct Network {
  int32_t layers, hidden;
  int32_t log_sign;  // preprocessing: 1 log_sign, 0 none
  int32_t threads;
  double p, output_scale, forget_bias;
};

namespace {

constexpr int kVectors = 2;  // a block is this many vectors wide

// One number for each of a block's coordinates.
template <class T> struct Pack { typename Lanes<T>::Value v[kVectors]; };
template <class T> constexpr int kWidth = sizeof(Pack<T>) / sizeof(T);  // coordinates a block
constexpr int kGroup = 8;  // blocks whose states are moved at once
constexpr int kLine = 64;  // bytes of the cache

// One vector: a sum over coordinates whose lanes are not yet added up.
template <class T> struct Sum { typename Lanes<T>::Value v; };

#define PACK_OPERATOR(op)                                             \
  template <class T> INLINE Pack<T> operator op(Pack<T> a, Pack<T> b) { \
    for (int i = 0; i < kVectors; ++i) a.v[i] = a.v[i] op b.v[i];     \
    return a;                                                         \
  }
PACK_OPERATOR(+)
PACK_OPERATOR(-)
PACK_OPERATOR(*)
#undef PACK_OPERATOR

template <class T> INLINE Pack<T> broadcast(T x) {
  Pack<T> a;
  for (auto& v : a.v) v = x - typename Lanes<T>::Value{};
  return a;
}

// All bits of a lane where a number in it is not zero; NaN is not.
template <class T> INLINE typename Lanes<T>::Bits nonzero(const Pack<T>& x) {
  typename Lanes<T>::Bits found = {};
  for (auto& v : x.v) found |= v != typename Lanes<T>::Value{};
  return found;
}

template <class T> INLINE bool any(typename Lanes<T>::Bits lanes) {
  bool found = false;
  for (size_t i = 0; i < sizeof lanes / sizeof lanes[0]; ++i) found |= lanes[i] != 0;
  return found;
}

// 1 / x, to an ulp or two, for x of at least 1 whose inverse is a normal number.
template <class T> INLINE typename Lanes<T>::Value inverse(typename Lanes<T>::Value x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {  // a division takes as long as ten operations
    const auto guess = (typename Lanes<T>::Value)_mm512_rcp14_ps((__m512)x);
    return guess + guess * (T(1) - x * guess);
  }
#endif
  return T(1) / x;
}

// 1 / (1 + exp2(t)). NaN stays NaN.
template <class T> INLINE Pack<T> logistic2(Pack<T> t) {
  for (auto& v : t.v) v = inverse<T>(exp2<T>(v) + T(1));
  return t;
}

template <class T> INLINE Pack<T> sigmoid(Pack<T> x) {
  return logistic2(broadcast(T(-kLog2e)) * x);
}

template <class T> INLINE Pack<T> tanh(Pack<T> x) {
  const Pack<T> s = logistic2(broadcast(T(-2 * kLog2e)) * x);
  return s + s - broadcast(T(1));
}

// acc[m] += Σ_k weights[k, m] x[k]
template <int M, class T>
INLINE void multiply(Pack<T> (&acc)[M], const T* weights, const Pack<T>* x, int count) {
  for (int k = 0; k < count; ++k, weights += M) {
    const Pack<T> factor = x[k];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) acc[m].v[i] += weights[m] * factor.v[i];
  }
}

// Calls f(begin, constant M) for tiles [begin, begin + M) of [0, count). Five accumulators a
// vector keep the multipliers busy, and divide the paper's 20 units.
constexpr int kTile = 5;
template <class F> INLINE void for_tiles(int count, F f) {
  int begin = 0;
  for (; begin + kTile <= count; begin += kTile) f(begin, std::integral_constant<int, kTile>());
  switch (count - begin) {
    case 1: return f(begin, std::integral_constant<int, 1>());
    case 2: return f(begin, std::integral_constant<int, 2>());
    case 3: return f(begin, std::integral_constant<int, 3>());
    case 4: return f(begin, std::integral_constant<int, 4>());
  }
}

// A matrix (rows, columns), packed so that a product reads it in order.
template <class T> struct Matrix {
  int rows, columns;
  std::vector<T> packed;  // tiles of M rows, each (columns, M)

  // Element (r, c) is at from[r * row_stride + c * column_stride].
  Matrix(const T* from, int rows, int columns, int row_stride, int column_stride)
      : rows(rows), columns(columns) {
    packed.reserve(int64_t(rows) * columns);
    for_tiles(rows, [&](int begin, auto tile) {
      for (int c = 0; c < columns; ++c)
        for (int r = begin; r < begin + tile; ++r)
          packed.push_back(from[r * row_stride + c * column_stride]);
    });
  }

  // y = A x + bias
  void product(const Pack<T>* x, Pack<T>* y, const T* bias) const {
    for_tiles(rows, [&](int begin, auto tile) {
      Pack<T> acc[tile];
      for (int m = 0; m < tile; ++m) acc[m] = broadcast(bias ? bias[begin + m] : T(0));
      multiply<tile>(acc, &packed[begin * columns], x, columns);
      for (int m = 0; m < tile; ++m) y[begin + m] = acc[m];
    });
  }
};

template <class T> struct Layer {
  int inputs, hidden, width;     // width = inputs + hidden
  int64_t offset, bias_offset;   // of weight and bias in the flat weights
  Matrix<T> gates;               // (4H, in + H)
  Matrix<T> to_input, to_hidden;  // the parts of its transpose
  std::vector<T> bias;

  // Without `backward`, there are no transposes.
  Layer(const T* flat, int64_t offset, int inputs, int hidden, T forget_bias, bool backward)
      : inputs(inputs), hidden(hidden), width(inputs + hidden), offset(offset),
        bias_offset(offset + int64_t(4) * hidden * width),
        gates(flat + offset, 4 * hidden, width, width, 1),
        to_input(flat + offset, backward ? inputs : 0, 4 * hidden, 1, width),
        to_hidden(flat + offset + inputs, backward ? hidden : 0, 4 * hidden, 1, width),
        bias(flat + bias_offset, flat + bias_offset + 4 * hidden) {
    for (int j = hidden; j < 2 * hidden; ++j) bias[j] += forget_bias;
  }
};

template <class T> struct Weights {
  Network net;
  int features;
  std::vector<Layer<T>> layers;
  const T* output;  // (H + 1): weights and bias
  int64_t size;

  Weights(const Network& net, const T* flat, bool backward)
      : net(net), features(net.log_sign ? 2 : 1) {
    int64_t offset = 0;
    for (int l = 0; l < net.layers; ++l) {
      layers.emplace_back(flat, offset, l ? net.hidden : features, net.hidden, T(net.forget_bias),
                          backward);
      offset = layers.back().bias_offset + 4 * net.hidden;
    }
    output = flat + offset;
    size = offset + net.hidden + 1;
  }
};

// A block's activations in a layer. The deltas of the backward pass overwrite the gates.
template <class T> struct Trace {
  std::vector<Pack<T>> inputs;    // (U + 1, in + H), a step's input and the hidden state before it
  std::vector<Pack<T>> cell;      // (U + 1, H), before each step
  std::vector<Pack<T>> gates;     // (U, 4H)
  std::vector<Pack<T>> squashed;  // (U, H), tanh of the new cell
  std::vector<Pack<T>> d_hidden, d_cell, d_recurrent;  // (H), of the step that is worked on

  Trace(const Layer<T>& layer, int steps)
      : inputs((steps + 1) * layer.width), cell((steps + 1) * layer.hidden),
        gates(steps * 4 * layer.hidden), squashed(steps * layer.hidden),
        d_hidden(layer.hidden), d_cell(layer.hidden), d_recurrent(layer.hidden) {}
};

// The states of all layers, each (H, N), rows `stride` numbers apart.
template <class T> struct States {
  T *const *hidden, *const *cell;
  int64_t stride;

  T* hidden_row(int l, int j) const { return hidden[l] + j * stride; }
  T* cell_row(int l, int j) const { return cell[l] + j * stride; }
};

// The states of a group of blocks, a row for each unit: the rows of a single block are one line of
// the cache each, and too many for the hardware to foresee.
template <class T> struct Group {
  struct Row { Pack<T> hidden[kGroup], cell[kGroup]; };
  std::vector<Row> rows;  // (L H)

  explicit Group(const Network& net) : rows(net.layers * net.hidden) {}

  // Coordinates beyond `count` are zero, so that they add nothing to sums.
  void load(const Network& net, States<const T> from, int64_t begin, int count) {
    for (int l = 0; l < net.layers; ++l)
      for (int j = 0; j < net.hidden; ++j) {
        Row& row = rows[l * net.hidden + j];
        if (count < kGroup * kWidth<T>) row = {};
        std::memcpy(row.hidden, from.hidden_row(l, j) + begin, count * sizeof(T));
        std::memcpy(row.cell, from.cell_row(l, j) + begin, count * sizeof(T));
      }
  }

  void store(const Network& net, States<T> to, int64_t begin, int count) const {
    for (int l = 0; l < net.layers; ++l)
      for (int j = 0; j < net.hidden; ++j) {
        const Row& row = rows[l * net.hidden + j];
        std::memcpy(to.hidden_row(l, j) + begin, row.hidden, count * sizeof(T));
        std::memcpy(to.cell_row(l, j) + begin, row.cell, count * sizeof(T));
      }
  }

  // Asks for a group's states, those of one in kGroup units: once for each block of the group
  // before, whose arithmetic hides what memory takes.
  static void prefetch(const Network& net, States<const T> from, int64_t n, int64_t begin,
                       int part) {
    const int64_t end = std::min<int64_t>(begin + kGroup * kWidth<T>, n);
    for (int l = 0; l < net.layers; ++l)
      for (int j = part; j < net.hidden; j += kGroup)
        for (int64_t i = begin; i < end; i += kLine / sizeof(T)) {
          __builtin_prefetch(from.hidden_row(l, j) + i);
          __builtin_prefetch(from.cell_row(l, j) + i);
        }
  }

  // Calls f(layer, unit, hidden, cell) with the packs of one block.
  template <class F> void for_units(const Network& net, int block, F f) {
    for (int l = 0; l < net.layers; ++l)
      for (int j = 0; j < net.hidden; ++j) {
        Row& row = rows[l * net.hidden + j];
        f(l, j, row.hidden[block], row.cell[block]);
      }
  }
};

// What one thread works in.
template <class T> struct Scratch {
  std::vector<Pack<T>> gradients, cotangents;  // (U); the cotangents times the output scale
  std::vector<Trace<T>> layers;
  std::vector<Sum<T>> total;  // a chunk's weight gradient, flat
  Group<T> states, d_states;

  Scratch(const Weights<T>& w, int steps, bool backward)
      : gradients(steps), cotangents(steps), total(backward ? w.size : 0),
        states(w.net), d_states(w.net) {
    for (const Layer<T>& layer : w.layers) layers.emplace_back(layer, steps);
  }
};

// The hidden state before step t.
template <class T> Pack<T>* hidden(const Weights<T>& w, Scratch<T>& s, int l, int t) {
  return &s.layers[l].inputs[t * w.layers[l].width + w.layers[l].inputs];
}

// -- forward ------------------------------------------------------------------------------------

// As preprocessing.log_sign; clamps are written such that NaN passes.
template <class T> void log_sign(T gradient, T p, T scale, T& magnitude, T& direction) {
  const T size = std::fabs(gradient), tiny = std::numeric_limits<T>::min();
  magnitude = std::log(size < tiny ? tiny : size) / p;
  if (magnitude < -1) magnitude = -1;
  direction = gradient * scale;
  if (direction < -1) direction = -1;
  if (direction > 1) direction = 1;
}

template <class T>
void preprocess(const Weights<T>& w, const Pack<T>& gradient, Pack<T>* features) {
  if (!w.net.log_sign) {
    *features = gradient;
    return;
  }
  const T p = T(w.net.p), scale = T(std::exp(w.net.p));
  for (int i = 0; i < kVectors; ++i)
    for (int lane = 0; lane < kWidth<T> / kVectors; ++lane) {
      T magnitude, direction;
      log_sign<T>(gradient.v[i][lane], p, scale, magnitude, direction);
      features[0].v[i][lane] = magnitude;
      features[1].v[i][lane] = direction;
    }
}

// Gates (4H), from the inputs of their activation functions; c, squashed and h (H).
template <class T>
void forward_cell(int H, Pack<T>* gates, const Pack<T>* c, Pack<T>* new_c, Pack<T>* squashed,
                  Pack<T>* h) {
  for (int j = 0; j < H; ++j) {
    const Pack<T> i = gates[j] = sigmoid(gates[j]);
    const Pack<T> f = gates[H + j] = sigmoid(gates[H + j]);
    const Pack<T> o = gates[2 * H + j] = sigmoid(gates[2 * H + j]);
    const Pack<T> candidate = gates[3 * H + j] = tanh(gates[3 * H + j]);
    new_c[j] = f * c[j] + i * candidate;
    squashed[j] = tanh(new_c[j]);
    h[j] = o * squashed[j];
  }
}

template <class T> void forward(const Weights<T>& w, Scratch<T>& s, int t) {
  const int H = w.net.hidden;
  preprocess(w, s.gradients[t], &s.layers[0].inputs[t * w.layers[0].width]);
  for (int l = 0; l < w.net.layers; ++l) {
    const Layer<T>& layer = w.layers[l];
    Trace<T>& trace = s.layers[l];
    Pack<T>*gates = &trace.gates[t * 4 * H], *c = &trace.cell[t * H], *h = hidden(w, s, l, t + 1);
    layer.gates.product(&trace.inputs[t * layer.width], gates, layer.bias.data());
    forward_cell(H, gates, c, c + H, &trace.squashed[t * H], h);
    if (l + 1 < w.net.layers)
      std::copy(h, h + H, &s.layers[l + 1].inputs[t * w.layers[l + 1].width]);
  }
}

// -- backward -----------------------------------------------------------------------------------

// From d_hidden, without the recurrent part, to the deltas: gradients of the gates' inputs.
template <class T>
void backward_layer(const Layer<T>& layer, Trace<T>& trace, Sum<T>* d_bias, int t) {
  const int H = layer.hidden;
  const Pack<T>*c = &trace.cell[t * H], *squashed = &trace.squashed[t * H];
  Pack<T>* gates = &trace.gates[t * 4 * H];
  const Pack<T> one = broadcast(T(1));
  for (int j = 0; j < H; ++j) {
    const Pack<T> i = gates[j], f = gates[H + j], o = gates[2 * H + j];
    const Pack<T> candidate = gates[3 * H + j];
    const Pack<T> d_h = trace.d_hidden[j] + trace.d_recurrent[j];
    const Pack<T> d_c = trace.d_cell[j] + d_h * o * (one - squashed[j] * squashed[j]);
    trace.d_cell[j] = d_c * f;
    const Pack<T> deltas[] = {
        d_c * candidate * (i * (one - i)),
        d_c * c[j] * (f * (one - f)),
        d_h * squashed[j] * (o * (one - o)),
        d_c * i * (one - candidate * candidate),
    };
    for (int g = 0; g < 4; ++g) {
      gates[g * H + j] = deltas[g];
      for (auto& v : deltas[g].v) d_bias[g * H + j].v += v;
    }
  }
}

template <class T> void backward_output(const Weights<T>& w, Scratch<T>& s, int t) {
  const int H = w.net.hidden;
  Trace<T>& top = s.layers.back();
  const Pack<T> cotangent = s.cotangents[t], *h = hidden(w, s, w.net.layers - 1, t + 1);
  Sum<T>* total = &s.total[w.size - H - 1];
  for (int j = 0; j < H; ++j) {
    top.d_hidden[j] = cotangent * broadcast(w.output[j]);
    for (int i = 0; i < kVectors; ++i) total[j].v += cotangent.v[i] * h[j].v[i];
  }
  for (auto& v : cotangent.v) total[H].v += v;
}

// Where d_features (F) is given, the cotangents of the features and of the states before the step
// are wanted too, else only those of the weights.
template <class T>
void backward(const Weights<T>& w, Scratch<T>& s, int t, Pack<T>* d_features = nullptr) {
  backward_output(w, s, t);
  for (int l = w.net.layers - 1; l >= 0; --l) {
    const Layer<T>& layer = w.layers[l];
    Trace<T>& trace = s.layers[l];
    backward_layer(layer, trace, &s.total[layer.bias_offset], t);
    const Pack<T>* deltas = &trace.gates[t * 4 * w.net.hidden];
    if (t > 0 || d_features)
      layer.to_hidden.product(deltas, trace.d_recurrent.data(), nullptr);
    Pack<T>* d_input = l > 0 ? s.layers[l - 1].d_hidden.data() : d_features;
    if (d_input) layer.to_input.product(deltas, d_input, nullptr);
  }
}

// total[r, m] += Σ_t delta[t, r] x[t, m] for a tile of R rows and M columns, in registers
template <int R, int M, class T>
INLINE void outer_tile(const Pack<T>* delta, int rows, const Pack<T>* x, int width, int steps,
                       Sum<T>* total) {
  typename Lanes<T>::Value acc[R][M] = {};
  for (int t = 0; t < steps; ++t, delta += rows, x += width)
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      typename Lanes<T>::Value factor[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) factor[m] = x[m].v[i];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) acc[r][m] += delta[r].v[i] * factor[m];
    }
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) total[r * width + m].v += acc[r][m];
}

// The same for all rows, a multiple of 4, and columns; x and total have rows of a given width.
template <class T>
void outer(const Pack<T>* delta, int rows, const Pack<T>* x, int columns, int width, int steps,
           Sum<T>* total) {
  for (int r = 0; r < rows; r += 4)
    for_tiles(columns, [&](int begin, auto tile) {
      constexpr int R = tile > 3 ? 2 : 4;  // as many accumulators as there are registers for
      for (int part = r; part < r + 4; part += R)
        outer_tile<R, tile>(delta + part, rows, x + begin, width, steps,
                            total + part * width + begin);
    });
}

// Input and hidden state apart, so that either of them stays in the innermost cache.
template <class T> void weight_gradient(const Weights<T>& w, Scratch<T>& s, int steps) {
  for (int l = 0; l < w.net.layers; ++l) {
    const Layer<T>& layer = w.layers[l];
    const Pack<T>*deltas = s.layers[l].gates.data(), *x = s.layers[l].inputs.data();
    Sum<T>* total = &s.total[layer.offset];
    const int rows = 4 * layer.hidden, in = layer.inputs;
    outer(deltas, rows, x, in, layer.width, steps, total);
    outer(deltas, rows, x + in, layer.hidden, layer.width, steps, total + in);
  }
}

// -- blocks, chunks and threads -----------------------------------------------------------------

// memcpy is a call to a library where the size is not a constant, as it is in a whole block.
template <class T> INLINE Pack<T> load(const T* row, int count) {
  Pack<T> pack = {};
  if (count == kWidth<T>)
    std::memcpy(&pack, row, sizeof pack);
  else
    std::memcpy(&pack, row, count * sizeof(T));
  return pack;
}

template <class T> Pack<T> gather(const T* row, const int64_t* indices, int count) {
  T lanes[kWidth<T>] = {};
  for (int i = 0; i < count; ++i) lanes[i] = row[indices[i]];
  return load(lanes, kWidth<T>);
}

template <class T> INLINE void store(T* row, const Pack<T>& pack, int count) {
  if (count == kWidth<T>)
    std::memcpy(row, &pack, sizeof pack);
  else
    std::memcpy(row, &pack, count * sizeof(T));
}

// One for each thread that has chunks to work on.
template <class T>
std::vector<Scratch<T>> make_scratches(const Weights<T>& w, int64_t chunks, int steps,
                                       bool backward) {
  const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(w.net.threads, chunks));
  std::vector<Scratch<T>> scratches;
  scratches.reserve(threads);
  for (int64_t i = 0; i < threads; ++i) scratches.emplace_back(w, steps, backward);
  return scratches;
}

constexpr int64_t kStepChunk = 256;     // coordinates
constexpr int64_t kReplayChunk = 256;   // coordinates, at least
constexpr int64_t kReplayChunks = 32;   // at most: each has a sum of its own

template <class T> Pack<T> output(const Weights<T>& w, Scratch<T>& s) {
  const Pack<T>* h = hidden(w, s, w.net.layers - 1, 1);
  Pack<T> out = broadcast(w.output[w.net.hidden]);
  for (int j = 0; j < w.net.hidden; ++j) out = out + broadcast(w.output[j]) * h[j];
  return broadcast(T(w.net.output_scale)) * out;
}

template <class T>
void step(const Network& net, const T* flat, const T* gradient, States<const T> from, States<T> to,
          T* update, int64_t n) {
  const Weights<T> w(net, flat, false);
  const int64_t chunks = ceil_div(n, kStepChunk);
  auto scratches = make_scratches(w, chunks, 1, false);
  for_chunks(scratches.data(), scratches.size(), chunks, [&](Scratch<T>& s, int64_t chunk) {
    const int64_t end = std::min(n, (chunk + 1) * kStepChunk);
    for (int64_t start = chunk * kStepChunk; start < end; start += kGroup * kWidth<T>) {
      const int total = int(std::min<int64_t>(kGroup * kWidth<T>, end - start));
      s.states.load(net, from, start, total);
      int block = 0;
      for (int64_t begin = start; begin < start + total; begin += kWidth<T>, ++block) {
        const int count = int(std::min<int64_t>(kWidth<T>, start + total - begin));
        s.states.prefetch(net, from, n, start + total, block);
        s.states.for_units(net, block, [&](int l, int j, Pack<T>& h, Pack<T>& c) {
          hidden(w, s, l, 0)[j] = h;
          s.layers[l].cell[j] = c;
        });
        s.gradients[0] = load(gradient + begin, count);
        forward(w, s, 0);
        store(update + begin, output(w, s), count);
        s.states.for_units(net, block, [&](int l, int j, Pack<T>& h, Pack<T>& c) {
          h = hidden(w, s, l, 1)[j];
          c = s.layers[l].cell[net.hidden + j];
        });
      }
      s.states.store(net, to, start, total);
    }
  });
}

// Coordinates that can contribute: with a cotangent, or a gradient that makes zero times it NaN.
template <class T>
std::vector<int64_t> contributing(const T* gradients, const T* cotangents, int64_t n, int steps) {
  std::vector<char> keep(n);
  for (int t = 0; t < steps; ++t, gradients += n, cotangents += n)
    for (int64_t i = 0; i < n; ++i)
      keep[i] |= (cotangents[i] != 0) | (gradients[i] - gradients[i] != 0);
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < n; ++i)
    if (keep[i]) indices.push_back(i);
  return indices;
}

template <class T>
void gather_block(const Weights<T>& w, Scratch<T>& s, const T* gradients, const T* cotangents,
                  States<const T> from, int64_t n, int steps, const int64_t* indices, int count) {
  for (int t = 0; t < steps; ++t) {
    s.gradients[t] = gather(gradients + t * n, indices, count);
    s.cotangents[t] =
        broadcast(T(w.net.output_scale)) * gather(cotangents + t * n, indices, count);
  }
  for (int l = 0; l < w.net.layers; ++l)
    for (int j = 0; j < w.net.hidden; ++j) {
      hidden(w, s, l, 0)[j] = gather(from.hidden_row(l, j), indices, count);
      s.layers[l].cell[j] = gather(from.cell_row(l, j), indices, count);
    }
}

template <class T> void replay_block(const Weights<T>& w, Scratch<T>& s, int steps) {
  for (int t = 0; t < steps; ++t) forward(w, s, t);
  for (auto& layer : s.layers) {
    std::fill(layer.d_cell.begin(), layer.d_cell.end(), Pack<T>{});
    std::fill(layer.d_recurrent.begin(), layer.d_recurrent.end(), Pack<T>{});
  }
  for (int t = steps - 1; t >= 0; --t) backward(w, s, t);
  weight_gradient(w, s, steps);
}

// Calls block(scratch, begin, count) for all pieces of n coordinates, at most `width` wide, and adds
// to d_flat what they leave in the scratches' totals.
template <class T, class Block>
void for_backward_blocks(const Weights<T>& w, int steps, int64_t n, int64_t width, T* d_flat,
                         Block block) {
  const int64_t size = std::max(kReplayChunk, ceil_div(ceil_div(n, kReplayChunks), width) * width);
  const int64_t chunks = ceil_div(n, size);
  std::vector<T> sums(chunks * w.size);
  auto scratches = make_scratches(w, chunks, steps, true);
  for_chunks(scratches.data(), scratches.size(), chunks, [&](Scratch<T>& s, int64_t chunk) {
    const int64_t end = std::min(n, (chunk + 1) * size);
    std::fill(s.total.begin(), s.total.end(), Sum<T>{});
    for (int64_t begin = chunk * size; begin < end; begin += width)
      block(s, begin, int(std::min(width, end - begin)));
    for (int64_t i = 0; i < w.size; ++i)
      for (int lane = 0; lane < kWidth<T> / kVectors; ++lane)
        sums[chunk * w.size + i] += s.total[i].v[lane];
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < w.size; ++i) d_flat[i] += sums[chunk * w.size + i];
}

template <class T>
void replay(const Network& net, const T* flat, const T* gradients, const T* cotangents,
            States<const T> from, T* d_flat, int64_t n, int steps) {
  const Weights<T> w(net, flat, true);
  const auto indices = contributing(gradients, cotangents, n, steps);
  for_backward_blocks(w, steps, indices.size(), kWidth<T>, d_flat,
                      [&](Scratch<T>& s, int64_t begin, int count) {
    gather_block(w, s, gradients, cotangents, from, n, steps, &indices[begin], count);
    replay_block(w, s, steps);
  });
}

// One step back: from the cotangents of update and next states to those of weights, features
// (F, N) and states. d_states, on entry the former, are overwritten with the latter.
template <class T>
void step_back(const Network& net, const T* flat, const T* gradient, const T* cotangent,
               States<const T> from, States<T> d_states, T* d_flat, T* d_features, int64_t n) {
  const Weights<T> w(net, flat, true);
  const States<const T> d_after{d_states.hidden, d_states.cell, d_states.stride};
  for_backward_blocks(w, kGroup, n, kGroup * kWidth<T>, d_flat,
                      [&](Scratch<T>& s, int64_t start, int total) {
    s.states.load(net, from, start, total);
    s.d_states.load(net, d_after, start, total);
    int block = 0, slot = 0;  // where other passes have the steps, this one has the live blocks
    for (int64_t begin = start; begin < start + total; begin += kWidth<T>, ++block) {
      const int count = int(std::min<int64_t>(kWidth<T>, start + total - begin));
      s.states.prefetch(net, from, n, start + total, block);
      s.d_states.prefetch(net, d_after, n, start + total, block);
      Pack<T> features[2] = {};
      s.gradients[slot] = load(gradient + begin, count);
      s.cotangents[slot] = broadcast(T(net.output_scale)) * load(cotangent + begin, count);
      const Pack<T> none = s.gradients[slot] - s.gradients[slot];  // NaN where it is not finite
      auto live = nonzero(s.cotangents[slot]) | nonzero(none);
      s.d_states.for_units(net, block, [&](int, int, Pack<T>& h, Pack<T>& c) {
        live |= nonzero(h) | nonzero(c);
      });
      if (any<T>(live)) {  // else its cotangents stay zero
        s.states.for_units(net, block, [&](int l, int j, Pack<T>& h, Pack<T>& c) {
          hidden(w, s, l, slot)[j] = h;
          s.layers[l].cell[slot * net.hidden + j] = c;
        });
        s.d_states.for_units(net, block, [&](int l, int j, Pack<T>& h, Pack<T>& c) {
          s.layers[l].d_recurrent[j] = h;
          s.layers[l].d_cell[j] = c;
        });
        forward(w, s, slot);
        backward(w, s, slot, features);
        s.d_states.for_units(net, block, [&](int l, int j, Pack<T>& h, Pack<T>& c) {
          h = s.layers[l].d_recurrent[j];
          c = s.layers[l].d_cell[j];
        });
        ++slot;
      }
      for (int f = 0; f < w.features; ++f) store(d_features + f * n + begin, features[f], count);
    }
    s.d_states.store(net, d_states, start, total);
    weight_gradient(w, s, slot);
  });
}

}  // namespace

// 0, or 1 when there is not enough memory. All arrays are contiguous; h and c point to an array
// (H, N) for each layer, and so do new_h and new_c, which may be h and c. The rows of states may be
// further apart, `stride` numbers, in a step.
#define EXPORT(T, suffix)                                                                       \
  extern "C" int step_##suffix(const Network* net, const T* weights, const T* gradient,         \
                               const T* const* h, const T* const* c, T* const* new_h,           \
                               T* const* new_c, T* update, int64_t n, int64_t stride) try {     \
    step<T>(*net, weights, gradient, {h, c, stride}, {new_h, new_c, stride}, update, n);        \
    return 0;                                                                                   \
  } catch (const std::bad_alloc&) {                                                             \
    return 1;                                                                                   \
  }                                                                                             \
  extern "C" int replay_##suffix(const Network* net, const T* weights, const T* gradients,      \
                                 const T* cotangents, const T* const* h, const T* const* c,     \
                                 T* d_weights, int64_t n, int steps) try {                      \
    replay<T>(*net, weights, gradients, cotangents, {h, c, n}, d_weights, n, steps);            \
    return 0;                                                                                   \
  } catch (const std::bad_alloc&) {                                                             \
    return 1;                                                                                   \
  }                                                                                             \
  extern "C" int step_back_##suffix(const Network* net, const T* weights, const T* gradient,    \
                                    const T* cotangent, const T* const* h, const T* const* c,   \
                                    T* const* d_h, T* const* d_c, T* d_weights, T* d_features,  \
                                    int64_t n) try {                                            \
    step_back<T>(*net, weights, gradient, cotangent, {h, c, n}, {d_h, d_c, n}, d_weights,       \
                 d_features, n);                                                                \
    return 0;                                                                                   \
  } catch (const std::bad_alloc&) {                                                             \
    return 1;                                                                                   \
  }
EXPORT(float, float)
EXPORT(double, double)
