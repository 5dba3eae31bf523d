"""Programs that ask CUPTI for records of the device: told once where kernels run in the executor, and carried where CUPTI can see them."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap

import pytest

from test_clients import HERE, SOFTGPU, run, shimmed

# A CUPTI that counts: each function answers with a number made of its arguments.
CUPTI = """
    static int enabled, subscribed;
    int cuptiActivityEnable(unsigned kind) { enabled++; return 1000 + kind; }
    int cuptiActivityEnableContext(void *context, unsigned kind) { enabled++; return context ? 2000 + kind : 1; }
    int cuptiActivityEnable_v2(void *subscriber, unsigned kind, void *config) { enabled++; return subscriber && !config ? 3000 + kind : 1; }
    int cuptiActivityRegisterCallbacks(void *request, void *complete) { return 0; }
    int cuptiSubscribe(void **subscriber, void *callback, void *data) { subscribed++; *subscriber = data; return 0; }
    int cupti_calls(void) { return 100 * subscribed + enabled; }
"""
# What profilers do first, and what libraries do to see whether CUPTI works, is no wish for records yet.
PROGRAM = """
    #ifdef LINKED
    int cuptiActivityEnable(unsigned), cuptiActivityEnableContext(void *, unsigned), cuptiActivityRegisterCallbacks(void *, void *);
    int cuptiSubscribe(void **, void *, void *), cupti_calls(void);
    #define FIND(name) name
    #else
    static void *cupti;
    #define FIND(name) ((int (*)())dlsym(cupti, #name))
    #endif
    static void subscribe(void) {
        void *subscriber;
        OK(FIND(cuptiSubscribe)(&subscriber, (void *)0, (void *)5));
        OK(FIND(cuptiActivityRegisterCallbacks)((void *)0, (void *)0));
        CHECK(FIND(cuptiActivityEnable)(4) == 1004 && FIND(cuptiActivityEnable)(5) == 1005);
    }
    static void enable(void) {
        CHECK(FIND(cuptiActivityEnable)(1) == 1001 && FIND(cuptiActivityEnable)(10) == 1010);
        CHECK(FIND(cuptiActivityEnableContext)((void *)7, 10) == 2010);
    #ifndef LINKED
        CHECK(FIND(cuptiActivityEnable_v2)((void *)7, 10, (void *)0) == 3010);
    #endif
    }
    int main(int count, char **words) {
        const char *when = words[1];
    #ifndef LINKED
        CHECK(cupti = dlopen(words[2], RTLD_NOW | RTLD_LOCAL));
    #endif
        subscribe();
        if (!strcmp(when, "early")) enable();
        OK(cuInit(0));
        OK(cuDevicePrimaryCtxRetain(&context, 0));
        if (!strcmp(when, "before memory")) enable();
        device();
        if (!strcmp(when, "late")) enable();
        OK(launch(add, 0));
        if (!strcmp(when, "late")) enable();
        printf("%d %u\\n", FIND(cupti_calls)(), value());
        return 0;
    }
"""
LINE = "lightos: CUPTI sees no kernels of this program, because they run in LightOS's executor; run it with LIGHTOS_DISPATCH=local to profile it\n"


@pytest.fixture(scope="module", params=["linked", "opened"])
def program(request, tmp_path_factory):
    """The command of the program, which is linked with CUPTI or opens it, and what it answers by when it enables records."""
    folder = tmp_path_factory.mktemp(request.param)
    cupti, source, out = folder / "libcupti.so.12", folder / "program.c", folder / "program"
    (folder / "cupti.c").write_text(textwrap.dedent(CUPTI))
    subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{cupti.name}", "-o", cupti, folder / "cupti.c"], check=True)
    source.write_text('#include "life.h"\n' + textwrap.dedent(PROGRAM))
    linked = ["-DLINKED", f"-L{folder}", "-l:libcupti.so.12", f"-Wl,-rpath,{folder}"] if request.param == "linked" else []
    subprocess.run(["cc", "-g", "-pthread", f"-I{HERE}", "-w", "-o", out, source, *linked, f"-L{SOFTGPU}", "-l:libcuda.so.1"], check=True)
    each = 3 if linked else 4
    calls = {"never": 0, "early": each, "before memory": each, "late": 2 * each}
    return lambda when: ([str(out), when, str(cupti)], f"{102 + calls[when]} 1\n")


def reported(command: list[str], mode: str, folder):
    report = folder / "report.json"
    done = shimmed(command, report, mode)
    assert done.returncode == 0, done.stderr
    return done, json.loads(report.read_text())["tenants"]


@pytest.mark.parametrize("when", ["never", "early", "before memory", "late"])
def test_natively_and_in_local_mode_nothing_is_said(program, when, tmp_path):
    command, answer = program(when)
    native = run(command)
    assert (native.returncode, native.stdout, native.stderr) == (0, answer, "")
    done, tenants = reported(command, "local", tmp_path)
    assert (done.stdout, done.stderr) == (answer, "")
    assert [tenant["mode"] for tenant in tenants] == ["local"]


@pytest.mark.parametrize("when", ["early", "before memory", "late"])
def test_a_profiler_that_sees_no_kernels_is_told_once(program, when, tmp_path):
    command, answer = program(when)
    done, (tenant,) = reported(command, "sidecar", tmp_path)
    assert (done.stdout, done.stderr) == (answer, LINE)
    assert tenant["mode"] == "sidecar" and tenant["launches"] == 1 and tenant["reasons"]["Profiler"] >= 1


def test_a_probe_of_cupti_is_no_profiler(program, tmp_path):
    command, answer = program("never")
    for mode in ("sidecar", "auto"):
        done, (tenant,) = reported(command, mode, tmp_path)
        assert (done.stdout, done.stderr) == (answer, "")
        assert tenant["mode"] == "sidecar" and "Profiler" not in tenant["reasons"]


@pytest.mark.parametrize("when, modes", [("early", ["local"]), ("before memory", ["sidecar", "local"])])
def test_auto_turns_local_for_a_profiler_that_comes_before_memory(program, when, modes, tmp_path):
    command, answer = program(when)
    done, tenants = reported(command, "auto", tmp_path)
    assert (done.stdout, done.stderr) == (answer, "")
    assert [tenant["mode"] for tenant in tenants] == modes and tenants[-1]["launches"] == 1


def test_auto_tells_a_profiler_that_comes_too_late(program, tmp_path):
    command, answer = program("late")
    done, (tenant,) = reported(command, "auto", tmp_path)
    assert (done.stdout, done.stderr, tenant["mode"]) == (answer, LINE, "sidecar")


def test_without_a_sidecar_a_profiler_sees_everything(program):
    """Nobody listens: the program is native, and has one line about that alone."""
    command, answer = program("late")
    done = run(["env", "LIGHTOS_SOCKET=/nonexistent/socket", f"LD_PRELOAD={os.environ['LIGHTOS_INTERCEPT']}", *command])
    assert (done.returncode, done.stdout) == (0, answer)
    assert done.stderr.count("\n") == 1 and "no sidecar" in done.stderr
