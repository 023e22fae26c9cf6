// Layers of a network in training, on processors: batch normalisation with ReLU, and max pooling, of bfloat16 tensors
// in channels-last memory order. Python calls them in galaxyspark/network/compiled_layers.py.
//
// Between convolutions a step waits for memory. So these go over it as seldom as they can, where torch's layers go once
// for each thing that they do; and channels are taken two at a time, as the halves of a 32-bit word.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// Compiled for several generations of processors; the newest that this one knows is chosen when the library is loaded.
// GCC 12 is the first to know them by these names.
#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

using at::MemoryFormat;
using at::Tensor;

// Two channels of bfloat16: the first is the lower half, as on all little-endian processors.
typedef uint32_t Pair __attribute__((may_alias, aligned(2)));

INLINE float from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
INLINE uint32_t to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}
INLINE float first(uint32_t pair) { return from_bits(pair << 16); }
INLINE float second(uint32_t pair) { return from_bits(pair & 0xffff0000u); }

// The nearest bfloat16, of two the even one, is the upper half. NaN stays NaN: a processor's own has a lower half of 0.
template <typename Bits>
INLINE Bits rounded(Bits bits) {
  return bits + 0x7fff + ((bits >> 16) & 1);
}
template <typename Bits>
INLINE Bits joined(Bits first, Bits second) {
  return (rounded(first) >> 16) | (rounded(second) & 0xffff0000u);
}
INLINE uint32_t joined(float first, float second) { return joined(to_bits(first), to_bits(second)); }

// Pixels of a channels-last tensor, or of some of its channels: rows of pairs, evenly apart in memory.
struct Rows {
  Pair* data;
  int64_t stride;
  Pair* at(int64_t row) const { return data + row * stride; }
};

bool has_rows(const Tensor& x) {
  const int64_t stride = x.stride(3);
  return x.stride(1) == 1 && stride % 2 == 0 && x.stride(2) == stride * x.size(3) &&
         x.stride(0) == stride * x.size(3) * x.size(2);
}

Tensor with_rows(const Tensor& x) { return has_rows(x) ? x : x.clone(MemoryFormat::ChannelsLast); }

Rows rows_of(const Tensor& x) { return {static_cast<Pair*>(x.data_ptr()), x.stride(3) / 2}; }

Tensor room_for(const Tensor& x) { return at::empty(x.sizes(), x.options(), MemoryFormat::ChannelsLast); }

// ---- Batch normalisation and ReLU: y = max(0, scale x + shift). Numbers of channels stand in arrays of all first
// channels, then all second ones, of pairs.

// Rows whose sums are in float32: in it the sum of 128 squares is exact, where all values are about as large, so that
// the variance keeps its digits where the mean is much larger. The sums of blocks are in float64.
const int64_t kBlock = 128;
const int64_t kTogether = 4;  // rows for which sums are read and written once

template <int64_t kRows>
FOR_EACH_PROCESSOR void add_moments(const Pair* __restrict x, int64_t stride, int64_t times, int64_t pairs,
                                    float* __restrict sum, float* __restrict square) {
  for (; times > 0; --times, x += kRows * stride)
    for (int64_t i = 0, j = pairs; i < pairs; ++i, ++j) {
      float sum_a = sum[i], sum_b = sum[j], square_a = square[i], square_b = square[j];
      for (int64_t row = 0; row < kRows; ++row) {
        const uint32_t pair = x[row * stride + i];
        const float a = first(pair), b = second(pair);
        sum_a += a, sum_b += b;
        square_a += a * a, square_b += b * b;
      }
      sum[i] = sum_a, sum[j] = sum_b;
      square[i] = square_a, square[j] = square_b;
    }
}

FOR_EACH_PROCESSOR void normalise(const Pair* __restrict x, int64_t stride, int64_t rows, int64_t pairs,
                                  const float* __restrict scale, const float* __restrict shift, Pair* __restrict y,
                                  int64_t y_stride) {
  for (int64_t row = 0; row < rows; ++row, x += stride, y += y_stride)
    for (int64_t i = 0, j = pairs; i < pairs; ++i, ++j) {
      const float a = first(x[i]) * scale[i] + shift[i], b = second(x[i]) * scale[j] + shift[j];
      y[i] = joined(a < 0 ? 0 : a, b < 0 ? 0 : b);
    }
}

