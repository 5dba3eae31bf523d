//! Function bodies to flat lists of [`Op`]: scopes, registers, labels, and the emission of instructions.
//!
//! The families of instructions (`alu`, `float`, `convert`, ...) decide on handlers; this file owns what they share.
//! Names, registers and frame space are in `names`.

mod names;

use lightos_kernels::ptx::ast::{self, Instruction, Operand, Space, Span, Statement, Type, Variable};
use rustc_hash::FxHashMap;

use super::lanes::Bases;
use super::op::{Function, Handler, Kind, NEGATED, NONE, Op, Slot};
use super::scope::ModuleScope;
use super::words::{Words, is_signed, type_bytes};
use super::{
    alu_bits, alu_int, atomics, call, cfg, cluster, collective, compare, control, convert, float, hints,
    matrix, mbarrier, moves, stack, surface, texture, video, wmma,
};

/// Most virtual registers of a bank in one function.
const REGISTER_LIMIT: u32 = 1 << 18;

/// Why an instruction was not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject {
    /// PTX that this machine does not carry.
    Unsupported(String),
    /// Not PTX.
    Invalid(String),
}

pub type Decoded<T = ()> = Result<T, Reject>;

pub fn invalid<T>(what: impl Into<String>) -> Decoded<T> {
    Err(Reject::Invalid(what.into()))
}

pub fn unsupported<T>(what: impl Into<String>) -> Decoded<T> {
    Err(Reject::Unsupported(what.into()))
}

/// Which register file a register lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    Word,
    Long,
    Predicate,
    /// 128 bits: two consecutive slots of the 64-bit file, the low half first.
    Quad,
}

pub fn bank(ty: Type) -> Decoded<Bank> {
    match type_bytes(ty) {
        _ if ty == Type::Pred => Ok(Bank::Predicate),
        1 | 2 | 4 => Ok(Bank::Word),
        8 => Ok(Bank::Long),
        _ => Ok(Bank::Quad),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    pub bank: Bank,
    pub slot: u32,
}

/// What a name stands for inside a function.
#[derive(Clone, Copy, Debug)]
pub enum Local<'a> {
    Register(Register),
    /// A variable in the frame's local memory; `param` for the `.param` space.
    Frame {
        offset: u32,
        param: bool,
    },
    /// A kernel parameter, at this offset in the parameter buffer.
    KernelParam(u32),
    Shared(u32),
    Label(u32),
    Targets(&'a [String]),
}

#[derive(Default)]
struct Scope<'a> {
    names: FxHashMap<&'a str, Local<'a>>,
    /// `%r<10>` by prefix: bank, first slot, count.
    ranges: FxHashMap<&'a str, (Bank, u32, u32)>,
}

pub struct Decoder<'a, 'm> {
    pub module: &'m mut ModuleScope<'a>,
    pub function: Function,

    scopes: Vec<Scope<'a>>,
    /// Program counter of each label, once seen.
    labels: Vec<u32>,
    guard: u32,
    line: u32,
    carry: Option<u32>,
    /// Registers that stand for `.reg` results: stored to their frame slot before `ret`.
    returned: Vec<(Register, u32, Type)>,
}

impl<'a, 'm> Decoder<'a, 'm> {
    pub fn new(module: &'m mut ModuleScope<'a>, source: &'a ast::Function) -> Decoder<'a, 'm> {
        let function = Function { name: source.name.clone(), entry: source.entry, ..Function::default() };
        Decoder {
            module,
            function,

            scopes: vec![Scope::default()],
            labels: Vec::new(),
            guard: NONE,
            line: source.span.line,
            carry: None,
            returned: Vec::new(),
        }
    }

    /// Decodes the whole function; an error comes with the place it arose at.
    pub fn decode(mut self, source: &'a ast::Function) -> Result<Function, (Reject, Span)> {
        self.parameters(source).map_err(|e| (e, source.span))?;
        if let Some(body) = &source.body {
            self.scope(body)?;
            self.finish_return().map_err(|e| (e, source.span))?;
            let Bases { words, longs, predicates } = self.function.frame;
            if words.max(longs).max(predicates) > REGISTER_LIMIT {
                return Err((
                    Reject::Unsupported("more registers than a thread has".to_owned()),
                    source.span,
                ));
            }
            cfg::link(&mut self.function, &self.labels).map_err(|e| (e, source.span))?;
        }
        Ok(self.function)
    }

