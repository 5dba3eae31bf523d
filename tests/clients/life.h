/* What the C programs of test_processes.py share: the driver API, and a device that is ready. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif
typedef unsigned long long Address;
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuCtxGetCurrent(void **);
int cuCtxSynchronize(void);
int cuMemAlloc_v2(Address *, size_t);
int cuMemFree_v2(Address);
int cuMemsetD32_v2(Address, unsigned, size_t);
int cuMemcpyDtoH_v2(void *, Address, size_t);
int cuModuleLoadData(void **, const void *);
int cuModuleGetFunction(void **, void *, const char *);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
int cuStreamSynchronize(void *);
#ifdef __cplusplus
}
#endif

#define CHECK(condition) \
    do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, #condition); _exit(99); } } while (0)
#define OK(call) CHECK((call) == 0)

static void *context, *add, *busy;
static Address cell;

static const char PTX[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry add(.param .u64 cell) {\n.reg .b64 %rd<2>; .reg .b32 %r<2>;\n"
    "ld.param.u64 %rd1, [cell]; atom.global.add.u32 %r1, [%rd1], 1; ret; }\n"
    ".visible .entry busy(.param .u64 cell) {\n.reg .b64 %rd<2>; .reg .b32 %r<2>; .reg .pred %p;\n"
    "ld.param.u64 %rd1, [cell]; mov.u32 %r1, 0;\n"
    "AGAIN: add.u32 %r1, %r1, 1; setp.lt.u32 %p, %r1, 10000000; @%p bra AGAIN; st.global.u32 [%rd1], %r1; ret; }\n";

static inline void device(void) {
    void *module;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    OK(cuModuleLoadData(&module, PTX));
    OK(cuModuleGetFunction(&add, module, "add"));
    OK(cuModuleGetFunction(&busy, module, "busy"));
    OK(cuMemAlloc_v2(&cell, 4096));
    OK(cuMemsetD32_v2(cell, 0, 1024));
}

static inline int launch(void *function, void *stream) {
    void *parameters[] = {&cell};
    return cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, 0);
}

static inline unsigned value(void) {
    unsigned word = 0;
    OK(cuMemcpyDtoH_v2(&word, cell, 4));
    return word;
}
