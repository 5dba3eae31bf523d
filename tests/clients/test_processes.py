"""How processes live and end: each program has the same outcome natively and under LightOS, in either mode."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from test_clients import HERE, SOFTGPU, run, shimmed

MODES = ("sidecar", "local")


def status(code: int) -> int:
    """`lightos run` says how a program ended as shells do."""
    return 128 - code if code < 0 else code


def same(command: list[str], stderr: bool = True):
    """The native run, after those under LightOS have been found equal. Without `stderr` what is printed there may differ."""
    native = run(command)
    want = status(native.returncode), native.stdout, native.stderr if stderr else ""
    for mode in MODES:
        ours = shimmed(command, mode=mode)
        assert (ours.returncode, ours.stdout, ours.stderr if stderr else "") == want, (mode, ours.stderr)
    return native


def python(program: str, *arguments: str) -> list[str]:
    return ["python3", "-c", "from tiny import *\nimport os, sys, signal, threading, time\n" + textwrap.dedent(program), *arguments]


@pytest.fixture
def compiled(tmp_path):
    def build(body: str, name: str = "program", language: str = "c", extra: tuple[str, ...] = ()) -> str:
        source, out = tmp_path / f"{name}.{'c' if language == 'c' else 'cpp'}", tmp_path / name
        source.write_text('#include "life.h"\n' + textwrap.dedent(body))
        compiler = "cc" if language == "c" else "c++"
        subprocess.run([compiler, "-g", "-pthread", f"-I{HERE}", "-Wno-unused", "-o", out, source, f"-L{SOFTGPU}", "-l:libcuda.so.1", *extra], check=True)
        return str(out)

    return build


class TestChildren:
    def test_children_of_a_cuda_process(self):
        """vfork with exec, posix_spawn and system(): the children use the device, the parent goes on, and nobody else is its child."""
        done = same(python("""
            import subprocess
            gpu = Tiny()
            gpu.count()
            print(subprocess.run(["python3", "tiny.py"], capture_output=True, text=True).stdout, end="", flush=True)
            pid = os.posix_spawnp("python3", ["python3", "tiny.py"], os.environ)
            print(os.waitpid(pid, 0)[1], flush=True)
            print(os.system("python3 tiny.py"), flush=True)
            gpu.count()
            print(gpu.read())
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                print("no other child")
        """))
        assert done.stdout == "3\n3\n0\n3\n0\n2\nno other child\n"

    def test_exec_while_threads_launch(self):
        done = same(python("""
            gpu = Tiny()
            def work():
                gpu.enter()
                while True:
                    gpu.count()
                    gpu.synchronize()
            for _ in range(4):
                threading.Thread(target=work, daemon=True).start()
            time.sleep(0.2)
            os.execvp("python3", ["python3", "tiny.py"])
        """))
        assert done.stdout == "3\n"

    def test_fork_while_another_thread_launches(self):
        """The children never touch CUDA, and end in every way that ends a process without an exec."""
        done = same(python("""
            gpu = Tiny()
            stop = threading.Event()
            launched = 0
            def work():
                global launched
                gpu.enter()
                while not stop.is_set():
                    assert gpu.count() == 0
                    launched += 1
                    if launched % 16 == 0:
                        assert gpu.synchronize() == 0
            thread = threading.Thread(target=work)
            thread.start()
            codes = []
            for i in range(20):
                pid = os.fork()
                if pid == 0:
                    if i % 2:
                        os._exit(i)
                    os.kill(os.getpid(), signal.SIGKILL)
                codes.append(os.waitpid(pid, 0)[1])
            stop.set()
            thread.join()
            print(codes, launched > 0, gpu.read() == launched)
        """))
        assert done.stdout.endswith("True True\n")

    def test_child_that_exits_after_cuda(self):
        """The child of a fork runs the exit handlers of its parent: none of ours waits there for a device that is not its own."""
        done = same(python("""
            import atexit
            atexit.register(lambda: print("handler", flush=True))
            gpu = Tiny()
            gpu.busy()
            pid = os.fork()
            if pid == 0:
                sys.exit(3)
            print(os.waitpid(pid, 0)[1] >> 8, gpu.synchronize(), flush=True)
        """))
        assert done.stdout == "handler\n3 0\nhandler\n"

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_multiprocessing(self, method, tmp_path):
        """Workers of their own with the device, beside a parent that uses it."""
        script = tmp_path / "main.py"
        script.write_text(textwrap.dedent(f"""
            import multiprocessing, sys
            sys.path.insert(0, {str(HERE)!r})
            from tiny import Tiny, works
            def work(index):
                return index, works()
            if __name__ == "__main__":
                gpu = Tiny()
                gpu.count()
                with multiprocessing.get_context({method!r}).Pool(2) as pool:
                    print(pool.map(work, range(4)))
                gpu.count()
                print(gpu.read())
        """))
        assert same(["python3", str(script)]).stdout == "[(0, 3), (1, 3), (2, 3), (3, 3)]\n2\n"

    def test_data_loader(self, tmp_path):
        """Forked workers that never touch CUDA hand arrays to a parent that does."""
        script = tmp_path / "main.py"
        script.write_text(textwrap.dedent(f"""
            import multiprocessing, sys
            sys.path.insert(0, {str(HERE)!r})
            from tiny import Tiny
            def load(index):
                return sum(range(index * 1000))
            if __name__ == "__main__":
                gpu = Tiny()
                for _ in range(2):
                    with multiprocessing.get_context("fork").Pool(3) as pool:
                        for item in pool.imap(load, range(12)):
                            assert gpu.count() == 0
                            print(item)
                    assert gpu.synchronize() == 0
                print(gpu.read())
        """))
        assert same(["python3", str(script)]).stdout.endswith("\n24\n")

    def test_daemon(self):
        """A double fork and a new session before cuInit; then every descriptor that the daemon did not open is closed."""
        done = same(python("""
            read, write = os.pipe()
            if os.fork():
                os.close(write)
                os.wait()
                print(os.read(read, 100).decode())
                sys.exit(0)
            os.setsid()
            if os.fork():
                os._exit(0)
            os.dup2(os.open("/dev/null", os.O_RDWR), 0)
            for fd in range(3, 1024):
                if fd != write:
                    try:
                        os.close(fd)
                    except OSError:
                        pass
            os.write(write, str(works()).encode())
            os._exit(0)
        """))
        assert done.stdout == "3\n"


class TestSignals:
    def test_interrupt_during_synchronize(self):
        """Python's handler runs when the wait is over, which the signal neither ends nor loses."""
        done = same(python("""
            gpu = Tiny()
            gpu.busy()
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            try:
                print(gpu.synchronize())
                time.sleep(5)
                print("not interrupted")
            except KeyboardInterrupt:
                print("interrupted", gpu.synchronize(), gpu.read(64))
        """))
        assert "not" not in done.stdout and done.stdout.endswith("interrupted 0 10000000\n")

    def test_interrupt_ends_a_program(self):
        done = same(python("""
            gpu = Tiny()
            gpu.busy()
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            gpu.synchronize()
            time.sleep(5)
        """))
        assert "KeyboardInterrupt" in done.stderr

    def test_children_that_end_during_a_wait(self):
        """SIGCHLD is the program's: as many as its own children, none for a process of ours."""
        done = same(python("""
            ended = []
            signal.signal(signal.SIGCHLD, lambda *_: ended.extend(iter(lambda: reap(), None)))
            def reap():
                try:
                    pid, _ = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return None
                return pid or None
            gpu = Tiny()
            pids = []
            for _ in range(3):
                pid = os.fork()
                if pid == 0:
                    time.sleep(0.05)
                    os._exit(0)
                pids.append(pid)
                gpu.busy(1_000_000)
            codes = [gpu.synchronize() for _ in range(5)]
            while len(ended) < 3:
                time.sleep(0.01)
            print(codes, sorted(ended) == sorted(pids), gpu.read(64))
        """))
        assert done.stdout == "[0, 0, 0, 0, 0] True 1000000\n"

    def test_a_storm_of_signals(self):
        """An interval timer of a profiler interrupts every wait and every copy."""
        done = same(python("""
            hits = 0
            def hit(*_):
                global hits
                hits += 1
            signal.signal(signal.SIGPROF, hit)
            signal.setitimer(signal.ITIMER_PROF, 0.0005, 0.0005)
            gpu = Tiny()
            size = 8 << 20
            block, host = gpu.alloc(size), ctypes.create_string_buffer(size)
            for i in range(20):
                gpu.busy(200_000)
                assert gpu.call("cuMemsetD8_v2", block, i, ctypes.c_size_t(size)) == 0
                assert gpu.call("cuMemcpyDtoH_v2", host, block, ctypes.c_size_t(size)) == 0
                assert host.raw == bytes([i]) * size
                assert gpu.count() == 0 and gpu.synchronize() == 0
            print(gpu.read(), hits > 0)
        """))
        assert done.stdout == "20 True\n"

    def test_fault_handler_of_the_program(self, compiled):
        """Installed before or after cuInit, it is called for the program's own faults, and the device works on."""
        program = compiled("""
            static sigjmp_buf back;
            static volatile int hits;
            static void handler(int number, siginfo_t *info, void *machine) {
                hits += info->si_addr == (void *)64;
                siglongjmp(back, 1);
            }
            static void install(void) {
                struct sigaction action;
                memset(&action, 0, sizeof action);
                action.sa_sigaction = handler;
                action.sa_flags = SA_SIGINFO;
                OK(sigaction(SIGSEGV, &action, 0));
            }
            static void fault(void) {
                if (!sigsetjmp(back, 1)) *(volatile int *)64 = 1;
            }
            int main(int count, char **words) {
                if (count > 1) install();
                device();
                if (count <= 1) install();
                fault();
                OK(launch(add, 0));
                fault();
                printf("%d %u\\n", hits, value());
                return 0;
            }
        """)
        assert same([program]).stdout == "2 1\n"
        assert same([program, "early"]).stdout == "2 1\n"

    def test_fault_without_a_handler(self, compiled):
        program = compiled("int main(void) { device(); launch(busy, 0); *(volatile int *)64 = 1; return 0; }")
        assert same([program]).returncode == -11


