//! Loads PTX, gives it memory, runs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lightos_softgpu_engine::check::{self, Checker};
use lightos_softgpu_engine::exec::image::{Surface, Texture};
use lightos_softgpu_engine::exec::{Environment, Fault, Grid, LoadError, Memory, Program, RunStats};

/// Device memory as leaked host allocations: tests are short.
#[derive(Default)]
pub struct Device {
    ranges: Mutex<Vec<(u64, u64)>>,
    epoch: AtomicU64,
    pub cancel: AtomicBool,
    pub printed: Mutex<String>,
    textures: Mutex<HashMap<u64, Arc<Texture>>>,
    surfaces: Mutex<HashMap<u64, Arc<Surface>>>,
    /// Watches all runs; without one, the checker that `SOFTGPU_CHECK` asks for does.
    pub checker: Option<Checker>,
}

impl Memory for Device {
    fn range(&self, address: u64) -> Option<(u64, u64)> {
        self.ranges.lock().unwrap().iter().copied().find(|&(start, end)| (start..end).contains(&address))
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn texture(&self, handle: u64) -> Option<Arc<Texture>> {
        self.textures.lock().unwrap().get(&handle).cloned()
    }

    fn surface(&self, handle: u64) -> Option<Arc<Surface>> {
        self.surfaces.lock().unwrap().get(&handle).cloned()
    }
}

impl Device {
    /// Zeroed device memory, aligned to 256.
    pub fn allocate(&self, bytes: u64) -> u64 {
        #[derive(Clone)]
        #[repr(align(256))]
        struct Line(#[allow(dead_code, reason = "only its size and alignment matter")] [u8; 256]);
        let lines = vec![Line([0; 256]); bytes.div_ceil(256).max(1) as usize];
        let start = lines.leak().as_ptr() as u64;
        self.ranges.lock().unwrap().push((start, start + bytes));
        self.epoch.fetch_add(1, Ordering::Release);
        start
    }

    /// Takes the address of an allocation away from kernels.
    pub fn forget(&self, address: u64) {
        self.ranges.lock().unwrap().retain(|(start, _)| *start != address);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Handle of a new texture object; handles of textures are odd, those of surfaces even.
    pub fn texture(&self, texture: Texture) -> u64 {
        let mut textures = self.textures.lock().unwrap();
        let handle = 0x7e01 + 2 * textures.len() as u64;
        textures.insert(handle, Arc::new(texture));
        handle
    }

    /// Handle of a new surface object.
    pub fn surface(&self, surface: Surface) -> u64 {
        let mut surfaces = self.surfaces.lock().unwrap();
        let handle = 0x7e00 + 2 * surfaces.len() as u64;
        surfaces.insert(handle, Arc::new(surface));
        handle
    }

    pub fn upload<T: Copy>(&self, data: &[T]) -> u64 {
        let address = self.allocate(size_of_val(data) as u64);
        // SAFETY: the range was just allocated with this length and alignment for any T of the tests.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), address as *mut T, data.len()) };
        address
    }

    pub fn download<T: Copy>(&self, address: u64, count: usize) -> Vec<T> {
        // SAFETY: tests read back what they have allocated with at least this length; no kernel runs meanwhile.
        unsafe { std::slice::from_raw_parts(address as *const T, count) }.to_vec()
    }

    pub fn load(&self, ptx: &str) -> Result<Program, LoadError> {
        Program::load(ptx, &mut |bytes, _| Some(self.allocate(bytes)))
    }

    /// Runs with 8-byte parameters.
    pub fn run(
        &self,
        program: &Program,
        kernel: &str,
        shape: Shape,
        params: &[u64],
    ) -> Result<RunStats, Fault> {
        let bytes: Vec<u8> = params.iter().flat_map(|p| p.to_le_bytes()).collect();
        self.run_bytes(program, kernel, shape, &bytes)
    }

    pub fn run_bytes(
        &self,
        program: &Program,
        kernel: &str,
        shape: Shape,
        bytes: &[u8],
    ) -> Result<RunStats, Fault> {
        let grid = Grid {
            grid: shape.grid,
            block: shape.block,
            dynamic_shared_bytes: shape.shared,
            params: bytes,
            cooperative: shape.cooperative,
        };
        let print = |text: &str| self.printed.lock().unwrap().push_str(text);
        let check = self.checker.as_ref().or(check::get());
        let environment =
            Environment { memory: self, sm_count: 132, cancel: &self.cancel, print: &print, check };
        program.run(kernel, &grid, &environment)
    }
}

/// A launch's geometry.
#[derive(Clone, Copy)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub cooperative: bool,
}

pub fn shape(blocks: u32, threads: u32) -> Shape {
    Shape { grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0, cooperative: false }
}

pub const HEADER: &str = ".version 8.3\n.target sm_90\n.address_size 64\n";

/// A kernel `k(out)` around `body`: `%tid` in %r0, the address of this thread's 8-byte result in %rd0.
pub fn kernel(body: &str) -> String {
    format!(
        "{HEADER}.visible .entry k(.param .u64 out, .param .u64 in) {{
        .reg .pred %p<20>; .reg .b16 %h<20>; .reg .b32 %r<60>; .reg .f32 %f<20>; .reg .b64 %rd<40>; .reg .f64 %d<20>;
        mov.u32 %r0, %tid.x;
        ld.param.u64 %rd0, [out];
        mad.wide.u32 %rd0, %r0, 8, %rd0;
        {body}
        }}"
    )
}

