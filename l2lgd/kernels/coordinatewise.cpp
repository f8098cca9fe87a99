// The coordinatewise LSTM on the CPU: one step, and the weight gradient of an unroll.
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
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#define INLINE inline __attribute__((always_inline))

// What Python passes; the layout is repeated in coordinatewise.py.
struct Network {
  int32_t layers, hidden;
  int32_t log_sign;  // preprocessing: 1 log_sign, 0 none
  int32_t threads;
  double p, output_scale, forget_bias;
};

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;  // NEON, SSE
#endif
#ifndef KV
#define KV 2
#endif
constexpr int kVectors = KV;  // a block is this many vectors wide

// exp2(f) ≈ Σ_k kExp2[k] f^k for |f| <= 1/2, minimax in the relative error; kBias and kShift put
// an integer n into the exponent of a number.
template <class T> struct Lanes;
template <> struct Lanes<float> {
  typedef float Value __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Bits __attribute__((vector_size(kVectorBytes)));
  static constexpr float kExp2[] = {1.f,           0.6931469776f,  0.2402224209f,
                                    0.05550733743f, 0.009671512645f, 0.001326472712f};  // 9e-8
  static constexpr float kBias = 0x1.8p23f + 127;
  static constexpr int kShift = 23, kLargest = 126;
};
template <> struct Lanes<double> {
  typedef double Value __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Bits __attribute__((vector_size(kVectorBytes)));
  static constexpr double kExp2[] = {
      1.0,                     0.69314718055994533,     0.240226506959101562,
      0.0555041086648199216,   0.00961812910758833524,  0.00133335581467899217,
      0.000154035304625144321, 0.0000152527334899885256, 1.32154330896763992e-6,
      1.01781980216719308e-7,  7.0741056135081428e-9,   4.43528270695727715e-10};  // 3e-18
  static constexpr double kBias = 0x1.8p52 + 1023;
  static constexpr int kShift = 52, kLargest = 1022;
};

// One number for each of a block's coordinates.
template <class T> struct Pack { typename Lanes<T>::Value v[kVectors]; };
template <class T> constexpr int kWidth = sizeof(Pack<T>) / sizeof(T);  // coordinates a block

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

// 1 / (1 + exp2(t)). NaN stays NaN: a comparison with it is false, and the polynomial keeps it.
template <class T> INLINE Pack<T> logistic2(Pack<T> t) {
  using L = Lanes<T>;
  constexpr int degree = sizeof(L::kExp2) / sizeof(T) - 1;
  constexpr T largest = L::kLargest;
  for (auto& v : t.v) {
    typename L::Value x = v < -largest ? -largest - typename L::Value{} : v;
    x = x > largest ? largest - typename L::Value{} : x;
    const typename L::Value rounded = x + L::kBias;  // its lowest bits hold the integer part
    const typename L::Value f = x - (rounded - L::kBias);
    const auto power = (typename L::Value)((typename L::Bits)rounded << L::kShift);
    typename L::Value y = L::kExp2[degree] - typename L::Value{};
#pragma GCC unroll 16
    for (int k = degree - 1; k >= 0; --k) y = y * f + L::kExp2[k];
    v = T(1) / (y * power + T(1));
  }
  return t;
}

constexpr double kLog2e = 1.44269504088896340736;

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
  for (int k = 0; k < count; ++k, weights += M)
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) acc[m].v[i] += weights[m] * x[k].v[i];
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

// A matrix (rows, columns), packed so that the product with its transpose reads it in order.
template <class T> struct Transposed {
  int rows, columns;
  std::vector<T> packed;  // tiles of columns, each (rows, M)

  Transposed(const T* matrix, int rows, int columns, int stride) : rows(rows), columns(columns) {
    for_tiles(columns, [&](int begin, auto tile) {
      for (int r = 0; r < rows; ++r)
        for (int m = 0; m < tile; ++m) packed.push_back(matrix[r * stride + begin + m]);
    });
  }

  // y = Aᵀ x, from (rows) to (columns)
  void product(const Pack<T>* x, Pack<T>* y) const {
    for_tiles(columns, [&](int begin, auto tile) {
      Pack<T> acc[tile] = {};
      multiply<tile>(acc, packed.data() + begin * rows, x, rows);
      for (int m = 0; m < tile; ++m) y[begin + m] = acc[m];
    });
  }
};

