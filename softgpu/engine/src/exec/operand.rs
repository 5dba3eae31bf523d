//! Operands: sources as register or constant slots, and the address part of memory instructions.

use lightos_kernels::ptx::ast::{Constant, Operand, Space, Type};

use super::decode::{Bank, Decoded, Decoder, Local, Register, bank, invalid, unsupported};
use super::lanes::CONSTANT;
use super::memory::{NARROW, PARAM_WINDOW, SHARED_WINDOW, space};
use super::op::{NONE, Op};
use super::scope::Symbol;
use super::words::{is_float, type_bytes};
use super::{moves, special};

/// The address part of a memory instruction, for [`Op`]'s `a`, `extra` and `flags`.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: u32,
    pub offset: u64,
    pub flags: u32,
}

impl<'a> Decoder<'a, '_> {
    /// A source of type `ty`: the slot of a register or of a constant.
    pub fn source(&mut self, operand: &'a Operand, ty: Type) -> Decoded<u32> {
        let wanted = bank(ty)?;
        match operand {
            Operand::Constant(constant) => self.constant(constant, ty),
            Operand::Ident(name) => match self.local(name) {
                Some(Local::Register(register)) => self.fitting(register, wanted, name),
                _ => self.value_of(name, 0, wanted),
            },
            Operand::Offset { base, offset } => self.value_of(base, *offset, wanted),
            Operand::Not(name) => {
                let register = self.named_register(name)?;
                if register.bank != Bank::Predicate || wanted != Bank::Predicate {
                    return invalid(format!("'!{name}' is not a predicate"));
                }
                let negated = self.register(Bank::Predicate).slot;
                self.emit(Op { dst: negated, a: register.slot, ..Op::new(moves::not_predicate()) });
                Ok(negated)
            }
            _ => invalid("this operand is not a value"),
        }
    }

    fn fitting(&mut self, register: Register, wanted: Bank, name: &str) -> Decoded<u32> {
        match (register.bank, wanted) {
            (have, wanted) if have == wanted => Ok(register.slot),
            (Bank::Long, Bank::Word) => {
                let narrow = self.register(Bank::Word).slot;
                self.emit(Op { dst: narrow, a: register.slot, ..Op::new(moves::narrow()) });
                Ok(narrow)
            }
            _ => invalid(format!("register '{name}' has the wrong size")),
        }
    }

    fn constant(&mut self, constant: &Constant, ty: Type) -> Decoded<u32> {
        if ty == Type::Pred {
            return match constant {
                Constant::Int { value, .. } => Ok(CONSTANT | u32::from(*value != 0)),
                _ => invalid("a float is no predicate"),
            };
        }
        let bits = constant_bits(constant, ty)?;
        Ok(match bank(ty)? {
            Bank::Long => self.constants().long(bits),
            Bank::Quad => return unsupported("a 128-bit constant"),
            _ => self.constants().word(bits as u32),
        })
    }

    /// The value of a name that is no register: a special register, or the address of a variable or function.
    fn value_of(&mut self, name: &'a str, offset: i64, wanted: Bank) -> Decoded<u32> {
        if name == "%is_explicit_cluster" && wanted == Bank::Predicate {
            return Ok(CONSTANT);
        }
        if matches!(wanted, Bank::Predicate | Bank::Quad) {
            return invalid(format!("'{name}' is not a register of this type"));
        }
        if name.starts_with('%') || name == "WARP_SZ" {
            let Some((run, wide, flags)) = special::lookup(name) else {
                return unsupported(format!("'{name}'"));
            };
            let register = self.register(if wide { Bank::Long } else { Bank::Word });
            self.emit(Op { dst: register.slot, flags, ..Op::new(run) });
            return match (wide, wanted) {
                (false, Bank::Long) => {
                    let long = self.register(Bank::Long).slot;
                    self.emit(Op { dst: long, a: register.slot, ..Op::new(moves::widen(false)) });
                    Ok(long)
                }
                _ => self.fitting(register, wanted, name),
            };
        }
        let fixed = match self.local(name) {
            Some(Local::Shared(at)) => u64::from(at),
            Some(Local::KernelParam(at)) => PARAM_WINDOW | u64::from(at),
            Some(Local::Frame { offset: at, param }) => {
                let long = self.register(Bank::Long);
                let extra = (u64::from(at)).wrapping_add_signed(offset);
                let op =
                    Op { dst: long.slot, extra, flags: u32::from(param), ..Op::new(moves::frame_address) };
                self.emit(op);
                return self.fitting(long, wanted, name);
            }
            Some(_) => return invalid(format!("'{name}' is not a value")),
            None => match self.module.symbol(name)? {
                Some(Symbol::Variable { address }) | Some(Symbol::Function { address, .. }) => address,
                Some(Symbol::Shared(at)) => u64::from(at),
                Some(Symbol::Dynamic) => {
                    let register = self.dynamic_base(offset);
                    return self.fitting(register, wanted, name);
                }
                None => return invalid(format!("unknown symbol '{name}'")),
            },
        };
        let value = fixed.wrapping_add_signed(offset);
        Ok(match wanted {
            Bank::Long => self.constants().long(value),
            _ => self.constants().word(value as u32),
        })
    }

    /// The address of dynamic shared memory, which starts where the kernel's static part ends.
    fn dynamic_base(&mut self, offset: i64) -> Register {
        let register = self.register(Bank::Long);
        self.emit(Op { dst: register.slot, extra: offset as u64, ..Op::new(moves::dynamic_shared) });
        register
    }

    /// `[base+offset]` of an instruction that names `named` as its space.
    pub fn address(&mut self, operand: &'a Operand, named: Space) -> Decoded<Address> {
        let code = match named {
            Space::Generic => space::GENERIC,
            Space::Global | Space::Const => space::GLOBAL,
            Space::Shared => space::SHARED,
            Space::Local => space::LOCAL,
            Space::Param => space::PARAM,
            _ => return unsupported("this state space cannot be accessed"),
        };
        let Operand::Address { base, offset } = operand else {
            return invalid("expected an address");
        };
        let fixed =
            |at: u64, flags: u32| Ok(Address { base: NONE, offset: at.wrapping_add_signed(*offset), flags });
        let name = match &**base {
            Operand::Constant(Constant::Int { value, .. }) => return fixed(*value, code),
            Operand::Ident(name) => name,
            _ => return invalid("an address starts with a register, a variable or a number"),
        };
        match self.local(name) {
            Some(Local::Register(register)) => match register.bank {
                Bank::Long => Ok(Address { base: register.slot, offset: *offset as u64, flags: code }),
                Bank::Word => {
                    Ok(Address { base: register.slot, offset: *offset as u64, flags: code | NARROW })
                }
                Bank::Predicate | Bank::Quad => invalid(format!("'{name}' cannot be an address")),
            },
            Some(Local::Frame { offset: at, .. }) => fixed(u64::from(at), space::FRAME),
            Some(Local::KernelParam(at)) => fixed(u64::from(at), space::PARAM),
            Some(Local::Shared(at)) => self.shared(u64::from(at).wrapping_add_signed(*offset), code),
            Some(_) => invalid(format!("'{name}' has no address")),
            None => match self.module.symbol(name)? {
                Some(Symbol::Variable { address }) => fixed(address, code),
                Some(Symbol::Shared(at)) => self.shared(u64::from(at).wrapping_add_signed(*offset), code),
                Some(Symbol::Dynamic) => {
                    let base = self.dynamic_base(0).slot;
                    Ok(Address { base, offset: *offset as u64, flags: space::SHARED })
                }
                Some(Symbol::Function { .. }) => invalid(format!("'{name}' is a function")),
                None => invalid(format!("unknown symbol '{name}'")),
            },
        }
    }

    fn shared(&self, offset: u64, code: u32) -> Decoded<Address> {
        let window = if code == space::GENERIC { SHARED_WINDOW } else { 0 };
        Ok(Address { base: NONE, offset: offset + window, flags: code })
    }

    /// An operand that must be an integer constant.
    pub fn immediate(&self, operand: &Operand) -> Decoded<u64> {
        match operand {
            Operand::Constant(Constant::Int { value, .. }) => Ok(*value),
            _ => invalid("expected an integer constant"),
        }
    }
}

