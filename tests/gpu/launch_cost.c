/* What a launch costs: issue time on the application thread, end to end per launch in a long stream, and launch + sync.
 * `hook_ns` is what the entry point that the program gets adds to the driver's own, found in its symbol table and called in alternation: what
 * local mode costs. It means nothing where calls are forwarded, so there it is 0.
 *
 * Reaches the driver as frameworks do: dlopen, dlsym, cuGetProcAddress_v2. Prints one JSON line. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int (*resolve_t)(const char *, void **, int, unsigned long long, int *);
static resolve_t resolve;

static void *driver(const char *name) {
    void *function = NULL;
    int status = 0;
    if (resolve(name, &function, 13000, 0, &status) != 0 || !function) {
        fprintf(stderr, "cannot resolve %s\n", name);
        exit(1);
    }
    return function;
}

/* The driver's own function, past every interposition; NULL where its symbol table is not as expected. */
static void *own(void *library, const char *name) {
    struct link_map *map;
    const Elf64_Sym *symbols = NULL;
    const char *names = NULL;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0)
        return NULL;
    for (const Elf64_Dyn *entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SYMTAB)
            symbols = (const Elf64_Sym *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_STRTAB)
            names = (const char *)entry->d_un.d_ptr;
    }
    /* By convention the string table follows the symbols. */
    for (const Elf64_Sym *symbol = symbols; symbol && (const char *)symbol < names; symbol++)
        if (symbol->st_value && strcmp(names + symbol->st_name, name) == 0)
            return (char *)map->l_addr + symbol->st_value;
    return NULL;
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, count, sizeof *values, ascending);
    return values[count / 2];
}

static void check(int code, const char *what) {
    if (code != 0) {
        fprintf(stderr, "%s failed: %d\n", what, code);
        exit(1);
    }
}

static const char ptx[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
                          ".visible .entry empty(.param .u64 a, .param .u32 b) { ret; }\n";

enum { ROUNDS = 21, BURST = 1000, STREAM = 20000, SYNCS = 500 };

int main(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    resolve = (resolve_t)dlsym(library, "cuGetProcAddress_v2");
    int (*init)(unsigned) = driver("cuInit");
    int (*retain)(void **, int) = driver("cuDevicePrimaryCtxRetain");
    int (*current)(void *) = driver("cuCtxSetCurrent");
    int (*load)(void **, const void *) = driver("cuModuleLoadData");
    int (*get)(void **, void *, const char *) = driver("cuModuleGetFunction");
    int (*stream_create)(void **, unsigned) = driver("cuStreamCreate");
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                  void **) = driver("cuLaunchKernel");
    int (*sync)(void *) = driver("cuStreamSynchronize");
    int (*query)(void *) = driver("cuStreamQuery");
    int (*event_create)(void **, unsigned) = driver("cuEventCreate");
    int (*record)(void *, void *) = driver("cuEventRecord");
    int (*event_query)(void *) = driver("cuEventQuery");
    void *context, *module, *function, *stream, *event;
    check(init(0), "cuInit");
    check(retain(&context, 0), "cuDevicePrimaryCtxRetain");
    check(current(context), "cuCtxSetCurrent");
    check(load(&module, ptx), "cuModuleLoadData");
    check(get(&function, module, "empty"), "cuModuleGetFunction");
    check(stream_create(&stream, 1), "cuStreamCreate");
    check(event_create(&event, 2), "cuEventCreate");
    unsigned long long a = 1;
    unsigned b = 2;
    void *params[] = {&a, &b};
    for (int i = 0; i < 2000; i++)
        check(launch(function, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL), "cuLaunchKernel");
    check(sync(stream), "cuStreamSynchronize");

    double issue[ROUNDS], each[ROUNDS], both[ROUNDS], queries[ROUNDS], events[ROUNDS], records[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        double start = now_ns();
        for (int i = 0; i < BURST; i++)
            launch(function, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
        issue[r] = (now_ns() - start) / BURST;
        check(sync(stream), "cuStreamSynchronize");
        start = now_ns();
        for (int i = 0; i < STREAM; i++)
            launch(function, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
        check(sync(stream), "cuStreamSynchronize");
        each[r] = (now_ns() - start) / STREAM;
        double single[SYNCS];
        for (int i = 0; i < SYNCS; i++) {
            start = now_ns();
            launch(function, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
            sync(stream);
            single[i] = now_ns() - start;
        }
        both[r] = median(single, SYNCS);
        start = now_ns();
        for (int i = 0; i < BURST; i++)
            query(stream);
        queries[r] = (now_ns() - start) / BURST;
        start = now_ns();
        for (int i = 0; i < BURST; i++)
            record(event, stream);
        records[r] = (now_ns() - start) / BURST;
        check(sync(stream), "cuStreamSynchronize");
        start = now_ns();
        for (int i = 0; i < BURST; i++)
            event_query(event);
        events[r] = (now_ns() - start) / BURST;
    }
    const char *mode = getenv("LIGHTOS_DISPATCH");
    int (*bare)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                void **) = own(library, "cuLaunchKernel");
    double added = 0;
    if (bare && mode && strcmp(mode, "local") == 0) {
        double hooked[ROUNDS * 20], plain[ROUNDS * 20];
        for (int r = 0; r < ROUNDS * 20; r++) {
            for (int which = 0; which < 2; which++) {
                double start = now_ns();
                for (int i = 0; i < 100; i++)
                    (which ? bare : launch)(function, 1, 1, 1, 32, 1, 1, 0, stream, params, NULL);
                (which ? plain : hooked)[r] = (now_ns() - start) / 100;
                check(sync(stream), "cuStreamSynchronize");
            }
        }
        added = median(hooked, ROUNDS * 20) - median(plain, ROUNDS * 20);
    }
    printf("{\"hook_ns\": %.1f, \"issue_ns\": %.1f, \"end_to_end_ns\": %.1f, \"launch_sync_ns\": %.1f, \"stream_query_ns\": %.1f, "
           "\"event_record_ns\": %.1f, \"event_query_ns\": %.1f}\n",
           added, median(issue, ROUNDS), median(each, ROUNDS), median(both, ROUNDS), median(queries, ROUNDS),
           median(records, ROUNDS), median(events, ROUNDS));
    return 0;
}