template <class T> struct Layer {
  int inputs, hidden;
  int64_t offset;               // of its weight among the flat weights
  std::vector<T> gates;         // (H, 1 + in + H, 4): a unit's biases, then its weights
  Transposed<T> from_input, from_hidden;

  Layer(const T* flat, int64_t offset, int inputs, int hidden, T forget_bias)
      : inputs(inputs), hidden(hidden), offset(offset),
        from_input(flat + offset, 4 * hidden, inputs, width()),
        from_hidden(flat + offset + inputs, 4 * hidden, hidden, width()) {
    const T *weight = flat + offset, *bias = flat + bias_offset();
    for (int j = 0; j < hidden; ++j) {
      for (int g = 0; g < 4; ++g) gates.push_back(bias[g * hidden + j] + (g == 1 ? forget_bias : 0));
      for (int k = 0; k < width(); ++k)
        for (int g = 0; g < 4; ++g) gates.push_back(weight[(g * hidden + j) * width() + k]);
    }
  }
  int width() const { return inputs + hidden; }
  int64_t bias_offset() const { return offset + int64_t(4) * hidden * width(); }
  int64_t end() const { return bias_offset() + 4 * hidden; }
};

template <class T> struct Weights {
  Network net;
  int features;
  std::vector<Layer<T>> layers;
  const T* output;  // (H + 1): weights and bias
  int64_t size;

  Weights(const Network& net, const T* flat) : net(net), features(net.log_sign ? 2 : 1) {
    int64_t offset = 0;
    for (int l = 0; l < net.layers; ++l) {
      layers.emplace_back(flat, offset, l ? net.hidden : features, net.hidden, T(net.forget_bias));
      offset = layers.back().end();
    }
    output = flat + offset;
    size = offset + net.hidden + 1;
  }
};

// A block's activations in a layer. The deltas of the backward pass overwrite the gates.
template <class T> struct Trace {
  std::vector<Pack<T>> hidden, cell;  // (U + 1, H), the first is the state before the unroll
  std::vector<Pack<T>> gates;         // (U, 4H)
  std::vector<Pack<T>> squashed;      // (U, H), tanh of the new cell
  std::vector<Pack<T>> d_hidden, d_cell, d_recurrent;  // (H), of the step that is worked on

  Trace(int steps, int hidden_size)
      : hidden((steps + 1) * hidden_size), cell((steps + 1) * hidden_size),
        gates(steps * 4 * hidden_size), squashed(steps * hidden_size),
        d_hidden(hidden_size), d_cell(hidden_size), d_recurrent(hidden_size) {}
};

// What one thread works in.
template <class T> struct Scratch {
  std::vector<Pack<T>> gradients, cotangents;  // (U); the cotangents times the output scale
  std::vector<Pack<T>> features;               // (U, F)
  std::vector<Trace<T>> layers;
  std::vector<Sum<T>> total;  // a chunk's weight gradient, flat

  Scratch(const Weights<T>& w, int steps, bool backward)
      : gradients(steps), cotangents(steps), features(steps * w.features),
        layers(w.net.layers, Trace<T>(steps, w.net.hidden)), total(backward ? w.size : 0) {}
};

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

template <class T> void preprocess(const Weights<T>& w, Scratch<T>& s, int t) {
  Pack<T>* out = &s.features[t * w.features];
  if (!w.net.log_sign) {
    *out = s.gradients[t];
    return;
  }
  const T p = T(w.net.p), scale = T(std::exp(w.net.p));
  for (int i = 0; i < kVectors; ++i)
    for (int lane = 0; lane < kWidth<T> / kVectors; ++lane) {
      T magnitude, direction;
      log_sign<T>(s.gradients[t].v[i][lane], p, scale, magnitude, direction);
      out[0].v[i][lane] = magnitude;
      out[1].v[i][lane] = direction;
    }
}

