//! Constant expressions, evaluated while they are read.

use super::{Parse, Parser};
use crate::ptx::ast::Constant;
use crate::ptx::constant;
use crate::ptx::error::ParseErrorKind;
use crate::ptx::lexer::Kind;

/// An integer that an expression came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Integer {
    pub value: u64,
    pub unsigned: bool,
}

impl Integer {
    /// The value where it is not negative.
    pub fn filter_unsigned(self) -> Option<u64> {
        (self.unsigned || i64::try_from(self.value).is_ok()).then_some(self.value)
    }
}

impl Parser<'_> {
    /// Whether the current token can begin a constant expression.
    pub(super) fn at_constant(&self) -> bool {
        match self.token.kind {
            Kind::Int { .. } | Kind::F32(_) | Kind::F64(_) => true,
            Kind::Punct => matches!(self.token.text, "-" | "+" | "~" | "!" | "("),
            _ => false,
        }
    }

    pub(super) fn int_expression(&mut self) -> Parse<Integer> {
        let span = self.here();
        match self.constant()? {
            Constant::Int { value, unsigned } => Ok(Integer { value, unsigned }),
            _ => Err(ParseErrorKind::Unexpected {
                expected: "an integer",
                found: "a floating-point constant".to_owned(),
            }
            .at(span)),
        }
    }

    /// A whole expression, `? :` included.
    pub(super) fn constant(&mut self) -> Parse<Constant> {
        self.nested(|this| {
            let first = this.unary()?;
            this.constant_from(first)
        })
    }

    /// The rest of an expression whose first operand has been read.
    pub(super) fn constant_from(&mut self, first: Constant) -> Parse<Constant> {
        let condition = self.operators(first, 1)?;
        let span = self.here();
        if !self.eat("?")? {
            return Ok(condition);
        }
        let Constant::Int { value, .. } = condition else {
            return Err(ParseErrorKind::FloatOperator.at(span));
        };
        let yes = self.constant()?;
        self.expect(":")?;
        let no = self.constant()?;
        Ok(if value != 0 { yes } else { no })
    }

    /// Applies the binary operators that bind at least as tightly as `floor`, left to right.
    fn operators(&mut self, mut left: Constant, floor: u8) -> Parse<Constant> {
        while self.token.kind == Kind::Punct {
            let operator = self.token.text;
            let span = self.here();
            let Some(level) = constant::precedence(operator).filter(|level| *level >= floor) else { break };
            self.bump()?;
            let right = self.unary()?;
            let right = self.operators(right, level + 1)?;
            left = constant::binary(operator, left, right).map_err(|kind| kind.at(span))?;
        }
        Ok(left)
    }

    pub(super) fn unary(&mut self) -> Parse<Constant> {
        let span = self.here();
        let literal = match self.token.kind {
            Kind::Int { value, unsigned } => Constant::Int { value, unsigned },
            Kind::F32(bits) => Constant::F32(bits),
            Kind::F64(bits) => Constant::F64(bits),
            Kind::Punct if matches!(self.token.text, "-" | "+" | "~" | "!") => {
                let operator = self.bump()?.text;
                let operand = self.nested(Self::unary)?;
                return constant::unary(operator, operand).map_err(|kind| kind.at(span));
            }
            Kind::Punct if self.token.text == "(" => {
                self.bump()?;
                return self.parenthesis();
            }
            _ => return self.unexpected("a constant"),
        };
        self.bump()?;
        Ok(literal)
    }

    /// What follows a `(`: a cast or an inner expression.
    pub(super) fn parenthesis(&mut self) -> Parse<Constant> {
        let span = self.here();
        if let Some(word @ ("s64" | "u64")) = self.token.word() {
            self.bump()?;
            self.expect(")")?;
            let operand = self.nested(Self::unary)?;
            return constant::cast(word == "u64", operand).map_err(|kind| kind.at(span));
        }
        let inner = self.constant()?;
        self.expect(")")?;
        Ok(inner)
    }
}