class TestEnds:
    @pytest.mark.parametrize("how, code", [("sys.exit(3)", 3), ("os._exit(4)", 4), ("libc.exit(5)", 5), ("libc.quick_exit(6)", 6),
                                           ("os.abort()", -6), ("os.kill(os.getpid(), 9)", -9), ("raise SystemError", 1)])
    def test_while_kernels_run(self, how, code):
        done = same(python(f"""
            libc = ctypes.CDLL(None)
            gpu = Tiny()
            for _ in range(3):
                gpu.busy()
            {how}
        """))
        assert done.returncode == code

    @pytest.mark.parametrize("how, code", [("sys.exit(3)", 3), ("os._exit(4)", 4), ("os.abort()", -6), ("os.kill(os.getpid(), 9)", -9),
                                           ("os.kill(os.getpid(), 15)", -15)])
    def test_while_a_kernel_runs_that_never_ends(self, how, code):
        done = same(python(f"""
            gpu = Tiny()
            gpu.launch(b"endless")
            print("launched", flush=True)
            {how}
        """))
        assert (done.returncode, done.stdout) == (code, "launched\n")

    @pytest.mark.parametrize("how", ["exit(0)", "_exit(0)", "quick_exit(0)"])
    def test_while_threads_launch(self, how, compiled):
        """The main thread ends the process; others are in the middle of launches, waits and allocations."""
        program = compiled(f"""
            static void *work(void *index) {{
                OK(cuCtxSetCurrent(context));
                for (;;) {{
                    Address block;
                    /* What a call says while the process ends is no concern of this test. */
                    launch(add, index);
                    cuStreamSynchronize(index);
                    if (cuMemAlloc_v2(&block, 1 << 20) == 0) cuMemFree_v2(block);
                }}
            }}
            int main(void) {{
                device();
                for (long i = 0; i < 4; i++) {{
                    pthread_t thread;
                    OK(pthread_create(&thread, 0, work, (void *)(i % 2 ? 2 : 0)));
                }}
                usleep(100000);
                {how};
            }}
        """)
        for _ in range(5):
            assert same([program]).returncode == 0

    def test_main_thread_that_returns_early(self, compiled):
        """pthread_exit in main: the process goes on until its last thread ends."""
        program = compiled("""
            static void *work(void *unused) {
                OK(cuCtxSetCurrent(context));
                usleep(50000);
                for (int i = 0; i < 100; i++) OK(launch(add, (void *)2));
                OK(cuStreamSynchronize((void *)2));
                printf("%u\\n", value());
                /* Without it the driver's own threads would keep the process. */
                exit(7);
            }
            int main(void) {
                pthread_t thread;
                device();
                launch(add, (void *)2);
                OK(pthread_create(&thread, 0, work, 0));
                pthread_exit(0);
            }
        """)
        done = same([program])
        assert (done.returncode, done.stdout) == (7, "101\n")

    def test_calls_in_exit_handlers(self, compiled):
        """Handlers that were registered before the device was there run last, those after it first; each may call the driver."""
        program = compiled("""
            static void say(const char *when) {
                Address block = 0;
                unsigned word = 0;
                int codes[3] = {cuCtxSynchronize(), cuMemcpyDtoH_v2(&word, cell, 4), cuMemAlloc_v2(&block, 64)};
                printf("%s: %d %d %d, %u\\n", when, codes[0], codes[1], codes[2], word);
            }
            static void early(void) { say("early"); }
            static void late(void) {
                OK(launch(busy, 0));
                printf("late: %u\\n", value());
            }
            int main(void) {
                atexit(early);
                device();
                atexit(late);
                OK(launch(add, 0));
                return 0;
            }
        """)
        done = same([program])
        assert done.returncode == 0 and done.stdout.startswith("late: 10000000\nearly: ")

    def test_static_destructors(self, compiled):
        """Objects of a C++ program with device memory: made before main, gone after it."""
        program = compiled("""
            struct Buffer {
                Address address = 0;
                const char *name;
                Buffer(const char *name) : name(name) { device(); OK(cuMemAlloc_v2(&address, 1 << 20)); }
                ~Buffer() { printf("%s: %d\\n", name, cuMemFree_v2(address)); fflush(stdout); }
            };
            static Buffer global("global");
            int main() {
                static Buffer local("local");
                OK(launch(add, 0));
                printf("%u\\n", value());
            }
        """, language="cpp")
        assert same([program]).returncode == 0

    def test_handlers_of_python(self):
        done = same(python("""
            import atexit
            gpu = Tiny()
            @atexit.register
            def late():
                gpu.busy()
                print(gpu.synchronize(), gpu.read(64), gpu.count(), gpu.read())
            class Holder:
                def __del__(self):
                    print(gpu.call("cuMemFree_v2", gpu.cell))
            holder = Holder()
        """))
        assert done.stdout.startswith("0 10000000 0 1\n")


