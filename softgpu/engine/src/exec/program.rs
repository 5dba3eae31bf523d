//! A loaded module: kernels, device functions, variables; and the way in to run a kernel.

use std::sync::atomic::{AtomicU64, Ordering};

use lightos_kernels::ptx::ast::{self, Item, Linkage, Module, Space, Span, Variable};
use rustc_hash::FxHashMap;

use super::builtin::Builtin;
use super::call::code_address;
use super::decode::{ConstantPool, Decoded, Decoder, Reject, invalid, unsupported};
use super::heap::{HEAP_BYTES, Heap};
use super::lanes::Constants;
use super::layout::{initialise, kernel_params, variable_size};
use super::memory::PARAM_WINDOW;
use super::op::{Function, GridRun, WORKSPACE_BYTES};
use super::{Environment, Fault, Grid, KernelInfo, LoadError, RunStats, grid};

/// What a module-scope name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Symbol {
    Variable {
        address: u64,
    },
    /// Statically sized shared memory, at this offset.
    Shared(u32),
    /// The `extern` shared array whose size the launch gives.
    Dynamic,
    Function {
        index: u32,
        address: u64,
    },
}

#[derive(Clone, Copy)]
enum Entry<'a> {
    Variable {
        address: u64,
        bytes: u64,
    },
    Shared(&'a Variable),
    Dynamic,
    Function(u32),
    /// Declared `extern` and defined nowhere: an error only where it is used.
    Unresolved,
}

/// The module while it is being decoded.
pub struct ModuleScope<'a> {
    pub constants: ConstantPool,
    symbols: FxHashMap<&'a str, Entry<'a>>,
    allocate: &'a mut dyn FnMut(u64, u64) -> Option<u64>,
    /// Variables that have an initialiser to write once all addresses are known.
    initialised: Vec<(&'a Variable, u64, u64)>,
    const_bytes: u64,
    /// Shared memory of the function being decoded, so far.
    shared_bytes: u32,
    /// Module-scope shared variables that the function being decoded has named.
    shared: FxHashMap<&'a str, u32>,
}

impl<'a> ModuleScope<'a> {
    /// Looks a module-scope name up; a shared variable gets its place in the running function's layout.
    pub fn symbol(&mut self, name: &str) -> Decoded<Option<Symbol>> {
        let Some((&key, &entry)) = self.symbols.get_key_value(name) else { return Ok(None) };
        Ok(Some(match entry {
            Entry::Variable { address, .. } => Symbol::Variable { address },
            Entry::Dynamic => Symbol::Dynamic,
            Entry::Unresolved => return invalid(format!("unresolved extern '{key}'")),
            Entry::Function(index) => Symbol::Function { index, address: code_address(index) },
            Entry::Shared(variable) => {
                if let Some(&offset) = self.shared.get(key) {
                    return Ok(Some(Symbol::Shared(offset)));
                }
                let (bytes, align) = variable_size(variable)?;
                let offset = self.shared_space(bytes, align)?;
                self.shared.insert(key, offset);
                Symbol::Shared(offset)
            }
        }))
    }

    /// Room in the running function's shared memory.
    pub fn shared_space(&mut self, bytes: u64, align: u64) -> Decoded<u32> {
        let offset = u64::from(self.shared_bytes).next_multiple_of(align);
        if offset + bytes > 1 << 20 {
            return unsupported("more shared memory than a block has");
        }
        self.shared_bytes = (offset + bytes) as u32;
        Ok(offset as u32)
    }