/// Runs `body` (see [`kernel`]) with one block and gives the first `threads` results.
pub fn results(body: &str, threads: u32) -> Vec<u64> {
    let device = Device::default();
    let program = device.load(&kernel(body)).unwrap_or_else(|e| panic!("{e}"));
    let out = device.allocate(u64::from(threads) * 8);
    device.run(&program, "k", shape(1, threads), &[out, 0]).unwrap_or_else(|e| panic!("{e}"));
    device.download(out, threads as usize)
}

/// Evaluates instructions once per case. The snippet finds its inputs in `%a`, `%b`, `%c` with the suffix 64, 32 or 16
/// (and `%ap`, `%bp`, `%cp`: not zero) and leaves its result in `%o64`, `%o32`, `%o16` or `%op`.
pub fn eval(snippet: &str, cases: &[[u64; 3]]) -> Vec<u64> {
    let result = if snippet.contains("%op") {
        "selp.u64 %o64, 1, 0, %op;"
    } else if snippet.contains("%o16") {
        "cvt.u64.u16 %o64, %o16;"
    } else if snippet.contains("%o32") {
        "cvt.u64.u32 %o64, %o32;"
    } else {
        ""
    };
    let ptx = format!(
        "{HEADER}.visible .entry k(.param .u64 in, .param .u64 out) {{
        .reg .pred %p<8>, %ap, %bp, %cp, %op; .reg .b16 %h<8>, %a16, %b16, %c16, %o16;
        .reg .b32 %r<16>, %a32, %b32, %c32, %o32; .reg .b64 %rd<16>, %a64, %b64, %c64, %o64;
        mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
        mad.lo.s32 %r1, %r1, %r2, %r3;
        ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out];
        mad.wide.u32 %rd3, %r1, 24, %rd1; mad.wide.u32 %rd4, %r1, 8, %rd2;
        ld.global.u64 %a64, [%rd3]; ld.global.u64 %b64, [%rd3+8]; ld.global.u64 %c64, [%rd3+16];
        cvt.u32.u64 %a32, %a64; cvt.u32.u64 %b32, %b64; cvt.u32.u64 %c32, %c64;
        cvt.u16.u64 %a16, %a64; cvt.u16.u64 %b16, %b64; cvt.u16.u64 %c16, %c64;
        setp.ne.u64 %ap, %a64, 0; setp.ne.u64 %bp, %b64, 0; setp.ne.u64 %cp, %c64, 0;
        mov.u64 %o64, 0; mov.u32 %o32, 0; mov.u16 %o16, 0;
        {snippet}
        {result}
        st.global.u64 [%rd4], %o64;
        ret;
        }}"
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap_or_else(|e| panic!("{snippet}: {e}"));
    let threads = 32;
    let blocks = cases.len().div_ceil(threads).max(1);
    let mut padded = cases.to_vec();
    padded.resize(blocks * threads, [0; 3]);
    let input = device.upload(&padded);
    let out = device.allocate(padded.len() as u64 * 8);
    let run = device.run(&program, "k", shape(blocks as u32, threads as u32), &[input, out]);
    run.unwrap_or_else(|e| panic!("{snippet}: {e}"));
    device.download(out, cases.len())
}
