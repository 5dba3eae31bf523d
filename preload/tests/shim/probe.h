/* What the probe programs share. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition) do { if (!(condition)) { \
    printf("line %d: %s\n", __LINE__, #condition); fflush(stdout); _exit(1); } } while (0)

/* Whether an address lies in the shim. */
static inline int ours(void *address)
{
    Dl_info info;
    return address && dladdr(address, &info) && strstr(info.dli_fname, "liblightos_intercept.so");
}

typedef int (*Init)(unsigned);
typedef int (*GetProcAddress)(const char *, void **, int, unsigned long long);
typedef int (*GetProcAddress2)(const char *, void **, int, unsigned long long, unsigned *);
typedef int (*AtoA)(void *, size_t, void *, size_t, size_t);
typedef int (*Bias)(void *, float);
typedef int (*Param)(void *, int, float);
typedef int (*Batch)(long, long, long, long, long, long, long, long, long);
