//! Functions that a program declares and the device runtime provides: `vprintf`, `__assertfail`, `malloc`, `free`.

use std::ffi::{CString, c_char, c_int};

use super::Fault;
use super::lanes::LANES;
use super::op::{Argument, CallSite, Flow, Machine, Op};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    Printf,
    Assert,
    Malloc,
    Free,
}

impl Builtin {
    pub fn named(name: &str) -> Option<Builtin> {
        Some(match name {
            "vprintf" => Builtin::Printf,
            "__assertfail" => Builtin::Assert,
            "malloc" => Builtin::Malloc,
            "free" => Builtin::Free,
            _ => return None,
        })
    }
}

/// Longest string that is read from device memory.
const STRING_LIMIT: usize = 4096;
/// Longest output of one conversion.
const FIELD_LIMIT: usize = 1024;

pub fn run(m: &mut Machine<'_>, builtin: Builtin, op: &Op, site: &CallSite, mask: u32) -> Result<(), Flow> {
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        let value = |m: &Machine<'_>, index: usize, bytes: usize| argument(m, site, index, lane, bytes);
        let result = match builtin {
            Builtin::Printf => {
                let (format, arguments) = (value(m, 0, 8), value(m, 1, 8));
                let format = string(m, op, lane, format)?;
                let (text, count) = render(m, op, lane, &format, arguments)?;
                (m.grid.environment.print)(&text);
                (count, 4)
            }
            Builtin::Assert => {
                let message = string(m, op, lane, value(m, 0, 8))?;
                let file = string(m, op, lane, value(m, 1, 8))?;
                let line = value(m, 2, 4);
                let function = string(m, op, lane, value(m, 3, 8))?;
                let place = m.place(op, lane as u32);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let message = format!("{}:{line}: {}: `{}`", text(&file), text(&function), text(&message));
                return Err(m.fail(Fault::Assert { message, place }));
            }
            Builtin::Malloc => (m.grid.program.heap.allocate(value(m, 0, 8)).unwrap_or(0), 8),
            Builtin::Free => {
                m.grid.program.heap.free(value(m, 0, 8));
                continue;
            }
        };
        give(m, site, lane, result);
    }
    Ok(())
}

fn argument(m: &Machine<'_>, site: &CallSite, index: usize, lane: usize, bytes: usize) -> u64 {
    match site.arguments.get(index) {
        Some(&Argument::Memory(offset)) => {
            let mut value = [0; 8];
            m.warp.local.read(lane, u64::from(m.warp.path.local + offset), &mut value[..bytes]);
            u64::from_le_bytes(value)
        }
        Some(&Argument::Word(word)) => u64::from(m.words(word)[lane]),
        Some(&Argument::Long(long)) => m.longs(long)[lane],
        Some(Argument::Sink) | None => 0,
    }
}

fn give(m: &mut Machine<'_>, site: &CallSite, lane: usize, (value, length): (u64, usize)) {
    match site.results.first() {
        Some(&Argument::Memory(offset)) => {
            let at = u64::from(m.warp.path.local + offset);
            m.warp.local.write(lane, at, &value.to_le_bytes()[..length]);
        }
        Some(&Argument::Word(word)) => m.set_words(word, &[value as u32; LANES], 1 << lane),
        Some(&Argument::Long(long)) => m.set_longs(long, &[value; LANES], 1 << lane),
        Some(Argument::Sink) | None => {}
    }
}

/// Bytes at a generic address of one lane.
fn bytes(m: &mut Machine<'_>, op: &Op, lane: usize, address: u64, into: &mut [u8]) -> Result<(), Flow> {
    for (i, byte) in into.iter_mut().enumerate() {
        let address = address.wrapping_add(i as u64);
        let Some(host) = m.generic(lane, address, 1) else {
            let place = m.place(op, lane as u32);
            return Err(m.fail(Fault::IllegalAddress { address, bytes: 1, space: "global", place }));
        };
        // SAFETY: `generic` has checked that this byte may be read; bytes are always aligned.
        *byte = unsafe { <u8 as super::transfer::Element>::read(host) } as u8;
    }
    Ok(())
}

/// A NUL-terminated string at a generic address, at most [`STRING_LIMIT`] bytes of it.
fn string(m: &mut Machine<'_>, op: &Op, lane: usize, address: u64) -> Result<Vec<u8>, Flow> {
    let mut text = Vec::new();
    while text.len() < STRING_LIMIT {
        let mut byte = [0];
        bytes(m, op, lane, address.wrapping_add(text.len() as u64), &mut byte)?;
        if byte[0] == 0 {
            break;
        }
        text.push(byte[0]);
    }
    Ok(text)
}

/// The packed argument buffer of one `vprintf` call.
struct Arguments {
    at: u64,
}