template <class T>
void forward_layer(const Layer<T>& layer, const Pack<T>* input, Trace<T>& trace, int t) {
  const int H = layer.hidden;
  const Pack<T>*h = &trace.hidden[t * H], *c = &trace.cell[t * H];
  Pack<T>*new_h = &trace.hidden[(t + 1) * H], *new_c = &trace.cell[(t + 1) * H];
  Pack<T>*gates = &trace.gates[t * 4 * H], *squashed = &trace.squashed[t * H];
  const T* weights = layer.gates.data();
  for (int j = 0; j < H; ++j, weights += 4 * (1 + layer.width())) {
    Pack<T> acc[4];
    for (int g = 0; g < 4; ++g) acc[g] = broadcast(weights[g]);
    multiply<4>(acc, weights + 4, input, layer.inputs);
    multiply<4>(acc, weights + 4 * (1 + layer.inputs), h, H);
    const Pack<T> i = gates[j] = sigmoid(acc[0]);
    const Pack<T> f = gates[H + j] = sigmoid(acc[1]);
    const Pack<T> o = gates[2 * H + j] = sigmoid(acc[2]);
    const Pack<T> candidate = gates[3 * H + j] = tanh(acc[3]);
    new_c[j] = f * c[j] + i * candidate;
    squashed[j] = tanh(new_c[j]);
    new_h[j] = o * squashed[j];
  }
}

// The input of layer l at step t.
template <class T> const Pack<T>* input(const Weights<T>& w, const Scratch<T>& s, int l, int t) {
  return l ? &s.layers[l - 1].hidden[(t + 1) * w.net.hidden] : &s.features[t * w.features];
}

template <class T> void forward(const Weights<T>& w, Scratch<T>& s, int t) {
  preprocess(w, s, t);
  for (int l = 0; l < w.net.layers; ++l)
    forward_layer(w.layers[l], input(w, s, l, t), s.layers[l], t);
}

// -- backward -----------------------------------------------------------------------------------

// From d_hidden, without the recurrent part, to the deltas: gradients of the gates' inputs.
template <class T> void backward_layer(const Layer<T>& layer, Trace<T>& trace, Sum<T>* d_bias, int t) {
  const int H = layer.hidden;
  const Pack<T>*c = &trace.cell[t * H], *squashed = &trace.squashed[t * H];
  Pack<T>* gates = &trace.gates[t * 4 * H];
  const Pack<T> one = broadcast(T(1));
  for (int j = 0; j < H; ++j) {
    const Pack<T> i = gates[j], f = gates[H + j], o = gates[2 * H + j], candidate = gates[3 * H + j];
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
  const Pack<T> cotangent = s.cotangents[t], *h = &top.hidden[(t + 1) * H];
  Sum<T>* total = &s.total[w.size - H - 1];
  for (int j = 0; j < H; ++j) {
    top.d_hidden[j] = cotangent * broadcast(w.output[j]);
    for (int i = 0; i < kVectors; ++i) total[j].v += cotangent.v[i] * h[j].v[i];
  }
  for (auto& v : cotangent.v) total[H].v += v;
}

template <class T> void backward(const Weights<T>& w, Scratch<T>& s, int t) {
  backward_output(w, s, t);
  for (int l = w.net.layers - 1; l >= 0; --l) {
    const Layer<T>& layer = w.layers[l];
    Trace<T>& trace = s.layers[l];
    backward_layer(layer, trace, &s.total[layer.bias_offset()], t);
    const Pack<T>* deltas = &trace.gates[t * 4 * w.net.hidden];
    if (t > 0) layer.from_hidden.product(deltas, trace.d_recurrent.data());
    if (l > 0) layer.from_input.product(deltas, s.layers[l - 1].d_hidden.data());
  }
}

// total[r, m] += Σ_t delta[t, r] x[t, m] for a tile of R rows and M columns, in registers
template <int R, int M, class T>
INLINE void outer_tile(const Pack<T>* delta, int rows, const Pack<T>* x, int columns, int steps,
                       Sum<T>* total, int stride) {
  typename Lanes<T>::Value acc[R][M] = {};
  for (int t = 0; t < steps; ++t, delta += rows, x += columns)
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) acc[r][m] += delta[r].v[i] * x[m].v[i];
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) total[r * stride + m].v += acc[r][m];
}

// The same for a whole matrix (rows, columns); rows is a multiple of 4.
template <class T>
void outer(const Pack<T>* delta, int rows, const Pack<T>* x, int columns, int steps,
           Sum<T>* total, int stride) {
  for (int r = 0; r < rows; r += 4)
    for_tiles(columns, [&](int begin, auto tile) {
      constexpr int R = tile > 3 ? 2 : 4;  // as many accumulators as there are registers for
      for (int part = r; part < r + 4; part += R)
        outer_tile<R, tile>(delta + part, rows, x + begin, columns, steps,
                            total + part * stride + begin, stride);
    });
}

