// Runs kernels on the host as a GPU's driver would: by name, grid, block, bytes of shared memory and a list of arguments.
//   runner LAUNCHES RESULTS
// LAUNCHES, little endian: u32 launches; of each: u32 length and the name, u32 grid, u32 block, u32 shared bytes, u32
// arguments; of each: u32 kind (0 value, 1 operand), u64 length and the bytes; or kind 2, a struct of pointers: u32 pointers, u32
// operands, and u64 length and bytes of each. RESULTS: the bytes of all operands, one after
// another, after their launch.
#include "ops/adamw/cuda/adamw.cu"
#include "ops/batch_norm/cuda/batch_norm.cu"
#include "ops/conv/cuda/columns.cu"
#include "ops/cuda/host/self_test.cu"
#include "ops/lif/cuda/lif.cu"
#include "ops/nearest/cuda/nearest.cu"
#include "ops/norm_lif/cuda/norm_lif.cu"
#include "ops/time/cuda/psp.cu"
#include "ops/time/cuda/weighted_sums.cu"

#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <type_traits>
#include <unistd.h>
#include <utility>

namespace {

// Of exactly this size, so that AddressSanitizer knows where it ends.
struct Bytes {
  std::unique_ptr<unsigned char[]> start;
  size_t length;
};

enum Kind { VALUE, OPERAND, TABLE };

struct Argument {
  uint32_t kind, pointers;
  // One, or those of a table.
  std::vector<Bytes> bytes;
};

struct Launch {
  std::string name;
  unsigned int grid, block, shared;
  std::vector<Argument> arguments;
};

template <class T> T argument(const Launch &launch, size_t i) {
  const Argument &given = launch.arguments[i];
  if ((given.kind == OPERAND) != std::is_pointer_v<T>) host::fail("an argument is of the other kind", launch.name.c_str());
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<T>(given.bytes[0].start.get());
  } else {
    T value;
    std::vector<void *> pointers(given.pointers);
    for (size_t slot = 0; given.kind == TABLE && slot < given.bytes.size(); ++slot)
      pointers.at(slot) = given.bytes[slot].start.get();
    const void *from = given.kind == TABLE ? static_cast<void *>(pointers.data()) : given.bytes[0].start.get();
    const size_t length = given.kind == TABLE ? pointers.size() * sizeof(void *) : given.bytes[0].length;
    if (length != sizeof(T)) host::fail("an argument has another size", launch.name.c_str());
    std::memcpy(&value, from, sizeof(T));
    return value;
  }
}

template <class... A, size_t... I>
std::function<void()> prepared(void (*kernel)(A...), const Launch &launch, std::index_sequence<I...>) {
  if (launch.arguments.size() != sizeof...(A)) host::fail("another number of arguments", launch.name.c_str());
  return [kernel, values = std::make_tuple(argument<A>(launch, I)...)] { std::apply(kernel, values); };
}

template <class... A> std::function<void()> prepared(void (*kernel)(A...), const Launch &launch) {
  return prepared(kernel, launch, std::index_sequence_for<A...>{});
}