class TestLibraries:
    def test_driver_closed_and_opened_again(self):
        """The library stays as it is while its handles come and go."""
        done = same(python("""
            import _ctypes
            gpu = Tiny()
            gpu.count()
            for _ in range(3):
                _ctypes.dlclose(gpu.cuda._handle)
                gpu.cuda = ctypes.CDLL("libcuda.so.1")
                print(gpu.call("cuInit", 0), gpu.count(), gpu.synchronize(), gpu.read())
        """))
        assert done.stdout == "0 0 0 2\n0 0 0 3\n0 0 0 4\n"

    def test_driver_opened_and_closed_before_use(self):
        done = same(python("""
            import _ctypes
            for _ in range(5):
                probe = ctypes.CDLL("libcuda.so.1")
                version = ctypes.c_int()
                assert probe.cuDriverGetVersion(ctypes.byref(version)) == 0
                _ctypes.dlclose(probe._handle)
            print(works())
        """))
        assert done.stdout == "3\n"


class TestThreads:
    def test_a_thousand_threads(self):
        """Each with its default stream, more of them than there are words to say how far a stream is."""
        done = same(python("""
            gpu = Tiny()
            failed = []
            def work():
                gpu.enter()
                codes = [gpu.count(PER_THREAD), gpu.call("cuStreamSynchronize", PER_THREAD), gpu.count(PER_THREAD)]
                if any(codes):
                    failed.append(codes)
            for _ in range(50):
                threads = [threading.Thread(target=work) for _ in range(20)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            print(gpu.synchronize(), gpu.read(), failed)
        """))
        assert done.stdout == "0 2000 []\n"

    def test_threads_that_use_cuda_when_they_end(self, compiled):
        """Destructors of thread-specific data run after thread-local objects are gone."""
        program = compiled("""
            static pthread_key_t key;
            static atomic_int failed;
            static void last(void *stream) {
                int codes[2] = {launch(add, stream), cuStreamSynchronize(stream)};
                if (codes[0] || codes[1]) { failed++; fprintf(stderr, "%p: %d %d\\n", stream, codes[0], codes[1]); }
            }
            static void *work(void *stream) {
                OK(cuCtxSetCurrent(context));
                OK(pthread_setspecific(key, stream));
                OK(launch(add, stream));
                return 0;
            }
            int main(void) {
                device();
                OK(pthread_key_create(&key, last));
                for (long i = 0; i < 20; i++) {
                    pthread_t thread;
                    OK(pthread_create(&thread, 0, work, (void *)(i % 2 + 1)));
                    OK(pthread_join(thread, 0));
                }
                OK(cuCtxSynchronize());
                printf("%u %d\\n", value(), (int)failed);
                return 0;
            }
        """)
        assert same([program]).stdout == "40 0\n"