// What ReLU lets through of a gradient.
INLINE float passed(float gradient, float x, float scale, float shift) { return x * scale + shift <= 0 ? 0 : gradient; }

template <int64_t kRows>
FOR_EACH_PROCESSOR void add_gradients(const Pair* __restrict gradients, int64_t gradient_stride,
                                      const Pair* __restrict x, int64_t stride, int64_t times, int64_t pairs,
                                      const float* __restrict scale, const float* __restrict shift,
                                      const float* __restrict mean, float* __restrict sum, float* __restrict product) {
  for (; times > 0; --times, x += kRows * stride, gradients += kRows * gradient_stride)
    for (int64_t i = 0, j = pairs; i < pairs; ++i, ++j) {
      float sum_a = sum[i], sum_b = sum[j], product_a = product[i], product_b = product[j];
      for (int64_t row = 0; row < kRows; ++row) {
        const uint32_t pair = x[row * stride + i], gradient = gradients[row * gradient_stride + i];
        const float a = first(pair), passed_a = passed(first(gradient), a, scale[i], shift[i]);
        const float b = second(pair), passed_b = passed(second(gradient), b, scale[j], shift[j]);
        sum_a += passed_a, sum_b += passed_b;
        product_a += passed_a * (a - mean[i]), product_b += passed_b * (b - mean[j]);
      }
      sum[i] = sum_a, sum[j] = sum_b;
      product[i] = product_a, product[j] = product_b;
    }
}

// scale * passed gradient + factor * x + term
FOR_EACH_PROCESSOR void gradient_of_input(const Pair* __restrict gradients, int64_t gradient_stride,
                                          const Pair* __restrict x, int64_t stride, int64_t rows, int64_t pairs,
                                          const float* __restrict scale, const float* __restrict shift,
                                          const float* __restrict factor, const float* __restrict term,
                                          Pair* __restrict y) {
  for (int64_t row = 0; row < rows; ++row, x += stride, gradients += gradient_stride, y += pairs)
    for (int64_t i = 0, j = pairs; i < pairs; ++i, ++j) {
      const float a = first(x[i]), passed_a = passed(first(gradients[i]), a, scale[i], shift[i]);
      const float b = second(x[i]), passed_b = passed(second(gradients[i]), b, scale[j], shift[j]);
      y[i] = joined(scale[i] * passed_a + factor[i] * a + term[i], scale[j] * passed_b + factor[j] * b + term[j]);
    }
}

// Calls function(part, row, number of rows) for blocks of rows, each part of them on a thread.
template <typename Function>
void for_each_block(int64_t rows, int64_t parts, const Function& function) {
  at::parallel_for(0, parts, 1, [&](int64_t begin_part, int64_t end_part) {
    for (int64_t part = begin_part; part < end_part; ++part) {
      const int64_t end = rows * (part + 1) / parts;
      for (int64_t row = rows * part / parts; row < end; row += kBlock)
        function(part, row, std::min(kBlock, end - row));
    }
  });
}

// Two sums over all rows for each channel; add(row, times, rows at once, sum, other sum) adds those of some rows.
template <typename Add>
std::pair<std::vector<double>, std::vector<double>> sums(int64_t rows, int64_t channels, int64_t parts,
                                                         const Add& add) {
  std::vector<std::vector<double>> of_part(parts, std::vector<double>(2 * channels));
  for_each_block(rows, parts, [&](int64_t part, int64_t row, int64_t count) {
    static thread_local std::vector<float> of_block;
    of_block.assign(2 * channels, 0);
    float *sum = of_block.data(), *other = sum + channels;
    const int64_t rest = count % kTogether;
    add(row, count / kTogether, std::integral_constant<int64_t, kTogether>(), sum, other);
    add(row + count - rest, rest, std::integral_constant<int64_t, 1>(), sum, other);
    for (int64_t c = 0; c < 2 * channels; ++c) of_part[part][c] += of_block[c];
  });
  std::vector<double> all(2 * channels);
  for (const auto& part : of_part)
    for (int64_t c = 0; c < 2 * channels; ++c) all[c] += part[c];
  return {{all.begin(), all.begin() + channels}, {all.begin() + channels, all.end()}};
}