    fn parameters(&mut self, source: &'a ast::Function) -> Decoded {
        if source.entry {
            for (param, offset) in source.params.iter().zip(super::layout::kernel_params(&source.params)?) {
                self.define(&param.name, Local::KernelParam(offset.offset as u32));
            }
            return Ok(());
        }
        for (list, returned) in [(&source.params, false), (&source.returns, true)] {
            for variable in list {
                let (bytes, align) = super::layout::variable_size(variable)?;
                let offset = self.frame_space(bytes, align)?;
                let slot = Slot { offset, bytes: bytes as u32 };
                if returned {
                    self.function.returns.push(slot);
                } else {
                    self.function.params.push(slot);
                }
                if variable.space != Space::Register {
                    self.define(&variable.name, Local::Frame { offset, param: true });
                    continue;
                }
                let register = self.register(bank(variable.ty)?);
                self.define(&variable.name, Local::Register(register));
                if returned {
                    self.returned.push((register, offset, variable.ty));
                } else {
                    self.emit(moves::load_frame(variable.ty, register.slot, offset)?);
                }
            }
        }
        Ok(())
    }

    fn scope(&mut self, body: &'a [Statement]) -> Result<(), (Reject, Span)> {
        for statement in body {
            match statement {
                Statement::Label(name, _) => {
                    let id = self.labels.len() as u32;
                    self.labels.push(NONE);
                    self.define(name, Local::Label(id));
                }
                Statement::BranchTargets { label, targets, .. }
                | Statement::CallTargets { label, targets, .. } => {
                    self.define(label, Local::Targets(targets));
                }
                Statement::CallPrototype { label, .. } => self.define(label, Local::Targets(&[])),
                _ => {}
            }
        }
        for statement in body {
            match statement {
                Statement::Label(name, _) => {
                    if let Some(Local::Label(id)) = self.local(name) {
                        self.labels[id as usize] = self.function.ops.len() as u32;
                    }
                    self.guard = NONE;
                    self.emit(Op::of(Kind::Label, control::reconverge));
                }
                Statement::Variable(variable) => {
                    self.variable(variable).map_err(|e| (e, variable.span))?;
                }
                Statement::Block(inner) => {
                    self.scopes.push(Scope::default());
                    self.scope(inner)?;
                    self.scopes.pop();
                }
                Statement::Instruction(instruction) => {
                    self.instruction(instruction).map_err(|e| (e, instruction.span))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &'a Variable) -> Decoded {
        match variable.space {
            Space::Register => {
                let bank = bank(variable.ty)?;
                match variable.count {
                    None => {
                        let register = self.register(bank);
                        self.define(&variable.name, Local::Register(register));
                    }
                    Some(count) => {
                        let first = self.registers(bank, count);
                        self.innermost().ranges.insert(&variable.name, (bank, first, count));
                    }
                }
            }
            Space::Local | Space::Param => {
                let (bytes, align) = super::layout::variable_size(variable)?;
                let offset = self.frame_space(bytes, align)?;
                self.define(&variable.name, Local::Frame { offset, param: variable.space == Space::Param });
            }
            Space::Shared => {
                let (bytes, align) = super::layout::variable_size(variable)?;
                let offset = self.module.shared_space(bytes, align)?;
                self.define(&variable.name, Local::Shared(offset));
            }
            Space::Global | Space::Const => self.module.declare(variable)?,
            _ => return unsupported("a variable in this state space is not supported"),
        }
        Ok(())
    }

    fn instruction(&mut self, i: &'a Instruction) -> Decoded {
        self.line = i.span.line;
        self.guard = NONE;
        if let Some(guard) = &i.guard {
            let register = self.named_register(&guard.register)?;
            if register.bank != Bank::Predicate {
                return invalid(format!("guard {} is not a predicate", guard.register));
            }
            self.guard = register.slot | if guard.negated { NEGATED } else { 0 };
        }
        let words = Words::new(&i.modifiers);
        let d = &mut *self;
        match i.opcode.as_str() {
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "abs" | "neg" | "sad"
            | "mul24" | "mad24" | "addc" | "subc" | "madc" => alu_int::arithmetic(d, i, &words),
            "sqrt" | "rcp" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "copysign" | "testp" => {
                float::function(d, i, &words)
            }
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "lop3" | "popc" | "clz"
            | "bfind" | "fns" | "brev" | "bfe" | "bfi" | "bmsk" | "szext" | "prmt" | "dp4a" | "dp2a" => {
                alu_bits::decode(d, i, &words)
            }
            "setp" | "set" | "selp" | "slct" => compare::decode(d, i, &words),
            "cvt" => convert::decode(d, i, &words),
            "mov" | "ld" | "ldu" | "st" | "cvta" | "isspacep" | "cp" => moves::decode(d, i, &words),
            "mapa" | "getctarank" => cluster::address(d, i, &words),
            "prefetch" | "prefetchu" | "discard" | "applypriority" | "createpolicy" | "brkpt" | "pmevent"
            | "griddepcontrol" | "setmaxnreg" => hints::decode(d, i, &words),
            "atom" | "red" => atomics::decode(d, i, &words),
            "bra" | "brx" | "exit" | "bar" | "barrier" | "membar" | "fence" | "trap" | "nanosleep" => {
                control::decode(d, i, &words)
            }
            "call" | "ret" => call::decode(d, i, &words),
            "alloca" | "stacksave" | "stackrestore" => stack::decode(d, i, &words),
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => collective::decode(d, i, &words),
            "wmma" => wmma::decode(d, i, &words),
            "mbarrier" => mbarrier::decode(d, i, &words),
            "mma" | "ldmatrix" | "stmatrix" | "movmatrix" => matrix::decode(d, i, &words),
            "tex" | "tld4" | "txq" | "suq" => texture::decode(d, i, &words),
            "suld" | "sust" => surface::decode(d, i, &words),
            video if video.starts_with('v') => video::decode(d, i, &words),
            _ => unsupported(""),
        }?;
        match words.left() {
            Some(word) => unsupported(format!("modifier '.{word}'")),
            None => Ok(()),
        }
    }

    // Emission.

    /// Adds an instruction under the guard of the one being decoded.
    pub fn emit(&mut self, mut op: Op) {
        op.guard = self.guard;
        op.line = self.line;
        self.function.ops.push(op);
    }

    /// Adds entries to the side table and gives the index of the first.
    pub fn list(&mut self, entries: impl IntoIterator<Item = u32>) -> u32 {
        let start = self.function.lists.len() as u32;
        self.function.lists.extend(entries);
        start
    }

    /// Emits a lifted function: operand 0 is the destination, the others the sources, with these types.
    pub fn alu(&mut self, i: &'a Instruction, run: Handler, dst: Type, sources: &[Type]) -> Decoded {
        self.alu_flags(i, run, dst, sources, 0)
    }

    pub fn alu_flags(
        &mut self,
        i: &'a Instruction,
        run: Handler,
        dst: Type,
        sources: &[Type],
        flags: u32,
    ) -> Decoded {
        operands(i, sources.len() + 1)?;
        let mut op = Op { flags, ..Op::new(run) };
        let fields = [&mut op.a, &mut op.b, &mut op.c, &mut op.d];
        for ((field, &ty), operand) in fields.into_iter().zip(sources).zip(&i.operands[1..]) {
            *field = self.source(operand, ty)?;
        }
        self.emit_to(op, &i.operands[0], dst)
    }

    /// Emits `op` with `operand` as its destination of type `ty`, widened where the register is wider.
    pub fn emit_to(&mut self, mut op: Op, operand: &'a Operand, ty: Type) -> Decoded {
        let wanted = bank(ty)?;
        let register = match operand {
            Operand::Sink => self.register(wanted),
            Operand::Ident(name) => self.named_register(name)?,
            _ => return invalid("the destination is not a register"),
        };
        if register.bank == wanted {
            op.dst = register.slot;
            self.emit(op);
            return Ok(());
        }
        if (wanted, register.bank) != (Bank::Word, Bank::Long) {
            return invalid("the destination register has the wrong size");
        }
        let narrow = self.register(Bank::Word).slot;
        op.dst = narrow;
        self.emit(op);
        let widen = moves::widen(is_signed(ty));
        self.emit(Op { dst: register.slot, a: narrow, ..Op::new(widen) });
        Ok(())
    }

    /// The slot of a destination register of exactly this type; a sink gets a scratch register.
    pub fn destination(&mut self, operand: &Operand, ty: Type) -> Decoded<u32> {
        let wanted = bank(ty)?;
        match operand {
            Operand::Sink => Ok(self.register(wanted).slot),
            Operand::Ident(name) => {
                let register = self.named_register(name)?;
                if register.bank == wanted {
                    Ok(register.slot)
                } else {
                    invalid(format!("'{name}' has the wrong size"))
                }
            }
            _ => invalid("the destination is not a register"),
        }
    }

    /// Stores the `.reg` results of a device function where the caller looks for them.
    pub fn store_returned(&mut self) -> Decoded {
        for (register, offset, ty) in self.returned.clone() {
            self.emit(moves::store_frame(ty, register.slot, offset)?);
        }
        Ok(())
    }

    fn finish_return(&mut self) -> Decoded {
        self.guard = NONE;
        self.store_returned()?;
        self.emit(Op::of(Kind::End, call::ret));
        Ok(())
    }
}

/// Checks the number of operands.
pub fn operands(i: &Instruction, count: usize) -> Decoded {
    if i.operands.len() == count {
        Ok(())
    } else {
        invalid(format!("expected {count} operands, found {}", i.operands.len()))
    }
}
