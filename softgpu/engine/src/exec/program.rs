//! A loaded module: kernels, device functions, variables; and the way in to run a kernel.

use std::sync::atomic::{AtomicU64, Ordering};

use lightos_kernels::ptx::ast::{Item, Linkage, Module, Span};
use rustc_hash::FxHashMap;

use super::builtin::Builtin;
use super::decode::{Decoder, Reject};
use super::describe::{describe, opcode_at};
use super::heap::{HEAP_BYTES, Heap};
use super::lanes::Constants;
use super::memory::PARAM_WINDOW;
use super::op::{Function, GridRun, WORKSPACE_BYTES};
use super::scope::{Entry, ModuleScope};
use super::{Environment, Fault, Grid, KernelInfo, LoadError, RunStats, grid};

/// Most threads of a block.
const MAX_THREADS: u64 = 1024;
/// More than any device offers to a block.
const MAX_SHARED_BYTES: u32 = 1 << 20;

#[derive(Debug)]
struct Kernel {
    info: KernelInfo,
    function: u32,
}

/// A module in executable form. Immutable but for its variables, which live in device memory.
#[derive(Debug)]
pub struct Program {
    version: (u32, u32),
    pub(super) functions: Vec<Function>,
    pub(super) constants: Constants,
    /// Where `.const` variables lie in device memory: start and end.
    pub(super) const_ranges: Vec<(u64, u64)>,
    pub(super) heap: Heap,
    kernels: Vec<Kernel>,
    by_name: FxHashMap<String, usize>,
    globals: Vec<(String, u64, u64)>,
}

impl Program {
    /// Decodes PTX text. `allocate(bytes, align)` gives zeroed device memory for a module-scope variable (a host
    /// address), or `None` when there is no more.
    ///
    /// # Errors
    /// [`LoadError`] with a log that names line, column and opcode.
    pub fn load(ptx: &str, allocate: &mut dyn FnMut(u64, u64) -> Option<u64>) -> Result<Program, LoadError> {
        let module = lightos_kernels::ptx::parse(ptx).map_err(|e| LoadError {
            log: format!("ptxas-like: {e}"),
            unsupported: false,
            version: None,
        })?;
        Program::decode(&module, allocate).map_err(|(reject, span, opcode)| {
            let (what, unsupported) = match reject {
                Reject::Invalid(what) => (what, false),
                Reject::Unsupported(what) => (what, true),
            };
            let at = format!("ptxas-like: line {}:{}", span.line, span.column);
            let log = match opcode {
                Some(opcode) if unsupported => {
                    let detail = if what.is_empty() { String::new() } else { format!(" ({what})") };
                    format!("{at}: opcode '{opcode}' is not supported by the software GPU{detail}")
                }
                Some(opcode) => format!("{at}: {opcode}: {what}"),
                None => format!("{at}: {what}"),
            };
            LoadError { log, unsupported, version: Some(module.version) }
        })
    }