int64_t number_of_parts(int64_t rows) { return std::min<int64_t>(at::get_num_threads(), (rows + kBlock - 1) / kBlock); }

// Where a channel's number is in an array of first channels, then second ones.
int64_t place(int64_t channel, int64_t channels) { return channel % 2 * (channels / 2) + channel / 2; }

// Writes to y, which may be some channels of a tensor. Returns what the backward pass wants: mean, 1 / standard
// deviation, scale and shift, of shape (4, channels).
Tensor batch_norm_relu(const Tensor& input, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                       const Tensor& running_variance, double momentum, double epsilon, const Tensor& y) {
  TORCH_CHECK(input.scalar_type() == at::kBFloat16 && input.size(1) % 2 == 0,
              "batch_norm_relu takes bfloat16 and an even number of channels");
  for (const Tensor& numbers : {weight, bias, running_mean, running_variance})
    TORCH_CHECK(numbers.scalar_type() == at::kFloat && numbers.is_contiguous() && numbers.numel() == input.size(1),
                "batch_norm_relu takes weights and statistics in float32, one for each channel");
  TORCH_CHECK(y.scalar_type() == at::kBFloat16 && y.sizes() == input.sizes() && has_rows(y),
              "batch_norm_relu writes to a channels-last tensor of its input's type and shape");
  const Tensor x = with_rows(input), kept = at::empty({4, x.size(1)}, at::kFloat);
  const int64_t channels = x.size(1), rows = x.numel() / channels, parts = number_of_parts(rows);
  const Rows from = rows_of(x), to = rows_of(y);
  const auto [sum, square] =
      sums(rows, channels, parts, [&](int64_t row, int64_t times, auto at_once, float* a, float* b) {
        add_moments<at_once>(from.at(row), from.stride, times, channels / 2, a, b);
      });
  float* mean = kept.data_ptr<float>();
  float *rstd = mean + channels, *scale = rstd + channels, *shift = scale + channels;
  for (int64_t channel = 0; channel < channels; ++channel) {
    const int64_t i = place(channel, channels);
    const double average = sum[i] / rows, difference = square[i] / rows - average * average;
    const double variance = difference < 0 ? 0 : difference;
    mean[i] = average;
    rstd[i] = 1 / std::sqrt(variance + epsilon);
    scale[i] = weight.const_data_ptr<float>()[channel] * rstd[i];
    shift[i] = bias.const_data_ptr<float>()[channel] - mean[i] * scale[i];
    float &moving_mean = running_mean.data_ptr<float>()[channel], &moving = running_variance.data_ptr<float>()[channel];
    moving_mean += momentum * (average - moving_mean);
    moving += momentum * (variance * rows / (rows - 1) - moving);
  }
  for_each_block(rows, parts, [&](int64_t, int64_t row, int64_t count) {
    normalise(from.at(row), from.stride, count, channels / 2, scale, shift, to.at(row), to.stride);
  });
  return kept;
}

