//! Module scope while decoding: what names stand for, and where variables live.

use lightos_kernels::ptx::ast::{self, Item, Linkage, Module, Space, Span, Variable};
use rustc_hash::FxHashMap;

use super::call::code_address;
use super::constants::ConstantPool;
use super::decode::{Decoded, Reject, invalid, unsupported};
use super::layout::{initialise, variable_size};

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

/// A module-scope name before it is used.
#[derive(Clone, Copy)]
pub enum Entry<'a> {
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
    pub symbols: FxHashMap<&'a str, Entry<'a>>,
    /// Gives zeroed device memory: bytes, alignment.
    pub allocate: &'a mut dyn FnMut(u64, u64) -> Option<u64>,
    /// Variables that have an initialiser to write once all addresses are known.
    initialised: Vec<(&'a Variable, u64, u64)>,
    pub const_bytes: u64,
    /// Where `.const` variables lie: start and end.
    pub const_ranges: Vec<(u64, u64)>,
    /// Shared memory of the function being decoded, so far.
    pub shared_bytes: u32,
    /// Module-scope shared variables that the function being decoded has named.
    pub shared: FxHashMap<&'a str, u32>,
}

impl<'a> ModuleScope<'a> {
    pub fn new(allocate: &'a mut dyn FnMut(u64, u64) -> Option<u64>) -> ModuleScope<'a> {
        ModuleScope {
            constants: ConstantPool::default(),
            symbols: FxHashMap::default(),
            allocate,
            initialised: Vec::new(),
            const_bytes: 0,
            const_ranges: Vec::new(),
            shared_bytes: 0,
            shared: FxHashMap::default(),
        }
    }

    /// Enters all names of the module and gives its functions, each once, in the order of their numbers.
    pub fn collect(&mut self, module: &'a Module) -> Result<Vec<&'a ast::Function>, (Reject, Span)> {
        // Names first: bodies and initialisers may refer to what comes later.
        let mut sources: Vec<&'a ast::Function> = Vec::new();
        for item in &module.items {
            match item {
                Item::Variable(v) if v.linkage != Linkage::Extern || v.space == Space::Shared => {
                    self.declare(v).map_err(|e| (e, v.span))?;
                }
                Item::Function(f) => match self.symbols.get(f.name.as_str()) {
                    Some(&Entry::Function(index)) => {
                        if f.body.is_some() {
                            sources[index as usize] = f;
                        }
                    }
                    _ => {
                        self.symbols.insert(&f.name, Entry::Function(sources.len() as u32));
                        sources.push(f);
                    }
                },
                _ => {}
            }
        }
        for item in &module.items {
            match item {
                Item::Variable(v) if v.linkage == Linkage::Extern => {
                    self.symbols.entry(&v.name).or_insert(Entry::Unresolved);
                }
                Item::Directive(directive) if directive.name == "alias" => {
                    let mut names = directive.args.split([',', ' ', ';']).filter(|part| !part.is_empty());
                    if let (Some(alias), Some(target)) = (names.next(), names.next())
                        && let Some(&entry) = self.symbols.get(target)
                    {
                        self.symbols.insert(alias, entry);
                    }
                }
                _ => {}
            }
        }
        Ok(sources)
    }

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
                    self.const_ranges.push((address, address + bytes));
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

    /// Writes the variables' initial values, once all addresses are known.
    pub fn write_initialisers(&self) -> Result<(), (Reject, Span)> {
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
