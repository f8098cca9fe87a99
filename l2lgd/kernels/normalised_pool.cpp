// Batch normalisation, ReLU and 2 × 2 max pooling in one, on the CPU, and the way back.
//
// Normalising keeps the order of activations, so the images are pooled as they are, while their
// mean and variance are taken; then only what is left after pooling is normalised. The way back
// reads the images once and writes their cotangent once.
//
// Images are (N, H, W, C), channels last; pooled ones (N, ceil(H/2), ceil(W/2), C). Each image has
// its own sums, which are added up in their order: results do not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#define INLINE inline __attribute__((always_inline))

// What Python passes; the layout is repeated in normalised_pool.py.
struct Shape {
  int64_t images, height, width, channels;
  int64_t threads;
};

namespace {

int64_t half(int64_t size) { return (size + 1) / 2; }

// kLanes channels of a pixel.
template <class T, int kLanes> struct Vector {
  typedef T Value __attribute__((vector_size(kLanes * sizeof(T))));
};
template <class V, class T> INLINE V load(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class V, class T> INLINE void store(T* to, V value) {
  std::memcpy(to, &value, sizeof value);
}

// Calls work(a vector, first channel) for blocks of 32 bytes of channels, then for single ones.
template <class T, class Work> INLINE void for_channels(int64_t channels, Work work) {
  constexpr int kLanes = 32 / sizeof(T);
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) work(typename Vector<T, kLanes>::Value{}, c);
  for (; c < channels; ++c) work(typename Vector<T, 1>::Value{}, c);
}

// Calls work(offset of a pooled pixel, offsets of its pixels, how many) for all pooled pixels.
template <class Work> INLINE void for_windows(const Shape& s, Work work) {
  for (int64_t y = 0; y < s.height; y += 2)
    for (int64_t x = 0; x < s.width; x += 2) {
      int64_t pixels[4];
      int count = 0;
      for (int64_t v = y; v < std::min(y + 2, s.height); ++v)
        for (int64_t u = x; u < std::min(x + 2, s.width); ++u)
          pixels[count++] = (v * s.width + u) * s.channels;
      work((y / 2 * half(s.width) + x / 2) * s.channels, pixels, count);
    }
}

// The maxima of each window and which pixel has them; sums of h − shift and of its square.
template <class T>
void pool(const Shape& s, const T* h, const T* shift, T* out, T* index, double* sums) {
  for_channels<T>(s.channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V sum = zero, square = zero;
    const V low = load<V>(shift + c);
    for_windows(s, [&](int64_t pooled, const int64_t* pixels, int count) {
      V best = load<V>(h + pixels[0] + c), where = zero;
      for (int k = 0; k < count; ++k) {
        const V value = load<V>(h + pixels[k] + c), centred = value - low;
        // What is not a number counts as the largest, so that it is not lost.
        const auto larger = (value > best) | (value != value);
        where = larger ? zero + T(k) : where;
        best = larger ? value : best;
        sum += centred;
        square += centred * centred;
      }
      store(out + pooled + c, best);
      store(index + pooled + c, where);
    });
    for (int i = 0; i < int(sizeof(V) / sizeof(T)); ++i) {
      sums[c + i] = sum[i];
      sums[s.channels + c + i] = square[i];
    }
  });
}

// The two sums of a channel over all images, of those of each image (N, 2, C).
std::pair<double, double> totals(const Shape& s, const std::vector<double>& sums, int64_t c) {
  std::pair<double, double> total{0, 0};
  for (int64_t n = 0; n < s.images; ++n) {
    total.first += sums[n * 2 * s.channels + c];
    total.second += sums[n * 2 * s.channels + s.channels + c];
  }
  return total;
}

template <class T>
void forward(const Shape& s, const T* h, const T* offset, double epsilon, T* out, T* index,
             T* mean, T* rstd) {
  const int64_t size = s.height * s.width * s.channels, channels = s.channels;
  const int64_t pooled = half(s.height) * half(s.width) * channels;
  std::vector<double> sums(s.images * 2 * channels);
#pragma omp parallel for num_threads(s.threads)
  for (int64_t n = 0; n < s.images; ++n)
    pool(s, h + n * size, h, out + n * pooled, index + n * pooled, &sums[n * 2 * channels]);
  const double count = double(s.images * s.height * s.width);
  for (int64_t c = 0; c < channels; ++c) {
    const auto [sum, square] = totals(s, sums, c);
    const double centre = sum / count, variance = std::max(0.0, square / count - centre * centre);
    mean[c] = T(h[c] + centre);
    rstd[c] = T(1 / std::sqrt((square != square ? square : variance) + epsilon));
  }
#pragma omp parallel for num_threads(s.threads)
  for (int64_t n = 0; n < s.images; ++n)
    for (T* p = out + n * pooled; p < out + (n + 1) * pooled; p += channels)
      for (int64_t c = 0; c < channels; ++c) {
        const T value = (p[c] - mean[c]) * rstd[c] + offset[c];
        p[c] = value < 0 ? 0 : value;
      }
}