// Returns the gradients of x, weight and bias.
std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_backward(const Tensor& gradient, const Tensor& input,
                                                            const Tensor& kept) {
  const Tensor g = with_rows(gradient), x = with_rows(input), of_x = room_for(x);
  const int64_t channels = x.size(1), rows = x.numel() / channels, parts = number_of_parts(rows);
  const Tensor of_weight = at::empty({channels}, at::kFloat), of_bias = at::empty({channels}, at::kFloat);
  const Rows gradients = rows_of(g), from = rows_of(x), to = rows_of(of_x);
  const float* mean = kept.const_data_ptr<float>();
  const float *rstd = mean + channels, *scale = rstd + channels, *shift = scale + channels;
  const auto [sum, product] =
      sums(rows, channels, parts, [&](int64_t row, int64_t times, auto at_once, float* a, float* b) {
        add_gradients<at_once>(gradients.at(row), gradients.stride, from.at(row), from.stride, times, channels / 2,
                               scale, shift, mean, a, b);
      });
  // The gradient of x is scale (passed - mean of passed - (x - mean) rstd^2 mean of passed (x - mean)).
  std::vector<float> factor(channels), term(channels);
  for (int64_t channel = 0; channel < channels; ++channel) {
    const int64_t i = place(channel, channels);
    const double slope = double(rstd[i]) * rstd[i] * product[i] / rows;
    factor[i] = -scale[i] * slope;
    term[i] = scale[i] * (mean[i] * slope - sum[i] / rows);
    of_weight.data_ptr<float>()[channel] = product[i] * rstd[i];
    of_bias.data_ptr<float>()[channel] = sum[i];
  }
  for_each_block(rows, parts, [&](int64_t, int64_t row, int64_t count) {
    gradient_of_input(gradients.at(row), gradients.stride, from.at(row), from.stride, count, channels / 2, scale, shift,
                      factor.data(), term.data(), to.at(row));
  });
  return {of_x, of_weight, of_bias};
}

// ---- Max pooling, of 32 channels at once. Fewer are left at the end of a pixel: then its last 32, some of them again.

const int64_t kChannels = 32;
typedef uint16_t Values __attribute__((vector_size(64), may_alias, aligned(2)));
typedef int16_t Keys __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));
typedef uint8_t Places __attribute__((vector_size(32), may_alias, aligned(1)));

struct Pool {
  int64_t channels, height, width, pooled_height, pooled_width, kernel, stride, padding;
};

// From the bits of values to integers that are ordered as the values are, and back. -0 comes before 0, and NaN after or
// before all numbers, by its sign.
INLINE Keys ordered(Keys bits) { return bits ^ ((bits >> 15) & 0x7fff); }

FOR_EACH_PROCESSOR void pool_row(const uint16_t* image, int64_t row, const Pool& pool, uint16_t* y, uint8_t* places) {
  const int64_t top = row * pool.stride - pool.padding;
  const int64_t begin_row = std::max<int64_t>(0, top), end_row = std::min(pool.height, top + pool.kernel);
  for (int64_t column = 0; column < pool.pooled_width; ++column, y += pool.channels, places += pool.channels) {
    const int64_t left = column * pool.stride - pool.padding;
    const int64_t begin = std::max<int64_t>(0, left), end = std::min(pool.width, left + pool.kernel);
    for (int64_t c = 0; c < pool.channels; c += kChannels) {
      c = std::min(c, pool.channels - kChannels);
      Keys best = Keys{} - 0x7fff - 1, place = {};
      for (int64_t i = begin_row; i < end_row; ++i) {
        const uint16_t* x = image + (i * pool.width + begin) * pool.channels + c;
        for (int64_t j = begin; j < end; ++j, x += pool.channels) {
          const Keys value = ordered((Keys) * reinterpret_cast<const Values*>(x));
          place = value > best ? Keys{} + int16_t((i - top) * pool.kernel + j - left) : place;
          best = value > best ? value : best;
        }
      }
      *reinterpret_cast<Values*>(y + c) = (Values)ordered(best);
      *reinterpret_cast<Places*>(places + c) = __builtin_convertvector(place, Places);
    }
  }
}