    fn decode(
        module: &Module,
        allocate: &mut dyn FnMut(u64, u64) -> Option<u64>,
    ) -> Result<Program, (Reject, Span, Option<String>)> {
        let plain = |(reject, span): (Reject, Span)| {
            let opcode = opcode_at(module, span);
            (reject, span, opcode)
        };
        if module.address_size != 64 {
            let what = format!(".address_size {}", module.address_size);
            return Err((Reject::Unsupported(what), Span { line: 1, column: 1 }, None));
        }
        let mut scope = ModuleScope::new(allocate);
        let sources = scope.collect(module).map_err(plain)?;
        // Device functions come first: they share one layout of shared memory, above which each kernel's own starts.
        let mut functions: Vec<Function> = Vec::new();
        functions.resize_with(sources.len(), Function::default);
        for (index, source) in sources.iter().enumerate().filter(|(_, f)| f.body.is_none()) {
            match Builtin::named(&source.name) {
                Some(builtin) => {
                    functions[index].builtin = Some(builtin);
                }
                None => {
                    // An alias stands for another function's number.
                    if let Some(entry) = scope.symbols.get_mut(source.name.as_str())
                        && matches!(entry, Entry::Function(own) if *own as usize == index)
                    {
                        *entry = Entry::Unresolved;
                    }
                }
            }
        }
        for (index, source) in sources.iter().enumerate().filter(|(_, f)| !f.entry && f.body.is_some()) {
            functions[index] = Decoder::new(&mut scope, source).decode(source).map_err(plain)?;
        }
        let (common, common_names) = (scope.shared_bytes, scope.shared.clone());
        let device = sources.iter().filter(|f| !f.entry);
        let callees = device.map(|f| super::pressure::registers(f)).max().unwrap_or(0);
        let mut kernels = Vec::new();
        for (index, source) in sources.iter().enumerate().filter(|(_, f)| f.entry && f.body.is_some()) {
            scope.shared_bytes = common;
            scope.shared.clone_from(&common_names);
            functions[index] = Decoder::new(&mut scope, source).decode(source).map_err(plain)?;
            let info = describe(module, source, &functions[index], &scope, callees)
                .map_err(|e| plain((e, source.span)))?;
            kernels.push(Kernel { info, function: index as u32 });
        }
        scope.write_initialisers().map_err(plain)?;
        let heap = match functions.iter().any(|f| f.builtin == Some(Builtin::Malloc)) {
            true => {
                (scope.allocate)(HEAP_BYTES, 256).map_or_else(Heap::default, |at| Heap::new(at, HEAP_BYTES))
            }
            false => Heap::default(),
        };
        let mut globals = Vec::new();
        for item in &module.items {
            if let Item::Variable(v) = item
                && let Some(&Entry::Variable { address, bytes }) = scope.symbols.get(v.name.as_str())
                && v.linkage != Linkage::Extern
            {
                globals.push((v.name.clone(), address, bytes));
            }
        }
        let by_name = kernels.iter().enumerate().map(|(i, k)| (k.info.name.clone(), i)).collect();
        let (version, constants, const_ranges) = (module.version, scope.constants.table, scope.const_ranges);
        Ok(Program { version, functions, constants, const_ranges, heap, kernels, by_name, globals })
    }

    /// The text's `.version`, 8.3 as `(8, 3)`.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// All kernels, in order of their text.
    pub fn kernels(&self) -> impl Iterator<Item = &KernelInfo> {
        self.kernels.iter().map(|kernel| &kernel.info)
    }

    pub fn kernel(&self, name: &str) -> Option<&KernelInfo> {
        self.by_name.get(name).map(|&index| &self.kernels[index].info)
    }

    /// Module-scope `.global` and `.const` variables: name, address, bytes.
    pub fn globals(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.globals.iter().map(|(name, address, bytes)| (name.as_str(), *address, *bytes))
    }

    /// Runs a grid to its end on the calling thread and helpers.
    ///
    /// # Errors
    /// The first [`Fault`] of any thread; the grid stops there, and what it has written stays.
    pub fn run(
        &self,
        kernel: &str,
        shape: &Grid<'_>,
        environment: &Environment<'_>,
    ) -> Result<RunStats, Fault> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let Some(kernel) = self.by_name.get(kernel).map(|&index| &self.kernels[index]) else {
            let what = format!("no kernel named '{kernel}'");
            return Err(Fault::IllegalInstruction { what, place: Default::default() });
        };
        let (x, y, z) = (shape.block[0], shape.block[1], shape.block[2]);
        let threads = u64::from(x).saturating_mul(u64::from(y)).saturating_mul(u64::from(z));
        if threads > MAX_THREADS || shape.dynamic_shared_bytes > MAX_SHARED_BYTES {
            let what = format!("a block of {threads} threads, {} bytes", shape.dynamic_shared_bytes);
            return Err(Fault::IllegalInstruction { what, place: Default::default() });
        }
        let param_words = kernel.info.param_bytes.div_ceil(8);
        let mut params = vec![0u64; param_words + WORKSPACE_BYTES / 8];
        for (index, &byte) in shape.params.iter().take(kernel.info.param_bytes).enumerate() {
            params[index / 8] |= u64::from(byte) << (index % 8 * 8);
        }
        let params: Vec<AtomicU64> = params.into_iter().map(AtomicU64::new).collect();
        let workspace = if shape.cooperative { PARAM_WINDOW + param_words as u64 * 8 } else { 0 };
        let dynamic = shape.dynamic_shared_bytes;
        let run = GridRun {
            program: self,
            function: kernel.function,
            grid: shape.grid,
            block: shape.block,
            params: &params,
            workspace,
            shared_bytes: kernel.info.static_shared_bytes.next_multiple_of(16) + dynamic,
            dynamic_shared_bytes: dynamic,
            environment,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        };
        if shape.grid.contains(&0) || shape.block.contains(&0) {
            return Ok(RunStats::default());
        }
        grid::run(&run, shape.cooperative)
    }
}
