//! Calls: direct, through function pointers, to built-ins; and `ret`.
//!
//! A callee runs as a child path with the frame above its caller's. Arguments are copied into its parameter slots on
//! the way in, results into the caller's on the way out, for the lanes that return.

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::Fault;
use super::access::{Access, Touch};
use super::builtin;
use super::decode::{Bank, Decoded, Decoder, Local, invalid, unsupported};
use super::lanes::Bases;
use super::memory::{CODE_WINDOW, LOCAL_LIMIT_BYTES};
use super::op::{Argument, CallSite, Flow, Kind, Machine, NONE, Op, Slot};
use super::scope::Symbol;
use super::words::Words;

/// Frames per lane.
const DEPTH_LIMIT: u32 = 4096;
/// Register frames per lane, all together.
const REGISTER_LIMIT_BYTES: u64 = 2 << 20;
/// Bytes between two code addresses.
const CODE_STEP: u64 = 16;

/// The address of function number `index`, as a program sees it.
pub fn code_address(index: u32) -> u64 {
    CODE_WINDOW + CODE_STEP + u64::from(index) * CODE_STEP
}

fn function_at(address: u64) -> Option<u32> {
    let offset = address.checked_sub(CODE_WINDOW + CODE_STEP)?;
    (offset % CODE_STEP == 0).then(|| u32::try_from(offset / CODE_STEP).ok())?
}

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    w.ignore(&["uni"]);
    if i.opcode == "ret" {
        d.store_returned()?;
        d.emit(Op::of(Kind::End, ret));
        return Ok(());
    }
    let mut rest = i.operands.as_slice();
    let mut site = CallSite::default();
    if let [Operand::List(results), tail @ ..] = rest {
        for result in results {
            site.results.push(argument(d, result, true)?);
        }
        rest = tail;
    }
    let [Operand::Ident(target), tail @ ..] = rest else { return invalid("expected a function") };
    let mut tail = tail;
    if let [Operand::List(arguments), rest @ ..] = tail {
        for argument_operand in arguments {
            site.arguments.push(argument(d, argument_operand, false)?);
        }
        tail = rest;
    }
    match tail {
        [] => {}
        [Operand::Ident(list)] => site.targets = targets(d, list)?,
        _ => return invalid("a call ends with a prototype or a list of targets"),
    }
    let mut op = Op { access: Access::of(Touch::Call), ..Op::new(call) };
    op.b = d.function.calls.len() as u32;
    d.function.calls.push(site);
    match d.local(target) {
        Some(Local::Register(register)) if register.bank == Bank::Long => op.a = register.slot,
        Some(_) => return invalid(format!("'{target}' is not a function")),
        None => match d.module.symbol(target)? {
            Some(Symbol::Function { index, .. }) => op.extra = u64::from(index),
            _ => return invalid(format!("unknown function '{target}'")),
        },
    }
    d.emit(op);
    Ok(())
}

/// The numbers of the functions in target list `name`; a prototype lists none.
fn targets(d: &mut Decoder<'_, '_>, name: &str) -> Decoded<Vec<u32>> {
    let Some(Local::Targets(names)) = d.local(name) else {
        return invalid(format!("'{name}' is no prototype and no target list"));
    };
    let mut numbers = Vec::with_capacity(names.len());
    for name in names {
        match d.module.symbol(name)? {
            Some(Symbol::Function { index, .. }) => numbers.push(index),
            _ => return invalid(format!("unknown function '{name}'")),
        }
    }
    Ok(numbers)
}

fn argument<'a>(d: &mut Decoder<'a, '_>, operand: &'a Operand, result: bool) -> Decoded<Argument> {
    match operand {
        Operand::Sink => Ok(Argument::Sink),
        Operand::Ident(name) => match d.local(name) {
            Some(Local::Frame { offset, .. }) => Ok(Argument::Memory(offset)),
            Some(Local::Register(register)) => match register.bank {
                Bank::Word => Ok(Argument::Word(register.slot)),
                Bank::Long => Ok(Argument::Long(register.slot)),
                Bank::Predicate => invalid("a predicate cannot be passed to a function"),
                Bank::Quad => unsupported("a 128-bit register as an argument"),
            },
            _ => invalid(format!("'{name}' cannot be passed to a function")),
        },
        // Constants carry no width; as many bytes as the parameter has are taken.
        Operand::Constant(_) if !result => Ok(Argument::Long(d.source(operand, Type::B64)?)),
        _ => invalid("this operand cannot be passed to a function"),
    }
}

/// Direct with the function's index in `extra`, or by the address in `a`; `b` is the call site.
pub fn call(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let mut last = NONE;
    let caller = m.warp.path;
    let mut left = mask;
    while left != 0 {
        let (index, group) = if op.a == NONE {
            (op.extra as u32, left)
        } else {
            let pointers = m.longs(op.a);
            let address = pointers[left.trailing_zeros() as usize];
            let group =
                (0..32).filter(|&i| left >> i & 1 != 0 && pointers[i] == address).fold(0, |g, i| g | 1 << i);
            let known = function_at(address).filter(|&f| callable(m, op, f));
            let Some(index) = known else {
                let what = format!("call of {address:#x}, which is no function");
                let place = m.place(op, left.trailing_zeros());
                return m.fail(Fault::IllegalInstruction { what, place });
            };
            (index, group)
        };
        left &= !group;
        match enter(m, op, index, group) {
            Err(flow) => return flow,
            Ok(NONE) => {}
            Ok(child) => last = child,
        }
    }
    if last == NONE {
        return Flow::Next;
    }
    m.warp.paths[m.warp.current as usize].pc = caller.pc + 1;
    m.warp.enter(last);
    Flow::Jump
}