template <class T> void weight_gradient(const Weights<T>& w, Scratch<T>& s, int steps) {
  for (int l = 0; l < w.net.layers; ++l) {
    const Layer<T>& layer = w.layers[l];
    const Pack<T>* deltas = s.layers[l].gates.data();
    Sum<T>* total = &s.total[layer.offset];
    outer(deltas, 4 * layer.hidden, input(w, s, l, 0), layer.inputs, steps, total, layer.width());
    outer(deltas, 4 * layer.hidden, s.layers[l].hidden.data(), layer.hidden, steps,
          total + layer.inputs, layer.width());
  }
}

// -- blocks, chunks and threads -----------------------------------------------------------------

// memcpy is a call to a library where the size is not a constant, as it is in a whole block.
template <class T> INLINE Pack<T> load(const T* row, int count) {
  Pack<T> pack = {};
  if (count == kWidth<T>) std::memcpy(&pack, row, sizeof pack);
  else std::memcpy(&pack, row, count * sizeof(T));
  return pack;
}

template <class T> Pack<T> gather(const T* row, const int64_t* indices, int count) {
  T lanes[kWidth<T>] = {};
  for (int i = 0; i < count; ++i) lanes[i] = row[indices[i]];
  return load(lanes, kWidth<T>);
}

template <class T> INLINE void store(T* row, const Pack<T>& pack, int count) {
  if (count == kWidth<T>) std::memcpy(row, &pack, sizeof pack);
  else std::memcpy(row, &pack, count * sizeof(T));
}

