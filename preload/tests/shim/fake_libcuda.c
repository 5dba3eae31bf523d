/* A driver with nothing behind it: enough entry points to see which ones a look-up reaches. Each returns a number of its own
   through its result, so that a test can tell the real function from a hook that refuses it. */
#include <stddef.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

static int initialised;

EXPORT int cuInit(unsigned flags) { if (flags) return 1; initialised = 1; return 0; }
EXPORT int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
EXPORT int cuDeviceGet(int *device, int ordinal) { if (!initialised) return 3; *device = ordinal; return 0; }
EXPORT int cuDeviceGetUuid_v2(char *uuid, int device) { (void)device; memset(uuid, 7, 16); return 0; }
EXPORT int cuCtxGetCurrent(void **context) { *context = (void *)16; return 0; }
EXPORT int cuCtxGetDevice(int *device) { *device = 0; return 0; }
EXPORT int cuCtxSetCurrent(void *context) { return context ? 0 : 2001; }
EXPORT int cuMemAddressReserve(unsigned long long *address, size_t bytes, size_t align, unsigned long long hint, unsigned long long flags)
{ (void)bytes; (void)align; (void)flags; *address = hint; return 0; }
EXPORT int cuMemAddressFree(unsigned long long address, size_t bytes) { (void)address; (void)bytes; return 0; }

/* Served or refused under a session; natively each argument must arrive, those on the stack and in vector registers too. */
EXPORT int cuMemcpyAtoA_v2(void *d, size_t dofs, void *s, size_t sofs, size_t bytes)
{ return d == (void *)1 && dofs == 2 && s == (void *)3 && sofs == 4 && bytes == 5 ? 2002 : 1; }
EXPORT int cuParamSetf(void *function, int offset, float value) { return function == (void *)1 && offset == 8 && value == 1.5f ? 2006 : 1; }
EXPORT int cuTexRefSetMipmapLevelBias(void *ref, float bias) { return ref == (void *)1 && bias == 2.5f ? 2003 : 1; }
EXPORT int cuMemBatchDecompressAsync(long a, long b, long c, long d, long e, long f, long g, long h, long i)
{ return a == 1 && b == 2 && c == 3 && d == 4 && e == 5 && f == 6 && g == 7 && h == 8 && i == 9 ? 2004 : 1; }

/* A function that no hook knows. */
EXPORT int cuFutureFunction(int six) { return six == 6 ? 2005 : 1; }

/* Two versions and a per-thread variant of hooked functions. */
EXPORT int cuCtxCreate_v2(void **context, unsigned flags, int device) { (void)context; (void)flags; (void)device; return 2006; }
EXPORT int cuCtxCreate_v4(void **context, void *params, unsigned flags, int device) { (void)context; (void)params; (void)flags; (void)device; return 2007; }
static int create_v99(int three) { return three == 3 ? 2010 : 1; }
EXPORT int cuStreamBatchMemOp_v2(void) { return 2008; }
EXPORT int cuStreamBatchMemOp_v2_ptsz(void) { return 2009; }

EXPORT int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags);
EXPORT int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, unsigned *status);

static void *find(const char *name, int version, unsigned long long flags)
{
    if (!strcmp(name, "cuInit")) return cuInit;
    if (!strcmp(name, "cuDeviceGet")) return cuDeviceGet;
    if (!strcmp(name, "cuFutureFunction")) return cuFutureFunction;
    if (!strcmp(name, "cuCtxCreate")) return version >= 99000 ? (void *)create_v99 : version >= 13000 ? (void *)cuCtxCreate_v4 : (void *)cuCtxCreate_v2;
    if (!strcmp(name, "cuStreamBatchMemOp")) return flags & 2 ? cuStreamBatchMemOp_v2_ptsz : cuStreamBatchMemOp_v2;
    if (!strcmp(name, "cuGetProcAddress")) return version >= 12000 ? (void *)cuGetProcAddress_v2 : (void *)cuGetProcAddress;
    return 0;
}

EXPORT int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags)
{
    void *found = find(name, version, flags);
    if (!found) return 500;
    *function = found;
    return 0;
}

EXPORT int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, unsigned *status)
{
    void *found = find(name, version, flags);
    *function = found;
    if (status) *status = found ? 0 : 1;
    return found ? 0 : 500;
}
