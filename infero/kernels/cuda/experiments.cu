// The experiments of chapter 13: what an access pattern costs. benchmarks/gpu_experiments.py runs
// them. Each reads or moves a known number of useful bytes; the time is taken outside.

#include <cuda_runtime.h>

// Sums what every thread loads, and keeps the compiler from leaving the loads out.
__device__ void keep(float* out, float value) {
    if (value == 1.2345e-38f) *out = value;
}

// Thread i of the whole grid reads numbers i, i + threads, ...: number j lies at j * stride + offset.
__global__ void read_strided(const float* data, float* out, long count, int stride, int offset) {
    float sum = 0.0f;
    long step = (long)gridDim.x * blockDim.x;
#pragma unroll 4
    for (long j = (long)blockIdx.x * blockDim.x + threadIdx.x; j < count; j += step)
        sum += __ldcs(data + j * stride + offset);
    keep(out, sum);
}

// The same numbers in pieces of 1 to 16 bytes a thread.
template <typename T>
__device__ float first(T value) { return (float)value; }
template <>
__device__ float first(float2 value) { return value.x + value.y; }
template <>
__device__ float first(float4 value) { return value.x + value.y + value.z + value.w; }

template <typename T>
__global__ void read_wide(const T* data, float* out, long count) {
    float sum = 0.0f;
    long step = (long)gridDim.x * blockDim.x;
#pragma unroll 1  // one load in flight a thread: the width is what counts
    for (long j = (long)blockIdx.x * blockDim.x + threadIdx.x; j < count; j += step)
        sum += first(data[j]);
    keep(out, sum);
}

// Lane l reads word (l * stride + u) of shared memory, over and over: a bank conflict for each two
// lanes whose words differ by a multiple of 32.
__global__ void read_banks(float* out, int stride, int rounds) {
    __shared__ volatile float words[32 * 64];
    for (int i = threadIdx.x; i < 32 * 64; i += blockDim.x) words[i] = (float)i;
    __syncthreads();
    volatile float* mine = words + (threadIdx.x % 32) * stride;
    float sum = 0.0f;
    for (int round = 0; round < rounds; round++) {
#pragma unroll
        for (int u = 0; u < 16; u++) sum += mine[u];
    }
    keep(out, sum);
}

// Reads everything once with one load in flight a warp; shared memory that nobody uses limits how
// many blocks an SM holds.
template <typename T>
__global__ void read_resident(const T* data, float* out, long count) {
    extern __shared__ float unused[];
    float sum = 0.0f;
    long step = (long)gridDim.x * blockDim.x;
#pragma unroll 1
    for (long j = (long)blockIdx.x * blockDim.x + threadIdx.x; j < count; j += step)
        sum += first(data[j]);
    keep(out, sum + (count < 0 ? unused[0] : 0.0f));
}

// out[c][r] = in[r][c] for a square matrix of `side` floats, a tile of 32 x 32 a block of 32 x 8.
__global__ void transpose_naive(const float* in, float* out, int side) {
    int c = blockIdx.x * 32 + threadIdx.x;
    for (int k = threadIdx.y; k < 32; k += 8) {
        int r = blockIdx.y * 32 + k;
        out[(size_t)c * side + r] = in[(size_t)r * side + c];  // a warp writes down a column
    }
}

template <int PAD>  // 0: lanes of a column share one bank; 1: every lane has its own
__global__ void transpose_tile(const float* in, float* out, int side) {
    __shared__ float tile[32][32 + PAD];
    int c = blockIdx.x * 32 + threadIdx.x, r = blockIdx.y * 32;
    for (int k = threadIdx.y; k < 32; k += 8)
        tile[k][threadIdx.x] = in[(size_t)(r + k) * side + c];
    __syncthreads();
    c = blockIdx.y * 32 + threadIdx.x, r = blockIdx.x * 32;
    for (int k = threadIdx.y; k < 32; k += 8)
        out[(size_t)(r + k) * side + c] = tile[threadIdx.x][k];
}

__global__ void nothing() {}

// -- what Python calls; each returns a cudaError_t, 0 for success ---------------------------------

extern "C" int infero_read_strided(const float* data, float* out, long count, int stride,
                                   int offset, int blocks, cudaStream_t stream) {
    read_strided<<<blocks, 256, 0, stream>>>(data, out, count, stride, offset);
    return cudaGetLastError();
}

extern "C" int infero_read_wide(const void* data, float* out, long bytes, int width, int blocks,
                                cudaStream_t stream) {
    if (width == 1)
        read_wide<<<blocks, 256, 0, stream>>>((const unsigned char*)data, out, bytes);
    else if (width == 2)
        read_wide<<<blocks, 256, 0, stream>>>((const unsigned short*)data, out, bytes / 2);
    else if (width == 4)
        read_wide<<<blocks, 256, 0, stream>>>((const float*)data, out, bytes / 4);
    else if (width == 8)
        read_wide<<<blocks, 256, 0, stream>>>((const float2*)data, out, bytes / 8);
    else
        read_wide<<<blocks, 256, 0, stream>>>((const float4*)data, out, bytes / 16);
    return cudaGetLastError();
}

extern "C" int infero_read_banks(float* out, int stride, int rounds, int blocks,
                                 cudaStream_t stream) {
    if (stride < 0 || 31 * stride + 16 > 32 * 64) return cudaErrorInvalidValue;
    read_banks<<<blocks, 1024, 0, stream>>>(out, stride, rounds);
    return cudaGetLastError();
}

// Blocks of `threads` threads, `shared` bytes of unused shared memory each.
extern "C" int infero_read_resident(const void* data, float* out, long bytes, int width, int blocks,
                                    int threads, int shared, cudaStream_t stream) {
    auto most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    cudaError_t error = width == 4 ? cudaFuncSetAttribute(read_resident<float>, most, shared)
                                   : cudaFuncSetAttribute(read_resident<float4>, most, shared);
    if (error != cudaSuccess) return error;
    if (width == 4)
        read_resident<<<blocks, threads, shared, stream>>>((const float*)data, out, bytes / 4);
    else
        read_resident<<<blocks, threads, shared, stream>>>((const float4*)data, out, bytes / 16);
    return cudaGetLastError();
}

// How many such blocks one SM holds, as the driver counts them.
extern "C" int infero_resident_blocks(int width, int threads, int shared) {
    int blocks = -1;
    auto most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    if (width == 4) {
        cudaFuncSetAttribute(read_resident<float>, most, shared);
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, read_resident<float>, threads,
                                                      shared);
    } else {
        cudaFuncSetAttribute(read_resident<float4>, most, shared);
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, read_resident<float4>, threads,
                                                      shared);
    }
    return blocks;
}

// way: 0 naive, 1 through shared memory, 2 through padded shared memory. side: a multiple of 32.
extern "C" int infero_transpose(const float* in, float* out, int side, int way,
                                cudaStream_t stream) {
    if (side % 32 != 0) return cudaErrorInvalidValue;
    dim3 blocks(side / 32, side / 32), threads(32, 8);
    if (way == 0)
        transpose_naive<<<blocks, threads, 0, stream>>>(in, out, side);
    else if (way == 1)
        transpose_tile<0><<<blocks, threads, 0, stream>>>(in, out, side);
    else
        transpose_tile<1><<<blocks, threads, 0, stream>>>(in, out, side);
    return cudaGetLastError();
}

extern "C" int infero_nothing(cudaStream_t stream) {
    nothing<<<1, 32, 0, stream>>>();
    return cudaGetLastError();
}