// Calls work(scratch, chunk) for all chunks, each scratch on a thread of its own.
template <class S, class Work>
void for_chunks(std::vector<S>& scratches, int64_t chunks, Work work) {
  std::atomic<int64_t> next{0};
  auto run = [&](S& scratch) {
    for (int64_t chunk; (chunk = next++) < chunks;) work(scratch, chunk);
  };
  std::vector<std::thread> threads;
  threads.reserve(scratches.size());
  try {
    for (size_t i = 1; i < scratches.size(); ++i) threads.emplace_back(run, std::ref(scratches[i]));
  } catch (const std::system_error&) {
    // No more threads to be had: those that started take all chunks.
  }
  run(scratches[0]);
  for (auto& thread : threads) thread.join();
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int num_threads(const Network& net, int64_t chunks) {
  return int(std::max<int64_t>(1, std::min<int64_t>(net.threads, chunks)));
}

constexpr int64_t kStepChunk = 512;     // coordinates
constexpr int64_t kReplayChunk = 256;   // coordinates, at least
constexpr int64_t kReplayChunks = 128;  // at most: each has a sum of its own

// The rows of one kind of state that a block at [begin, begin + kWidth) needs next.
template <class T> INLINE void prefetch(const T* rows, int hidden, int64_t n, int64_t at) {
  if (at < n)
    for (int j = 0; j < hidden; ++j) __builtin_prefetch(rows + j * n + at);
}

template <class T>
int step(const Network& net, const T* flat, const T* gradient, const T* const* h, const T* const* c,
         T* const* new_h, T* const* new_c, T* update, int64_t n) {
  const Weights<T> w(net, flat);
  const int H = net.hidden;
  const int64_t chunks = ceil_div(n, kStepChunk);
  std::vector<Scratch<T>> scratches(num_threads(net, chunks), Scratch<T>(w, 1, false));
  for_chunks(scratches, chunks, [&](Scratch<T>& s, int64_t chunk) {
    const int64_t end = std::min(n, (chunk + 1) * kStepChunk);
    for (int64_t begin = chunk * kStepChunk; begin < end; begin += kWidth<T>) {
      const int count = int(std::min<int64_t>(kWidth<T>, end - begin));
      s.gradients[0] = load(gradient + begin, count);
      for (int l = 0; l < net.layers; ++l) {
        for (int j = 0; j < H; ++j) {
          s.layers[l].hidden[j] = load(h[l] + j * n + begin, count);
          s.layers[l].cell[j] = load(c[l] + j * n + begin, count);
        }
#ifndef NOPREFETCH
        const int64_t last = begin + 2 * kWidth<T> - 1;
        prefetch(h[l], H, n, last);
        prefetch(c[l], H, n, last);
        prefetch(new_h[l], H, n, last);
        prefetch(new_c[l], H, n, last);
#endif
      }
      forward(w, s, 0);
      Pack<T> out = broadcast(w.output[H]);
      for (int l = 0; l < net.layers; ++l)
        for (int j = 0; j < H; ++j) {
          store(new_h[l] + j * n + begin, s.layers[l].hidden[H + j], count);
          store(new_c[l] + j * n + begin, s.layers[l].cell[H + j], count);
        }
      for (int j = 0; j < H; ++j)
        out = out + broadcast(w.output[j]) * s.layers.back().hidden[H + j];
      store(update + begin, broadcast(T(net.output_scale)) * out, count);
    }
  });
  return 0;
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
                  const T* const* h, const T* const* c, int64_t n, int steps,
                  const int64_t* indices, int count) {
  for (int t = 0; t < steps; ++t) {
    s.gradients[t] = gather(gradients + t * n, indices, count);
    s.cotangents[t] =
        broadcast(T(w.net.output_scale)) * gather(cotangents + t * n, indices, count);
  }
  for (int l = 0; l < w.net.layers; ++l)
    for (int j = 0; j < w.net.hidden; ++j) {
      s.layers[l].hidden[j] = gather(h[l] + j * n, indices, count);
      s.layers[l].cell[j] = gather(c[l] + j * n, indices, count);
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

template <class T>
int replay(const Network& net, const T* flat, const T* gradients, const T* cotangents,
           const T* const* h, const T* const* c, T* d_flat, int64_t n, int steps) {
  const Weights<T> w(net, flat);
  const auto indices = contributing(gradients, cotangents, n, steps);
  const int64_t active = indices.size();
  const int64_t width = kWidth<T>;
  const int64_t size =
      std::max(kReplayChunk, ceil_div(ceil_div(active, kReplayChunks), width) * width);
  const int64_t chunks = ceil_div(active, size);
  std::vector<T> sums(chunks * w.size);
  std::vector<Scratch<T>> scratches(num_threads(net, chunks), Scratch<T>(w, steps, true));
  for_chunks(scratches, chunks, [&](Scratch<T>& s, int64_t chunk) {
    const int64_t end = std::min(active, (chunk + 1) * size);
    std::fill(s.total.begin(), s.total.end(), Sum<T>{});
    for (int64_t begin = chunk * size; begin < end; begin += width) {
      const int count = int(std::min(width, end - begin));
      gather_block(w, s, gradients, cotangents, h, c, n, steps, &indices[begin], count);
      replay_block(w, s, steps);
    }
    for (int64_t i = 0; i < w.size; ++i)
      for (int lane = 0; lane < kWidth<T> / kVectors; ++lane)
        sums[chunk * w.size + i] += s.total[i].v[lane];
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < w.size; ++i) d_flat[i] += sums[chunk * w.size + i];
  return 0;
}

}  // namespace

// 0, or 1 when there is not enough memory. All arrays are contiguous; h and c point to an array
// (H, N) for each layer, and so do new_h and new_c, which may be h and c.
#define EXPORT(T, suffix)                                                                        \
  extern "C" int step_##suffix(const Network* net, const T* weights, const T* gradient,          \
                               const T* const* h, const T* const* c, T* const* new_h,            \
                               T* const* new_c, T* update, int64_t n) try {                      \
    return step(*net, weights, gradient, h, c, new_h, new_c, update, n);                         \
  } catch (const std::bad_alloc&) {                                                              \
    return 1;                                                                                    \
  }                                                                                              \
  extern "C" int replay_##suffix(const Network* net, const T* weights, const T* gradients,       \
                                 const T* cotangents, const T* const* h, const T* const* c,      \
                                 T* d_weights, int64_t n, int steps) try {                       \
    return replay(*net, weights, gradients, cotangents, h, c, d_weights, n, steps);              \
  } catch (const std::bad_alloc&) {                                                              \
    return 1;                                                                                    \
  }
EXPORT(float, float)
EXPORT(double, double)