impl Arguments {
    /// The next argument of `size` bytes, at its natural alignment.
    fn next(&mut self, m: &mut Machine<'_>, op: &Op, lane: usize, size: usize) -> Result<u64, Flow> {
        self.at = self.at.next_multiple_of(size as u64);
        let mut value = [0; 8];
        bytes(m, op, lane, self.at, &mut value[..size])?;
        self.at += size as u64;
        Ok(u64::from_le_bytes(value))
    }
}

/// Formats as the host's printf does. Gives the text and the number of arguments used.
fn render(
    m: &mut Machine<'_>,
    op: &Op,
    lane: usize,
    format: &[u8],
    arguments: u64,
) -> Result<(String, u64), Flow> {
    let mut out = Vec::new();
    let mut arguments = Arguments { at: arguments };
    let mut count = 0;
    let mut rest = format;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let length = rest.iter().take_while(|b| b"-+ #0123456789.*hlLqjzt".contains(b)).count();
        let (Some(&conversion), modifiers) = (rest.get(length), &rest[..length.min(rest.len())]) else {
            out.push(b'%');
            continue;
        };
        rest = &rest[length + 1..];
        if conversion == b'%' {
            out.push(b'%');
            continue;
        }
        let mut directive = vec![b'%'];
        for &b in modifiers {
            match b {
                b'*' => {
                    let width = arguments.next(m, op, lane, 4)? as u32 as i32;
                    directive.extend(width.to_string().bytes());
                }
                b'h' | b'l' | b'L' | b'q' | b'j' | b'z' | b't' => {}
                _ => directive.push(b),
            }
        }
        let long = modifiers.iter().any(|b| b"lLqjzt".contains(b));
        let short = modifiers.iter().filter(|&&b| b == b'h').count();
        count += 1;
        match conversion {
            b'd' | b'i' => {
                let raw = arguments.next(m, op, lane, if long { 8 } else { 4 })?;
                let value = match (long, short) {
                    (true, _) => raw as i64,
                    (_, 1) => i64::from(raw as i16),
                    (_, 2) => i64::from(raw as i8),
                    _ => i64::from(raw as i32),
                };
                directive.extend(b"lld");
                field(&mut out, directive, Value::Integer(value as u64));
            }
            b'u' | b'x' | b'X' | b'o' => {
                let raw = arguments.next(m, op, lane, if long { 8 } else { 4 })?;
                let value = match (long, short) {
                    (true, _) | (_, 0) => raw,
                    (_, 1) => raw & 0xffff,
                    _ => raw & 0xff,
                };
                directive.extend(b"ll");
                directive.push(conversion);
                field(&mut out, directive, Value::Integer(value));
            }
            b'c' => {
                let value = arguments.next(m, op, lane, 4)?;
                directive.push(b'c');
                field(&mut out, directive, Value::Character(value as u8));
            }
            b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' | b'A' => {
                let value = f64::from_bits(arguments.next(m, op, lane, 8)?);
                directive.push(conversion);
                field(&mut out, directive, Value::Float(value));
            }
            b's' => {
                let address = arguments.next(m, op, lane, 8)?;
                let text = string(m, op, lane, address)?;
                directive.push(b's');
                field(&mut out, directive, Value::Text(text));
            }
            b'p' => {
                let value = arguments.next(m, op, lane, 8)?;
                directive.extend(b"#llx");
                field(&mut out, directive, Value::Integer(value));
            }
            other => {
                count -= 1;
                out.push(b'%');
                out.push(other);
            }
        }
    }
    Ok((String::from_utf8_lossy(&out).into_owned(), count))
}

enum Value {
    Integer(u64),
    Character(u8),
    Float(f64),
    Text(Vec<u8>),
}

/// Appends one conversion. `directive` holds flags, width and precision in digits, and a conversion that fits `value`.
fn field(out: &mut Vec<u8>, directive: Vec<u8>, value: Value) {
    let mut buffer = [0u8; FIELD_LIMIT];
    let Ok(directive) = CString::new(directive) else { return };
    let (to, size, format) = (buffer.as_mut_ptr().cast::<c_char>(), buffer.len(), directive.as_ptr());
    let written = match value {
        // SAFETY: the buffer is `size` bytes long, the format a C string with exactly one conversion, and that takes
        // an argument of the type passed (`ll` integer, int, double, C string).
        Value::Integer(v) => unsafe { libc::snprintf(to, size, format, v) },
        // SAFETY: as above.
        Value::Character(v) => unsafe { libc::snprintf(to, size, format, c_int::from(v)) },
        // SAFETY: as above.
        Value::Float(v) => unsafe { libc::snprintf(to, size, format, v) },
        Value::Text(v) => match CString::new(v) {
            // SAFETY: as above; the string outlives the call.
            Ok(text) => unsafe { libc::snprintf(to, size, format, text.as_ptr()) },
            Err(_) => 0,
        },
    };
    let length = usize::try_from(written).unwrap_or(0).min(FIELD_LIMIT - 1);
    out.extend_from_slice(&buffer[..length]);
}