    /// Gives a variable of any module-visible space its place.
    pub fn declare(&mut self, variable: &'a Variable) -> Decoded {
        let (bytes, align) = variable_size(variable)?;
        let entry = match variable.space {
            Space::Shared if variable.linkage == Linkage::Extern || variable.dims.contains(&None) => {
                Entry::Dynamic
            }
            Space::Shared => Entry::Shared(variable),
            Space::Global | Space::Const => {
                let bytes = if bytes == 0 { unsized_bytes(variable) } else { bytes };
                let Some(address) = (self.allocate)(bytes.max(1), align.max(16)) else {
                    return unsupported(format!("out of memory for variable '{}'", variable.name));
                };
                if variable.space == Space::Const {
                    self.const_bytes = self.const_bytes.next_multiple_of(align) + bytes;
                }
                if variable.init.is_some() {
                    self.initialised.push((variable, address, bytes));
                }
                Entry::Variable { address, bytes }
            }
            _ => return unsupported("a module-scope variable in this state space is not supported"),
        };
        self.symbols.insert(&variable.name, entry);
        Ok(())
    }

    fn write_initialisers(&self) -> Result<(), (Reject, Span)> {
        for &(variable, address, bytes) in &self.initialised {
            let Some(init) = &variable.init else { continue };
            let mut image = vec![0u8; bytes as usize];
            let value = |name: &str, _: bool| match self.symbols.get(name)? {
                Entry::Variable { address, .. } => Some(*address),
                Entry::Function(index) => Some(code_address(*index)),
                Entry::Shared(_) | Entry::Dynamic | Entry::Unresolved => None,
            };
            initialise(variable, init, &mut image, &value).map_err(|e| (e, variable.span))?;
            // SAFETY: the allocator handed out `bytes` bytes of host memory at this address for this variable alone.
            unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), address as *mut u8, image.len()) };
        }
        Ok(())
    }
}