/// Whether an indirect call may go to function number `index`: a device function, on the call's list if it has one.
fn callable(m: &Machine<'_>, op: &Op, index: u32) -> bool {
    let program = m.grid.program;
    let site = &program.functions[m.warp.path.function as usize].calls[op.b as usize];
    let function = program.functions.get(index as usize);
    let exists = function.is_some_and(|f| !f.entry && (f.builtin.is_some() || !f.ops.is_empty()));
    exists && (site.targets.is_empty() || site.targets.contains(&index))
}

/// Adds a path in function `index` for the lanes in `mask` and gives its number; a built-in runs at once and gives
/// [`NONE`].
fn enter(m: &mut Machine<'_>, op: &Op, index: u32, mask: u32) -> Result<u32, Flow> {
    let program = m.grid.program;
    let caller = m.warp.path;
    let callee = &program.functions[index as usize];
    let function = &program.functions[caller.function as usize];
    let site = &function.calls[op.b as usize];
    if let Some(builtin) = callee.builtin {
        return builtin::run(m, builtin, op, site, mask).map(|()| NONE);
    }
    if callee.entry {
        let what = format!("call of {}, which is a kernel", callee.name);
        let place = m.place(op, mask.trailing_zeros());
        return Err(m.fail(Fault::IllegalInstruction { what, place }));
    }
    // A result that the callee does not give stays undefined, as it does in hardware: compilers declare `void` functions of
    // other modules as returning a value.
    if site.arguments.len() != callee.params.len() {
        let what = format!("call of {} with other parameters than it has", callee.name);
        let place = m.place(op, mask.trailing_zeros());
        return Err(m.fail(Fault::IllegalInstruction { what, place }));
    }
    let local = (caller.local + function.local_bytes + caller.taken).next_multiple_of(16);
    let base = Bases {
        words: caller.base.words + function.frame.words,
        longs: caller.base.longs + function.frame.longs,
        predicates: caller.base.predicates + function.frame.predicates,
    };
    let register_bytes =
        u64::from(base.words + callee.frame.words) * 4 + u64::from(base.longs + callee.frame.longs) * 8;
    if caller.depth >= DEPTH_LIMIT
        || local + callee.local_bytes > LOCAL_LIMIT_BYTES
        || register_bytes > REGISTER_LIMIT_BYTES
    {
        let place = m.place(op, mask.trailing_zeros());
        return Err(m.fail(Fault::StackOverflow { place }));
    }
    m.warp.registers.reserve(base, callee.frame);
    m.warp.local.reserve(local + callee.local_bytes);
    for (&argument, &slot) in site.arguments.iter().zip(&callee.params) {
        pass(m, caller.local, argument, local, slot, mask, true);
    }
    Ok(m.warp.call(index, mask, base, local))
}

/// Copies one argument into the callee's `slot` (`inward`), or a result out of it.
fn pass(
    m: &mut Machine<'_>,
    caller: u32,
    argument: Argument,
    callee: u32,
    slot: Slot,
    mask: u32,
    inward: bool,
) {
    for lane in (0..32usize).filter(|lane| mask >> lane & 1 != 0) {
        let inner = u64::from(callee + slot.offset);
        match argument {
            Argument::Sink => {}
            Argument::Memory(offset) => {
                let outer = u64::from(caller + offset);
                let (from, to) = if inward { (outer, inner) } else { (inner, outer) };
                m.warp.local.copy(lane, from, to, slot.bytes);
            }
            Argument::Word(_) | Argument::Long(_) => {
                let mut bytes = [0u8; 8];
                let length = (slot.bytes as usize).min(8);
                if inward {
                    let value = match argument {
                        Argument::Word(word) => u64::from(m.words(word)[lane]),
                        Argument::Long(long) => m.longs(long)[lane],
                        _ => 0,
                    };
                    m.warp.local.write(lane, inner, &value.to_le_bytes()[..length]);
                    continue;
                }
                m.warp.local.read(lane, inner, &mut bytes[..length]);
                let value = u64::from_le_bytes(bytes);
                match argument {
                    Argument::Word(word) => m.set_words(word, &[value as u32; 32], 1 << lane),
                    Argument::Long(long) => m.set_longs(long, &[value; 32], 1 << lane),
                    _ => {}
                }
            }
        }
    }
}

/// Returns the lanes in `mask` to the caller with the results; from a kernel, ends them.
pub fn ret(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let callee = m.warp.path;
    if callee.depth == 0 {
        return super::control::exit(m, op, mask);
    }
    let mut above = callee.parent;
    while m.warp.paths[above as usize].depth == callee.depth {
        above = m.warp.paths[above as usize].parent;
    }
    let caller = m.warp.paths[above as usize];
    let program = m.grid.program;
    let function = &program.functions[caller.function as usize];
    let site = &function.calls[function.ops[caller.pc as usize - 1].b as usize];
    m.warp.registers.base = caller.base;
    for (&result, &slot) in site.results.iter().zip(&program.functions[callee.function as usize].returns) {
        pass(m, caller.local, result, callee.local, slot, mask, false);
    }
    m.warp.registers.base = callee.base;
    m.warp.retire(mask)
}
