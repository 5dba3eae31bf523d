//! What a decoder knows by name, and the space it gives out: registers, frame memory, constants.

use super::super::constants::ConstantPool;
use super::super::memory::LOCAL_LIMIT_BYTES;
use super::{Bank, Decoded, Decoder, Local, Register, Scope, invalid, unsupported};

impl<'a> Decoder<'a, '_> {
    pub(super) fn innermost(&mut self) -> &mut Scope<'a> {
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    pub(super) fn define(&mut self, name: &'a str, local: Local<'a>) {
        self.innermost().names.insert(name, local);
    }

    /// What `name` stands for in this function; module-scope names are not looked at.
    pub fn local(&self, name: &str) -> Option<Local<'a>> {
        for scope in self.scopes.iter().rev() {
            if let Some(&local) = scope.names.get(name) {
                return Some(local);
            }
            let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
            // A prefix may itself end in digits (`%rd1_<4>` does not, `%p2x` does not), so the longest digit tail is it.
            if prefix.len() < name.len()
                && let Some(&(bank, first, count)) = scope.ranges.get(prefix)
                && let Ok(number) = name[prefix.len()..].parse::<u32>()
                && number < count
            {
                let each = if bank == Bank::Quad { 2 } else { 1 };
                return Some(Local::Register(Register { bank, slot: first + number * each }));
            }
        }
        None
    }

    pub fn named_register(&self, name: &str) -> Decoded<Register> {
        match self.local(name) {
            Some(Local::Register(register)) => Ok(register),
            _ => invalid(format!("'{name}' is not a register")),
        }
    }

    // Space.

    pub(super) fn registers(&mut self, bank: Bank, count: u32) -> u32 {
        let frame = &mut self.function.frame;
        let (next, count) = match bank {
            Bank::Word => (&mut frame.words, count),
            Bank::Long => (&mut frame.longs, count),
            Bank::Predicate => (&mut frame.predicates, count),
            Bank::Quad => (&mut frame.longs, count.saturating_mul(2)),
        };
        let first = *next;
        *next = next.saturating_add(count);
        first
    }

    /// A fresh register.
    pub fn register(&mut self, bank: Bank) -> Register {
        Register { bank, slot: self.registers(bank, 1) }
    }

    /// The predicate that holds the condition code of `add.cc` and its like.
    pub fn carry(&mut self) -> u32 {
        if let Some(slot) = self.carry {
            return slot;
        }
        let slot = self.registers(Bank::Predicate, 1);
        self.carry = Some(slot);
        slot
    }

    pub(super) fn frame_space(&mut self, bytes: u64, align: u64) -> Decoded<u32> {
        let offset = u64::from(self.function.local_bytes).next_multiple_of(align);
        if offset + bytes > u64::from(LOCAL_LIMIT_BYTES) {
            return unsupported("more local memory than a thread has");
        }
        self.function.local_bytes = (offset + bytes) as u32;
        Ok(offset as u32)
    }

    pub fn constants(&mut self) -> &mut ConstantPool {
        &mut self.module.constants
    }
}