std::function<void()> find(const Launch &launch) {
#define KERNEL(kernel) \
  if (launch.name == #kernel) return prepared(kernel, launch)
#define KERNELS(kernel) \
  KERNEL(kernel##_f32); \
  KERNEL(kernel##_f64)
  KERNELS(lif_forward);
  KERNELS(lif_backward);
  KERNELS(plif_forward);
  KERNELS(plif_backward);
  KERNELS(plif_weight_gradient);
  KERNELS(adamw);
  KERNELS(psp_distances);
  KERNELS(psp_total);
  KERNELS(psp_gradients);
  KERNELS(weighted_sums);
  KERNELS(to_columns);
  KERNELS(from_columns);
  KERNELS(exchange);
  KERNELS(add);
  KERNELS(nearest);
  KERNELS(norm_sums);
  KERNELS(norm_moments);
  KERNELS(norm_coefficients);
  KERNELS(norm_affine);
  KERNELS(norm_gradient_sums);
  KERNELS(norm_gradients);
  KERNELS(norm_input_gradient);
  KERNELS(norm_lif_forward);
  KERNELS(norm_lif_backward);
  KERNEL(self_sum);
  KERNEL(self_race);
  KERNEL(self_race_of_blocks);
  KERNEL(self_overrun);
  KERNEL(self_overrun_of_operand);
  host::fail("no such kernel", launch.name.c_str());
}

// The blocks run on two teams of threads at once, so that blocks which meet in memory are found.
void run(const Launch &launch) {
  constexpr unsigned int TEAMS = 2;
  const std::function<void()> kernel = find(launch);
  if (launch.grid == 0 || launch.block == 0) host::fail("an empty grid or block", launch.name.c_str());
  gridDim.x = launch.grid;
  blockDim.x = launch.block;
  std::vector<std::unique_ptr<host::Block>> teams;
  std::vector<std::thread> threads;
  for (unsigned int team = 0; team < TEAMS && team < launch.grid; ++team) {
    teams.push_back(std::make_unique<host::Block>(launch.block));
    for (unsigned int thread = 0; thread < launch.block; ++thread)
      threads.emplace_back([&launch, &kernel, block = teams.back().get(), team, thread] {
        host::block = block;
        threadIdx.x = thread;
        for (blockIdx.x = team; blockIdx.x < launch.grid; blockIdx.x += TEAMS) {
          // What a block left behind is not the next one's: the bytes are those of NaN.
          if (thread == 0) {
            block->shared = std::make_unique<unsigned char[]>(launch.shared);
            std::memset(block->shared.get(), 0xff, launch.shared);
          }
          __syncthreads();
          kernel();
          __syncthreads();
        }
      });
  }
  for (std::thread &thread : threads) thread.join();
}

template <class T> T read(FILE *file) {
  T value;
  if (std::fread(&value, sizeof(T), 1, file) != 1) host::fail("the file ends early", "launches");
  return value;
}

void read(FILE *file, void *bytes, size_t length) {
  if (std::fread(bytes, 1, length, file) != length) host::fail("the file ends early", "launches");
}

Launch read_launch(FILE *file) {
  Launch launch;
  launch.name.resize(read<uint32_t>(file));
  read(file, launch.name.data(), launch.name.size());
  launch.grid = read<uint32_t>(file);
  launch.block = read<uint32_t>(file);
  launch.shared = read<uint32_t>(file);
  for (uint32_t left = read<uint32_t>(file); left > 0; --left) {
    Argument argument{read<uint32_t>(file), 0, {}};
    uint32_t parts = 1;
    if (argument.kind == TABLE) {
      argument.pointers = read<uint32_t>(file);
      parts = read<uint32_t>(file);
    }
    for (; parts > 0; --parts) {
      const size_t length = read<uint64_t>(file);
      auto bytes = std::make_unique<unsigned char[]>(length);
      read(file, bytes.get(), length);
      argument.bytes.push_back({std::move(bytes), length});
    }
    launch.arguments.push_back(std::move(argument));
  }
  return launch;
}

} // namespace

int main(int count, char **arguments) {
  if (count != 3) host::fail("runner LAUNCHES RESULTS", "usage");
  // A barrier that not all threads reach would wait for ever.
  alarm(900);
  FILE *launches = std::fopen(arguments[1], "rb"), *results = std::fopen(arguments[2], "wb");
  if (!launches || !results) host::fail("cannot be opened", "launches or results");
  for (uint32_t left = read<uint32_t>(launches); left > 0; --left) {
    const Launch launch = read_launch(launches);
    run(launch);
    for (const Argument &argument : launch.arguments)
      if (argument.kind != VALUE)
        for (const Bytes &bytes : argument.bytes) std::fwrite(bytes.start.get(), 1, bytes.length, results);
  }
  std::fclose(launches);
  if (std::fclose(results) != 0) host::fail("cannot be written", "results");
}