/// The bits of `constant` as a value of type `ty`.
pub fn constant_bits(constant: &Constant, ty: Type) -> Decoded<u64> {
    Ok(match (constant, ty) {
        (Constant::Int { value, .. }, Type::F32) if *value != 0 => {
            u64::from((*value as i64 as f32).to_bits())
        }
        (Constant::Int { value, .. }, Type::F64) if *value != 0 => (*value as i64 as f64).to_bits(),
        (Constant::Int { value, .. }, _) => match type_bytes(ty) {
            8 | 16 => *value,
            bytes => value & ((1 << (bytes * 8)) - 1),
        },
        (Constant::F32(bits), Type::F64) => f64::from(f32::from_bits(*bits)).to_bits(),
        (Constant::F32(bits), _) => u64::from(*bits),
        (Constant::F64(bits), Type::F16) => u64::from(half::f16::from_f64(f64::from_bits(*bits)).to_bits()),
        (Constant::F64(bits), Type::BF16) => u64::from(half::bf16::from_f64(f64::from_bits(*bits)).to_bits()),
        (Constant::F64(bits), ty) if type_bytes(ty) == 8 => *bits,
        (Constant::F64(bits), ty) if is_float(ty) || type_bytes(ty) == 4 => {
            u64::from((f64::from_bits(*bits) as f32).to_bits())
        }
        _ => return invalid("this constant does not fit the instruction's type"),
    })
}