template <class T>
void backward(const Shape& s, const T* h, const T* offset, const T* out, const T* index,
              const T* mean, const T* rstd, const T* d_out, T* d_h, T* d_offset) {
  const int64_t size = s.height * s.width * s.channels, channels = s.channels;
  const int64_t pooled = half(s.height) * half(s.width) * channels;
  std::vector<double> sums(s.images * 2 * channels);
#pragma omp parallel for num_threads(s.threads)
  for (int64_t n = 0; n < s.images; ++n)
    for_channels<T>(channels, [&](auto zero, int64_t c) {
      using V = decltype(zero);
      V sum = zero, product = zero;
      const V own = load<V>(offset + c);
      for (int64_t i = n * pooled + c; i < (n + 1) * pooled; i += channels) {
        const V value = load<V>(out + i), d = value > 0 ? load<V>(d_out + i) : zero;
        sum += d;
        product += d * (value - own);
      }
      for (int j = 0; j < int(sizeof(V) / sizeof(T)); ++j) {
        sums[n * 2 * channels + c + j] = sum[j];
        sums[n * 2 * channels + channels + c + j] = product[j];
      }
    });
  // ∂L/∂h = rstd (d − mean of d − ĥ · mean of d ĥ) = rstd d + constant + slope · h
  std::vector<T> constant(channels), slope(channels);
  const double count = double(s.images * s.height * s.width);
  for (int64_t c = 0; c < channels; ++c) {
    const auto [sum, product] = totals(s, sums, c);
    d_offset[c] = T(sum);
    slope[c] = T(-double(rstd[c]) * rstd[c] * product / count);
    constant[c] = T(-rstd[c] * sum / count);
  }
#pragma omp parallel for num_threads(s.threads)
  for (int64_t n = 0; n < s.images; ++n)
    for_channels<T>(channels, [&](auto zero, int64_t c) {
      using V = decltype(zero);
      const T* image = h + n * size + c;
      T* d_image = d_h + n * size + c;
      const V base = load<V>(constant.data() + c), steep = load<V>(slope.data() + c);
      const V centre = load<V>(mean + c), scale = load<V>(rstd + c);
      for_windows(s, [&](int64_t window, const int64_t* pixels, int in_window) {
        const int64_t at = n * pooled + window + c;
        const V d = load<V>(out + at) > 0 ? scale * load<V>(d_out + at) : zero;
        const V where = load<V>(index + at);
        for (int k = 0; k < in_window; ++k) {
          const V smooth = base + steep * (load<V>(image + pixels[k]) - centre);
          store(d_image + pixels[k], smooth + (where == zero + T(k) ? d : zero));
        }
      });
    });
}

}  // namespace

// 0, or 1 when there is not enough memory. All arrays are contiguous.
#define EXPORT(T, suffix)                                                                        \
  extern "C" int forward_##suffix(const Shape* shape, const T* h, const T* offset,               \
                                  double epsilon, T* out, T* index, T* mean, T* rstd) try { \
    forward<T>(*shape, h, offset, epsilon, out, index, mean, rstd);                              \
    return 0;                                                                                    \
  } catch (const std::bad_alloc&) {                                                              \
    return 1;                                                                                    \
  }                                                                                              \
  extern "C" int backward_##suffix(const Shape* shape, const T* h, const T* offset,              \
                                   const T* out, const T* index, const T* mean,            \
                                   const T* rstd, const T* d_out, T* d_h, T* d_offset) try {     \
    backward<T>(*shape, h, offset, out, index, mean, rstd, d_out, d_h, d_offset);                \
    return 0;                                                                                    \
  } catch (const std::bad_alloc&) {                                                              \
    return 1;                                                                                    \
  }
EXPORT(float, float)
EXPORT(double, double)