FOR_EACH_PROCESSOR void pool_row_backward(const uint16_t* gradient, const uint8_t* places, int64_t row,
                                          const Pool& pool, uint16_t* y) {
  const auto begin_of = [&](int64_t at) {
    return std::max<int64_t>(0, (at + pool.padding - pool.kernel + pool.stride) / pool.stride);
  };
  const auto end_of = [&](int64_t at, int64_t size) { return std::min(size, (at + pool.padding) / pool.stride + 1); };
  for (int64_t column = 0; column < pool.width; ++column, y += pool.channels)
    for (int64_t c = 0; c < pool.channels; c += kChannels) {
      c = std::min(c, pool.channels - kChannels);
      Floats sum = {}, other = {};
      for (int64_t i = begin_of(row); i < end_of(row, pool.pooled_height); ++i)
        for (int64_t j = begin_of(column); j < end_of(column, pool.pooled_width); ++j) {
          const int64_t at = (i * pool.pooled_width + j) * pool.channels + c;
          const uint16_t here =
              (row + pool.padding - i * pool.stride) * pool.kernel + column + pool.padding - j * pool.stride;
          const auto place = __builtin_convertvector(*reinterpret_cast<const Places*>(places + at), Values);
          const Values value = *reinterpret_cast<const Values*>(gradient + at);
          const Words passed = (Words)(place == here ? value : Values{});
          sum += (Floats)(passed << 16), other += (Floats)(passed & 0xffff0000u);
        }
      *reinterpret_cast<Values*>(y + c) = (Values)joined((Words)sum, (Words)other);
    }
}

uint16_t* bits_of(const Tensor& x) { return static_cast<uint16_t*>(x.data_ptr()); }

// Returns the maxima, and where in its window each was: the first of equal ones, counted row by row.
std::tuple<Tensor, Tensor> max_pool(const Tensor& input, int64_t kernel, int64_t stride, int64_t padding,
                                    int64_t pooled_height, int64_t pooled_width) {
  TORCH_CHECK(input.scalar_type() == at::kBFloat16 && input.size(1) >= kChannels && kernel <= 16,
              "max_pool takes bfloat16, at least 32 channels and windows of at most 16 x 16");
  const Tensor x = input.contiguous(MemoryFormat::ChannelsLast);
  const Tensor y =
      at::empty({x.size(0), x.size(1), pooled_height, pooled_width}, x.options(), MemoryFormat::ChannelsLast);
  const Tensor places = at::empty(y.sizes(), y.options().dtype(at::kByte), MemoryFormat::ChannelsLast);
  const Pool pool{x.size(1), x.size(2), x.size(3), pooled_height, pooled_width, kernel, stride, padding};
  at::parallel_for(0, x.size(0) * pooled_height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const uint16_t* image = bits_of(x) + row / pooled_height * pool.height * pool.width * pool.channels;
      const int64_t at = row * pool.pooled_width * pool.channels;
      pool_row(image, row % pooled_height, pool, bits_of(y) + at, places.data_ptr<uint8_t>() + at);
    }
  });
  return {y, places};
}

Tensor max_pool_backward(const Tensor& gradient, const Tensor& places, int64_t kernel, int64_t stride, int64_t padding,
                         int64_t height, int64_t width) {
  const Tensor g = gradient.contiguous(MemoryFormat::ChannelsLast);
  const Tensor of_x = at::empty({g.size(0), g.size(1), height, width}, g.options(), MemoryFormat::ChannelsLast);
  const Pool pool{g.size(1), height, width, g.size(2), g.size(3), kernel, stride, padding};
  const int64_t image_size = pool.pooled_height * pool.pooled_width * pool.channels;
  at::parallel_for(0, g.size(0) * height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row / height * image_size;
      pool_row_backward(bits_of(g) + at, places.data_ptr<uint8_t>() + at, row % height, pool,
                        bits_of(of_x) + row * width * pool.channels);
    }
  });
  return of_x;
}

}  // namespace

TORCH_LIBRARY(galaxyspark, library) {
  library.def(
      "batch_norm_relu(Tensor x, Tensor weight, Tensor bias, Tensor(a!) running_mean, Tensor(b!) running_variance, "
      "float momentum, float epsilon, Tensor(c!) y) -> Tensor",
      &batch_norm_relu);
  library.def("batch_norm_relu_backward(Tensor gradient, Tensor x, Tensor kept) -> (Tensor, Tensor, Tensor)",
              &batch_norm_relu_backward);
  library.def(
      "max_pool(Tensor x, int kernel, int stride, int padding, int pooled_height, int pooled_width) -> (Tensor, "
      "Tensor)",
      &max_pool);
  library.def(
      "max_pool_backward(Tensor gradient, Tensor places, int kernel, int stride, int padding, int height, int width) "
      "-> Tensor",
      &max_pool_backward);
}