class TestSurroundings:
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_descriptors_closed(self, when):
        """The loop of daemons over every descriptor. What is queued by then is not lost, and nothing waits for ever."""
        program = python("""
            when = sys.argv[1]
            def close_all():
                for fd in range(3, 1024):
                    try:
                        os.close(fd)
                    except OSError:
                        pass
            if when == "before":
                close_all()
            gpu = Tiny()
            gpu.read()
            if when == "after":
                close_all()
                others = [os.open("/dev/null", os.O_RDWR) for _ in range(40)]
            codes = [gpu.count() for _ in range(10)]
            print(codes, gpu.synchronize(), gpu.read(), flush=True)
            if when == "after":
                # Ours must neither close nor write to what the program has opened under a number that was ours.
                pid = os.fork()
                if pid == 0:
                    print(all(os.fstat(fd).st_rdev == os.stat("/dev/null").st_rdev for fd in others), flush=True)
                    os._exit(0)
                os.waitpid(pid, 0)
        """, when)
        done = same(program)
        assert done.stdout.startswith("[0, 0, 0, 0, 0, 0, 0, 0, 0, 0] 0 10\n")

    @pytest.mark.parametrize("closed", [(2,), (1, 2), (0, 1, 2)])
    def test_standard_descriptors_closed(self, closed, tmp_path):
        """Files that the program opens then have these numbers; nothing of ours ends up in them."""
        out = tmp_path / "out"
        program = python("""
            closed = [int(word) for word in sys.argv[2].split(",")]
            for fd in closed:
                os.close(fd)
            files = [os.open(f"{sys.argv[1]}{fd}", os.O_RDWR | os.O_CREAT | os.O_TRUNC) for fd in closed]
            assert files == closed, files
            result = works()
            with open(sys.argv[1], "w") as out:
                print(result, [os.fstat(fd).st_size for fd in files], file=out)
            os._exit(0)
        """, str(out), ",".join(map(str, closed)))
        for launched in (lambda: run(program), *(lambda mode=mode: shimmed(program, mode=mode) for mode in MODES)):
            out.unlink(missing_ok=True)
            done = launched()
            assert done.returncode == 0, done.stderr
            assert out.read_text() == f"3 {[0] * len(closed)}\n"

    @pytest.mark.parametrize("limit, blocks, mib", [("soft", 100, 40), ("hard", 20, 3)])
    def test_few_descriptors(self, limit, blocks, mib):
        """64 of them: with a soft limit more large allocations than that, with a hard one what fits into few slabs."""
        done = same(python(f"""
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1] if {limit!r} == "soft" else 64))
            gpu = Tiny()
            blocks = [gpu.alloc({mib} << 20) for _ in range({blocks})]
            print([gpu.call("cuMemsetD8_v2", block, 1, ctypes.c_size_t(64)) for block in blocks] == [0] * {blocks})
            streams, events = [ctypes.c_void_p() for _ in range(100)], [ctypes.c_void_p() for _ in range(100)]
            for stream, event in zip(streams, events):
                gpu.ok("cuStreamCreate", ctypes.byref(stream), 1)
                gpu.ok("cuEventCreate", ctypes.byref(event), 0)
                assert gpu.count(stream) == 0 and gpu.call("cuEventRecord", event, stream) == 0
            print(gpu.synchronize(), gpu.read())
        """))
        assert done.stdout == "True\n0 100\n"

    def test_read_only_tmp(self):
        probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
        if probe.returncode != 0:
            pytest.skip("mount namespaces need privileges that this machine does not give")
        script = "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp && ! touch /tmp/x 2>/dev/null && exec python3 tiny.py"
        assert same(["unshare", "-m", "bash", "-c", script]).stdout == "3\n"

    def test_working_directory_that_is_gone(self):
        done = same(python("""
            import tempfile
            sys.path.insert(0, os.getcwd())
            folder = tempfile.mkdtemp()
            os.chdir(folder)
            os.rmdir(folder)
            print(works())
        """))
        assert done.stdout == "3\n"

    def test_cleared_environment(self):
        """Read before the program could change it, as by the driver; programs started without it are native."""
        done = same(python("""
            for name in list(os.environ):
                if name not in ("LD_LIBRARY_PATH", "PATH"):
                    del os.environ[name]
            ctypes.CDLL(None).clearenv()
            print(works())
        """))
        assert done.stdout == "3\n"

    def test_set_user_id_programs(self):
        if os.geteuid() == 0:
            pytest.skip("for root no program changes its user, so the loader drops no preload")
        assert same(["su", "--version"]).returncode == 0
