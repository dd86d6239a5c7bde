// RMSNorm in CUDA C++, twice: chapter 13 sets it beside the Triton kernel of steps/elementwise.py.
//
// One block of threads handles one row of n numbers. `rms_norm_plain` says only what is needed;
// `rms_norm_vector` moves 16 bytes a thread at a time and keeps the row in registers, so that
// memory is read once. Arithmetic is float32, rounded once, at the store.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// The sum of one number of every thread of the block, given to all of them.
__device__ float block_sum(float value) {
    __shared__ float partial[32];  // one number a warp
    for (int distance = 16; distance > 0; distance /= 2)  // within a warp
        value += __shfl_xor_sync(0xffffffff, value, distance);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();  // every warp has written before any reads
    value = threadIdx.x % 32 < blockDim.x / 32 ? partial[threadIdx.x % 32] : 0.0f;
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}

template <typename T>
__global__ void rms_norm_plain(const T* x, const T* weight, T* out, int n, float eps) {
    const T* row = x + blockIdx.x * (size_t)n;  // size_t: rows * n may pass 2^31
    T* target = out + blockIdx.x * (size_t)n;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {  // neighbours
        float value = (float)row[i];
        sum += value * value;
    }
    float scale = rsqrtf(block_sum(sum) / n + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        target[i] = (T)((float)row[i] * scale * (float)weight[i]);
}

template <typename T>
struct alignas(16) Pack {  // what one load instruction moves for one thread
    static constexpr int count = 16 / sizeof(T);
    T value[count];
};

template <typename T, int PACKS>  // PACKS: packs a thread keeps in registers
__global__ void rms_norm_vector(const T* x, const T* weight, T* out, int n, float eps) {
    const int width = Pack<T>::count, packs = n / width;
    const Pack<T>* row = (const Pack<T>*)(x + blockIdx.x * (size_t)n);
    const Pack<T>* factor = (const Pack<T>*)weight;
    Pack<T>* target = (Pack<T>*)(out + blockIdx.x * (size_t)n);
    Pack<T> kept[PACKS];
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int i = p * blockDim.x + threadIdx.x;
        if (i < packs) {
            kept[p] = row[i];
            for (int j = 0; j < width; j++) {
                float value = (float)kept[p].value[j];
                sum += value * value;
            }
        }
    }
    float scale = rsqrtf(block_sum(sum) / n + eps);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int i = p * blockDim.x + threadIdx.x;
        if (i < packs) {
            Pack<T> w = factor[i];
            for (int j = 0; j < width; j++)
                w.value[j] = (T)((float)kept[p].value[j] * scale * (float)w.value[j]);
            target[i] = w;
        }
    }
}

template <typename T>
cudaError_t launch(const void* x, const void* weight, void* out, int rows, int n, float eps,
                   bool vector, cudaStream_t stream) {
    const T *a = (const T*)x, *w = (const T*)weight;
    T* o = (T*)out;
    int packs = n / Pack<T>::count;
    if (!vector) {
        rms_norm_plain<T><<<rows, 256, 0, stream>>>(a, w, o, n, eps);
    } else {
        int per_thread = packs <= 1024 ? 1 : packs <= 2048 ? 2 : 4;
        int threads = ((packs + per_thread - 1) / per_thread + 31) / 32 * 32;
        if (n % Pack<T>::count != 0 || threads > 1024) return cudaErrorInvalidValue;
        if (per_thread == 1)
            rms_norm_vector<T, 1><<<rows, threads, 0, stream>>>(a, w, o, n, eps);
        else if (per_thread == 2)
            rms_norm_vector<T, 2><<<rows, threads, 0, stream>>>(a, w, o, n, eps);
        else
            rms_norm_vector<T, 4><<<rows, threads, 0, stream>>>(a, w, o, n, eps);
    }
    return cudaGetLastError();
}

// What Python calls. kind: 0 float32, 1 float16, 2 bfloat16. Returns a cudaError_t, 0 for success.
extern "C" int infero_rms_norm(const void* x, const void* weight, void* out, int rows, int n,
                               float eps, int kind, int vector, cudaStream_t stream) {
    if (rows == 0) return 0;
    if (kind == 0) return launch<float>(x, weight, out, rows, n, eps, vector, stream);
    if (kind == 1) return launch<__half>(x, weight, out, rows, n, eps, vector, stream);
    return launch<__nv_bfloat16>(x, weight, out, rows, n, eps, vector, stream);
}
