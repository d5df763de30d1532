// The nearest code of every position of [N, C, S]; a thread a position, whose vector waits in shared memory. Differences are squared in
// f64, as on the CPU. What has no nearest code in that arithmetic (numbers that are not finite, squares beyond its range) is left to
// the twin: `odd` tells so.
#include "ops/cuda/prelude.cuh"

template <class Real>
__device__ __forceinline__ void nearest(const Real *__restrict__ z, const Real *__restrict__ codes,
                                        unsigned int *__restrict__ found, int *odd, Count vectors, int channels, int size,
                                        int number, double least, Real *vector) {
  const int stride = blockDim.x;
  Real *const mine = vector + threadIdx.x;
  bool strange = false;
  // A code that is NaN is an error, though no vector is near it.
  for (Count i = first_element(); i < (Count)number * channels; i += all_threads()) strange |= codes[i] != codes[i];
  for (Count n = first_element(); n < vectors; n += all_threads()) {
    const Count image = n / size;
    const Real *const from = z + image * channels * size + (n - image * size);
    for (int c = 0; c < channels; ++c) mine[c * stride] = from[(Count)c * size];
    double best = INFINITY;
    unsigned int nearest = 0;
    for (int k = 0; k < number; ++k) {
      const Real *const code = codes + (Count)k * channels;
      double sum = 0;
      for (int c = 0; c < channels; ++c) {
        const double d = (double)mine[c * stride] - (double)code[c];
        sum += d * d;
      }
      if (sum < best) {
        best = sum;
        nearest = k;
      }
    }
    strange |= !(best >= least && best < INFINITY);
    found[n] = nearest;
  }
  if (strange) atomicAdd(odd, 1);
}

extern "C" __global__ void __launch_bounds__(MAX_BLOCK)
    nearest_f32(const float *z, const float *codes, unsigned int *found, int *odd, Count vectors, int channels, int size,
                int number, double least) {
  DYNAMIC_SHARED(float, vector);
  nearest(z, codes, found, odd, vectors, channels, size, number, least, vector);
}

extern "C" __global__ void __launch_bounds__(MAX_BLOCK)
    nearest_f64(const double *z, const double *codes, unsigned int *found, int *odd, Count vectors, int channels, int size,
                int number, double least) {
  DYNAMIC_SHARED(double, vector);
  nearest(z, codes, found, odd, vectors, channels, size, number, least, vector);
}
