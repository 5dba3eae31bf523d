/* Questions that the design asks of a real driver, one line each; run natively, without the preload.
 *
 *     cc -O1 -o probe tests/gpu/probe.c -ldl && ./probe tests/fixtures/exports/libcuda-580.159.txt
 *
 * Needs libcuda.so.1 only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
typedef uint64_t u64;
typedef uint32_t u32;
typedef void *P;
static void *lib;
#define F(name, ...) ((u32 (*)(__VA_ARGS__))dlsym(lib, #name))
#define MUST(x)                                                                                                        \
    do {                                                                                                               \
        u32 r_ = (x);                                                                                                  \
        if (r_) {                                                                                                      \
            printf("FAILED %s -> %u\n", #x, r_);                                                                       \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)
static double us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}
static const char PTX[] = ".version 7.8\n.target sm_80\n.address_size 64\n.visible .global .align 4 .u32 word = 7;\n"
                          ".visible .entry spin(.param .u64 ns){ .reg .pred p; .reg .u64 a,b,c; ld.param.u64 c,[ns]; "
                          "mov.u64 a,%globaltimer;\n"
                          "L: mov.u64 b,%globaltimer; sub.u64 b,b,a; setp.lt.u64 p,b,c; @p bra L; ret; }\n"
                          ".visible .entry none(){ ret; }\n";
static void arena(const char *when) {
    for (int shift = 40; shift <= 44; shift += 2) {
        u64 got = 0;
        double t = us();
        u32 r = F(cuMemAddressReserve, u64 *, size_t, size_t, u64, u64)(&got, (size_t)1 << shift, 0, 0x300000000000, 0);
        printf("reserve %3d TiB %s context: result %u, at hint %d, %.0f us\n", 1 << (shift - 40), when, r,
               got == 0x300000000000, us() - t);
        if (!r)
            F(cuMemAddressFree, u64, size_t)(got, (size_t)1 << shift);
    }
}
int main(int argc, char **argv) {
    lib = dlopen("libcuda.so.1", RTLD_NOW);
    if (!lib) {
        puts(dlerror());
        return 1;
    }
    double t = us();
    MUST(F(cuInit, u32)(0));
    printf("cuInit %.0f ms\n", (us() - t) / 1e3);
    arena("without");
    P ctx;
    t = us();
    MUST(F(cuDevicePrimaryCtxRetain, P *, int)(&ctx, 0));
    MUST(F(cuCtxSetCurrent, P)(ctx));
    printf("primary context %.0f ms\n", (us() - t) / 1e3);
    arena("with");
    int mode = -1;
    F(cuDeviceGetAttribute, int *, u32, int)(&mode, 20, 0);
    printf("compute mode %d (0 = shared)\n", mode);

    // Big physical memory: create, export, map.
    {
        struct {
            u32 type, handles, loc, id;
            P meta;
            unsigned char flags[8];
        } prop = {1, 1, 1, 0, 0, {0}};
        u64 h = 0;
        size_t bytes = (size_t)64 << 30;
        t = us();
        u32 r = F(cuMemCreate, u64 *, size_t, P, u64)(&h, bytes, &prop, 0);
        printf("cuMemCreate 64 GiB, exportable: %u, %.0f ms\n", r, (us() - t) / 1e3);
        if (!r) {
            t = us();
            F(cuMemRelease, u64)(h);
            printf("release %.0f ms\n", (us() - t) / 1e3);
        }
        prop.handles = 9;
        r = F(cuMemCreate, u64 *, size_t, P, u64)(&h, 2 << 20, &prop, 0);
        printf("cuMemCreate with POSIX_FD|FABRIC: %u\n", r);
        if (!r)
            F(cuMemRelease, u64)(h);
    }

    // Pinned shared memory.
    size_t pinned_bytes = (size_t)1 << 30;
    int fd = memfd_create("probe", 0);
    if (ftruncate(fd, pinned_bytes))
        return 1;
    char *pinned =
        mmap((void *)0x2e0000000000, pinned_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    t = us();
    u32 r = F(cuMemHostRegister_v2, P, size_t, u32)(pinned, pinned_bytes, 3);
    u64 dp = 0;
    F(cuMemHostGetDevicePointer_v2, u64 *, P, u32)(&dp, pinned, 0);
    printf("register 1 GiB of memfd at 0x2e00..: %u, device pointer equal %d, %.0f ms\n", r, dp == (u64)pinned,
           (us() - t) / 1e3);
    volatile u32 *words = (volatile u32 *)pinned;

    P mod, spin, none;
    u64 global;
    size_t global_bytes;
    MUST(F(cuModuleLoadData, P *, const void *)(&mod, PTX));
    MUST(F(cuModuleGetFunction, P *, P, const char *)(&spin, mod, "spin"));
    MUST(F(cuModuleGetFunction, P *, P, const char *)(&none, mod, "none"));
    MUST(F(cuModuleGetGlobal_v2, u64 *, size_t *, P, const char *)(&global, &global_bytes, mod, "word"));
    printf("module global at %#lx, a library at %p (run under `ulimit -s unlimited` too)\n", (long)global,
           dlsym(lib, "cuInit"));
    u64 mem;
    t = us();
    MUST(F(cuMemAlloc_v2, u64 *, size_t)(&mem, 1 << 20));
    printf("cuMemAlloc address %#lx\n", (long)mem);
    P a, b;
    MUST(F(cuStreamCreate, P *, u32)(&a, 0));
    MUST(F(cuStreamCreate, P *, u32)(&b, 1));
#define LAUNCH(f, st, par)                                                                                             \
    F(cuLaunchKernel, P, u32, u32, u32, u32, u32, u32, u32, P, P *, P *)(f, 1, 1, 1, 1, 1, 1, 0, st, par, 0)
#define WRITE(st, i, v) F(cuStreamWriteValue32_v2, P, u64, u32, u32)(st, (u64) & words[i], v, 0)
    u64 ns = 200000000;
    P par[] = {&ns};
    MUST(LAUNCH(none, 0, 0));
    MUST(F(cuCtxSynchronize, void)());

    // Does a write on the legacy stream wait for a blocking stream?
    MUST(LAUNCH(spin, a, par));
    t = us();
    MUST(WRITE(0, 1, 1));
    double issue = us() - t;
    while (words[1] != 1 && us() - t < 2e6) {
    }
    printf("write-value on legacy stream behind 200 ms on a blocking stream: issued in %.0f us, written after %.0f us "
           "(want ~200000)\n",
           issue, us() - t);
    F(cuCtxSynchronize, void)();
    MUST(LAUNCH(spin, 0, par));
    t = us();
    MUST(WRITE(a, 2, 1));
    while (words[2] != 1 && us() - t < 2e6) {
    }
    printf("write-value on a blocking stream behind 200 ms on the legacy stream: after %.0f us (want ~200000)\n",
           us() - t);
    F(cuCtxSynchronize, void)();

    // Do small pageable copies behind a busy stream return at once, and how many?
    {
        char *page = malloc(32 << 10);
        memset(page, 1, 32 << 10);
        MUST(LAUNCH(spin, b, par));
        t = us();
        double worst = 0;
        for (int i = 0; i < 64; i++) {
            double s = us();
            MUST(F(cuMemcpyHtoDAsync_v2, u64, P, size_t, P)(mem, page, 32 << 10, b));
            if (us() - s > worst)
                worst = us() - s;
        }
        printf("64 pageable 32 KiB async copies behind 200 ms: worst call %.0f us, all %.0f us (a block shows as "
               "~200000)\n",
               worst, us() - t);
        F(cuCtxSynchronize, void)();
    }
    // Copy, then word: is the data there when the word is?
    {
        int bad = 0;
        u32 *dst = (u32 *)(pinned + (64 << 20));
        for (u32 i = 1; i <= 2000; i++) {
            F(cuMemsetD32Async, u64, u32, size_t, P)(mem, i, 1 << 18, b);
            F(cuMemcpyDtoHAsync_v2, P, u64, size_t, P)(dst, mem, 1 << 20, b);
            WRITE(b, 3, i);
            while (words[3] != i) {
            }
            if (dst[0] != i || dst[(1 << 18) - 1] != i)
                bad++;
        }
        printf("2000 x copy 1 MiB then word: %d times the data was late (want 0)\n", bad);
    }
    // Launch + word round trip.
    {
        t = us();
        for (u32 i = 1; i <= 10000; i++) {
            LAUNCH(none, b, 0);
            WRITE(b, 4, i);
            while (words[4] != i) {
            }
        }
        printf("launch + word: %.2f us", (us() - t) / 1e4);
        t = us();
        for (int i = 0; i < 10000; i++) {
            LAUNCH(none, b, 0);
            F(cuStreamSynchronize, P)(b);
        }
        printf(", launch + cuStreamSynchronize: %.2f us\n", (us() - t) / 1e4);
    }

    // Captured node of a library's kernel: handles and attributes that are not all zero.
    {
        P l, k;
        MUST(F(cuLibraryLoadData, P *, const void *, P, P, u32, P, P, u32)(&l, PTX, 0, 0, 0, 0, 0, 0));
        MUST(F(cuLibraryGetKernel, P *, P, const char *)(&k, l, "spin"));
        P kf = 0, km = 0, lm = 0;
        F(cuKernelGetFunction, P *, P)(&kf, k);
        F(cuFuncGetModule, P *, P)(&km, kf);
        F(cuLibraryGetModule, P *, P)(&lm, l);
        printf("CUkernel %p, its CUfunction %p, cuFuncGetModule %p, cuLibraryGetModule %p\n", k, kf, km, lm);
        P g, node;
        size_t n = 1;
        MUST(F(cuStreamBeginCapture_v2, P, u32)(b, 2));
        MUST(LAUNCH(k, b, par));
        MUST(F(cuStreamEndCapture, P, P *)(b, &g));
        MUST(F(cuGraphGetNodes, P, P *, size_t *)(g, &node, &n));
        struct {
            P func;
            u32 dims[7];
            P *params, *extra;
            P kern, ctx;
        } np = {0};
        MUST(F(cuGraphKernelNodeGetParams_v2, P, P)(node, &np));
        printf("captured node: func %p kern %p ctx %p params %p extra %p\n", np.func, np.kern, np.ctx, np.params,
               np.extra);
        for (u32 id = 1; id <= 16; id++) {
            _Alignas(8) u32 v[16] = {0};
            u32 r = F(cuGraphKernelNodeGetAttribute, P, u32, P)(node, id, v);
            int any = 0;
            for (int i = 0; i < 16; i++)
                any |= v[i];
            if (!r && any)
                printf("  attribute %u default: %x %x %x %x, set again: %u\n", id, v[0], v[1], v[2], v[3],
                       F(cuGraphKernelNodeSetAttribute, P, u32, P)(node, id, v));
        }
    }

    // cuGetProcAddress against dlsym, and aliases.
    if (argc > 1) {
        static char names[2048][96];
        static P at[2048];
        int n = 0, differ = 0;
        FILE *f = fopen(argv[1], "r");
        char line[256];
        while (f && n < 2048 && fgets(line, sizeof line, f)) {
            char nm[96];
            if (sscanf(line, "%95s", nm) == 1 && !strncmp(nm, "cu", 2) && nm[2] >= 'A' && nm[2] <= 'Z' &&
                (at[n] = dlsym(lib, nm)))
                strcpy(names[n++], nm);
        }
        for (int i = 0; i < n; i++)
            for (int j = i + 1; j < n; j++)
                if (at[i] == at[j])
                    printf("  alias %s = %s\n", names[i], names[j]);
        for (int flag = 1; flag <= 2; flag++)
            for (int i = 0; i < n; i++) {
                P p = 0;
                u32 st = 0;
                if (strchr(names[i], '_'))
                    continue;
                if (F(cuGetProcAddress_v2, const char *, P *, int, u64, u32 *)(names[i], &p, 13000, flag, &st) || !p)
                    continue;
                int hit = 0;
                for (int j = 0; j < n; j++)
                    hit |= at[j] == p;
                if (!hit) {
                    differ++;
                    printf("  cuGetProcAddress(%s, flag %d) = %p is no exported address\n", names[i], flag, p);
                }
            }
        printf("%d names, %d look-ups that match no exported address (want 0)\n", n, differ);
    }
    return 0;
}