/// Size of `name[]` from its initialiser.
fn unsized_bytes(variable: &Variable) -> u64 {
    let count = match &variable.init {
        Some(ast::Initializer::List(items)) => items.len() as u64,
        Some(_) => 1,
        None => 0,
    };
    count * u64::from(super::words::type_bytes(variable.ty))
}

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
    pub(super) functions: Vec<Function>,
    pub(super) constants: Constants,
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
    /// [`LoadError`] with a log that names line, column and opcode; see its `unsupported`.
    pub fn load(ptx: &str, allocate: &mut dyn FnMut(u64, u64) -> Option<u64>) -> Result<Program, LoadError> {
        let module = lightos_kernels::ptx::parse(ptx)
            .map_err(|e| LoadError { log: format!("ptxas-like: {e}"), unsupported: false })?;
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
            LoadError { log, unsupported }
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
        let mut scope = ModuleScope {
            constants: ConstantPool::default(),
            symbols: FxHashMap::default(),
            allocate,
            initialised: Vec::new(),
            const_bytes: 0,
            shared_bytes: 0,
            shared: FxHashMap::default(),
        };
        // Names first: bodies and initialisers may refer to what comes later.
        let mut sources: Vec<&ast::Function> = Vec::new();
        for item in &module.items {
            match item {
                Item::Variable(v) if v.linkage != Linkage::Extern || v.space == Space::Shared => {
                    scope.declare(v).map_err(|e| plain((e, v.span)))?;
                }
                Item::Function(f) => match scope.symbols.get(f.name.as_str()) {
                    Some(&Entry::Function(index)) => {
                        if f.body.is_some() {
                            sources[index as usize] = f;
                        }
                    }
                    _ => {
                        scope.symbols.insert(&f.name, Entry::Function(sources.len() as u32));
                        sources.push(f);
                    }
                },
                _ => {}
            }
        }
        for item in &module.items {
            match item {
                Item::Variable(v) if v.linkage == Linkage::Extern => {
                    scope.symbols.entry(&v.name).or_insert(Entry::Unresolved);
                }
                Item::Directive(directive) if directive.name == "alias" => {
                    let mut names = directive.args.split([',', ' ', ';']).filter(|part| !part.is_empty());
                    if let (Some(alias), Some(target)) = (names.next(), names.next())
                        && let Some(&entry) = scope.symbols.get(target)
                    {
                        scope.symbols.insert(alias, entry);
                    }
                }
                _ => {}
            }
        }
        // Device functions come first: they share one layout of shared memory, above which each kernel's own starts.
        let mut functions: Vec<Function> = Vec::new();
        functions.resize_with(sources.len(), Function::default);
        for (index, source) in sources.iter().enumerate().filter(|(_, f)| f.body.is_none()) {
            match Builtin::named(&source.name) {
                Some(builtin) => {
                    functions[index].builtin = Some(builtin);
                }
                None => {
                    scope.symbols.insert(&source.name, Entry::Unresolved);
                }
            }
        }
        for (index, source) in sources.iter().enumerate().filter(|(_, f)| !f.entry && f.body.is_some()) {
            functions[index] = Decoder::new(&mut scope, source).decode(source).map_err(plain)?;
        }
        let (common, common_names) = (scope.shared_bytes, scope.shared.clone());
        let mut kernels = Vec::new();
        for (index, source) in sources.iter().enumerate().filter(|(_, f)| f.entry && f.body.is_some()) {
            scope.shared_bytes = common;
            scope.shared.clone_from(&common_names);
            functions[index] = Decoder::new(&mut scope, source).decode(source).map_err(plain)?;
            let info =
                describe(module, source, &functions[index], &scope).map_err(|e| plain((e, source.span)))?;
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
        Ok(Program { functions, constants: scope.constants.table, heap, kernels, by_name, globals })
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
        let dynamic = shape.dynamic_shared_bytes.next_multiple_of(16);
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

/// The instruction that starts at `span`, dotted.
fn opcode_at(module: &Module, span: Span) -> Option<String> {
    fn find(body: &[ast::Statement], span: Span) -> Option<String> {
        body.iter().find_map(|statement| match statement {
            ast::Statement::Instruction(i) if i.span == span => {
                let words = std::iter::once(i.opcode.as_str()).chain(i.modifiers.iter().map(String::as_str));
                Some(words.collect::<Vec<_>>().join("."))
            }
            ast::Statement::Block(inner) => find(inner, span),
            _ => None,
        })
    }
    module.items.iter().find_map(|item| match item {
        Item::Function(f) => find(f.body.as_deref()?, span),
        _ => None,
    })
}

fn describe(
    module: &Module,
    source: &ast::Function,
    function: &Function,
    scope: &ModuleScope<'_>,
) -> Decoded<KernelInfo> {
    let params = kernel_params(&source.params)?;
    let param_bytes = params.last().map_or(0, |p| p.offset + p.size);
    let directive = |name: &str| {
        let found = source.directives.iter().find(|d| d.name == name)?;
        let mut axes = [1u32; 3];
        for (axis, text) in axes.iter_mut().zip(found.args.split(',')) {
            *axis = text.trim().parse().ok()?;
        }
        Some(axes)
    };
    let required_block = directive("reqntid");
    let product = |axes: [u32; 3]| axes.iter().fold(1u32, |product, &n| product.saturating_mul(n));
    let max_threads_per_block = required_block.or(directive("maxntid")).map_or(1024, product).clamp(1, 1024);
    // Virtual registers say little about the real allocation; what the occupancy rules need is a figure that lets the
    // largest block of this kernel launch.
    let estimate = (function.frame.words + 2 * function.frame.longs) / 4 + 16;
    let limit =
        directive("maxnreg").map_or(255, |n| n[0]).min(65_536 / max_threads_per_block.next_multiple_of(32));
    let sm = module.target.iter().find_map(|t| t.strip_prefix("sm_"));
    let digits = sm.map_or("", |t| t.trim_end_matches(|c: char| !c.is_ascii_digit()));
    Ok(KernelInfo {
        name: source.name.clone(),
        params,
        param_bytes,
        static_shared_bytes: scope.shared_bytes,
        const_bytes: scope.const_bytes as u32,
        local_bytes: function.local_bytes,
        registers: estimate.next_multiple_of(8).min(limit),
        max_threads_per_block,
        required_block,
        target_sm: digits.parse().unwrap_or(0),
    })
}
