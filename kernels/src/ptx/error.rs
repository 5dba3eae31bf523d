//! What the reader says about text that it cannot read.

use super::ast::Span;

/// The first thing in a text that is not PTX, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {kind}", .span.line, .span.column)]
pub struct ParseError {
    pub span: Span,
    pub kind: ParseErrorKind,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// `found` is the token's text, shortened.
    #[error("expected {expected}, found {found}")]
    Unexpected { expected: &'static str, found: String },
    #[error("a character that PTX does not use: {0:?}")]
    Character(char),
    #[error("a comment that never ends")]
    UnterminatedComment,
    #[error("a string that does not end on its line")]
    UnterminatedString,
    #[error("a malformed number: {0}")]
    Number(String),
    /// A well-formed number or expression whose value the place does not admit.
    #[error("{what} is out of range")]
    Range { what: &'static str },
    #[error("a division by zero in a constant expression")]
    DivisionByZero,
    #[error("an operator that does not apply to a floating-point constant")]
    FloatOperator,
    #[error("nested more than {} levels deep", super::MAX_NESTING)]
    Nesting,
}

impl ParseErrorKind {
    pub(super) fn at(self, span: Span) -> ParseError {
        ParseError { span, kind: self }
    }
}
