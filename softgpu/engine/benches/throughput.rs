//! Lane-instructions per second on one core: `taskset -c 0 cargo bench -p lightos-softgpu-engine [-- NAME]`. The first run of each
//! kernel is not counted.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use lightos_softgpu_engine::check;
use lightos_softgpu_engine::exec::{Environment, Grid, Memory, Program};

/// All of memory is device memory: only this bench's own kernels run.
struct Everything;

impl Memory for Everything {
    fn range(&self, _: u64) -> Option<(u64, u64)> {
        Some((4096, 1 << 47))
    }

    fn epoch(&self) -> u64 {
        1
    }
}

const HEADER: &str = ".version 8.3\n.target sm_90\n.address_size 64\n";

fn arithmetic(body: &str) -> String {
    let body = body.repeat(16);
    format!(
        "{HEADER}.visible .entry k(.param .u64 out, .param .u32 n) {{
        .reg .pred %p1; .reg .b32 %r<8>; .reg .f32 %f<8>; .reg .b64 %rd<8>;
        ld.param.u64 %rd1, [out]; ld.param.u32 %r1, [n]; mov.u32 %r2, %tid.x; cvt.u64.u32 %rd2, %r2; cvt.rn.f32.u32 %f1, %r2;
        mov.f32 %f2, 0f3F7FFFFF; mov.f32 %f3, 0f3DCCCCCD;
    LOOP: {body} add.s32 %r1, %r1, -1; setp.ne.s32 %p1, %r1, 0; @%p1 bra LOOP;
        cvt.rzi.u32.f32 %r3, %f1; add.u32 %r2, %r2, %r3; mad.wide.u32 %rd1, %r3, 0, %rd1; st.global.u32 [%rd1], %r2; ret; }}"
    )
}

fn measure(name: &str, program: &Program, kernel: &str, grid: [u32; 3], block: [u32; 3], params: &[u8]) {
    if std::env::args().skip(1).any(|filter| !filter.starts_with('-') && !name.contains(&filter)) {
        return;
    }
    let cancel = AtomicBool::new(false);
    let environment = Environment {
        memory: &Everything,
        sm_count: 132,
        cancel: &cancel,
        print: &|_| {},
        check: check::get(),
    };
    let grid = Grid { grid, block, dynamic_shared_bytes: 0, params, cooperative: false };
    let run = || program.run(kernel, &grid, &environment).expect("the bench kernel runs");
    run();
    let started = Instant::now();
    let stats = run();
    let seconds = started.elapsed().as_secs_f64();
    let rate = stats.lane_instructions as f64 / seconds / 1e6;
    println!("{name:<24} {rate:>9.0} M lane-instructions/s  {:>8.1} ms", seconds * 1e3);
}

fn main() {
    let load = |ptx: &str| Program::load(ptx, &mut |_, _| None).unwrap_or_else(|e| panic!("{e}"));
    let mut out = vec![0u32; 1024];
    let mut params = (out.as_mut_ptr() as u64).to_le_bytes().to_vec();
    params.extend(50_000u32.to_le_bytes());
    for (name, body) in [
        ("add.s32", "add.s32 %r2, %r2, %r1;\n"),
        ("mad.lo.s32", "mad.lo.s32 %r2, %r2, %r1, %r2;\n"),
        ("add.s64", "add.s64 %rd2, %rd2, %rd1;\n"),
        ("mul.wide.u32", "mul.wide.u32 %rd2, %r2, %r1;\n"),
        ("fma.rn.f32", "fma.rn.f32 %f1, %f1, %f2, %f3;\n"),
        ("mul.f32", "mul.f32 %f1, %f1, %f2;\n"),
        ("add.ftz.f32", "add.ftz.f32 %f1, %f1, %f2;\n"),
        ("setp+selp", "setp.lt.s32 %p1, %r2, %r1; selp.b32 %r2, %r2, %r1, %p1;\n"),
    ] {
        measure(name, &load(&arithmetic(body)), "k", [1, 1, 1], [32, 1, 1], &params);
    }
    let n = 256usize;
    let matrices = vec![0.5f32; 3 * n * n];
    let start = matrices.as_ptr() as u64;
    let mut params = Vec::new();
    for word in [n as u32, n as u32, n as u32, 1f32.to_bits()] {
        params.extend(word.to_le_bytes());
    }
    let bytes = (n * n * 4) as u64;
    for long in [start, start + bytes, 0, start + 2 * bytes] {
        params.extend(long.to_le_bytes());
    }
    let sgemm = lightos_kernels::sgemm::geometry(n as u32, n as u32);
    let program = load(lightos_kernels::sgemm::PTX);
    measure("sgemm 256", &program, lightos_kernels::sgemm::ENTRY, sgemm.grid, sgemm.block, &params);

    let empty = load(&format!("{HEADER}.visible .entry k() {{ ret; }}"));
    let cancel = AtomicBool::new(false);
    let environment =
        Environment { memory: &Everything, sm_count: 132, cancel: &cancel, print: &|_| {}, check: None };
    let grid =
        Grid { grid: [1, 1, 1], block: [32, 1, 1], dynamic_shared_bytes: 0, params: &[], cooperative: false };
    let (started, launches) = (Instant::now(), 100_000);
    for _ in 0..launches {
        empty.run("k", &grid, &environment).expect("the empty kernel runs");
    }
    println!("empty kernel {:>31.2} us", started.elapsed().as_secs_f64() * 1e6 / f64::from(launches));
    let add = load(lightos_kernels::vector_add::PTX);
    let count = 1u32 << 20;
    let vectors = vec![0f32; 3 << 20];
    let start = vectors.as_ptr() as u64;
    let mut params: Vec<u8> =
        [start, start + (4 << 20), start + (8 << 20)].into_iter().flat_map(u64::to_le_bytes).collect();
    params.extend(count.to_le_bytes());
    measure(
        "vector_add 1 Mi",
        &add,
        lightos_kernels::vector_add::ENTRY,
        [count / 256, 1, 1],
        [256, 1, 1],
        &params,
    );

    let mut text = HEADER.to_owned();
    let body = arithmetic("fma.rn.f32 %f1, %f1, %f2, %f3; mad.lo.s32 %r2, %r2, %r1, 7;\n");
    let mut index = 0;
    while text.len() < 1 << 20 {
        text += &body[HEADER.len()..].replacen(" k(", &format!(" k{index}("), 1);
        index += 1;
    }
    let started = Instant::now();
    let kernels = load(&text).kernels().count();
    println!("load 1 MiB, {kernels} kernels  {:>8.1} ms", started.elapsed().as_secs_f64() * 1e3);
    drop((out, matrices, vectors));
}
