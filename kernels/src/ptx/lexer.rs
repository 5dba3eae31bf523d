//! Text to tokens, one at a time, each with its position. Columns count bytes. The text ends at its first NUL:
//! images handed to the driver carry one, sometimes with padding behind it.

use super::ast::Span;
use super::error::{ParseError, ParseErrorKind};

/// Longest piece of text that an error quotes, in characters.
const QUOTE_CHARS: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// `foo`, `%r1`, `$L__BB0_1`, `_`.
    Ident,
    /// `.global`, `.L2::128B`, `.16x256b`: a dot and what hangs on it.
    Dotted,
    Int {
        value: u64,
        unsigned: bool,
    },
    F32(u32),
    F64(u64),
    /// With its quotes and escapes as written.
    Text,
    Punct,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'t> {
    pub kind: Kind,
    pub text: &'t str,
    pub span: Span,
}

impl<'t> Token<'t> {
    pub fn is(&self, punct: &str) -> bool {
        self.kind == Kind::Punct && self.text == punct
    }

    /// The word of a dotted token, without its dot.
    pub fn word(&self) -> Option<&'t str> {
        if self.kind == Kind::Dotted { self.text.strip_prefix('.') } else { None }
    }

    /// How an error names this token.
    pub fn quote(&self) -> String {
        match self.kind {
            Kind::End => "the end of the text".to_owned(),
            _ => format!("`{}`", shorten(self.text)),
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

pub(super) fn is_ident_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%')
}

fn is_ident_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}

#[derive(Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    line_start: usize,
}

impl<'t> Lexer<'t> {
    pub fn new(text: &'t str) -> Self {
        let text = text.split('\0').next().unwrap_or_default();
        Self { text, at: 0, line: 1, line_start: 0 }
    }

    pub fn next(&mut self) -> Result<Token<'t>, ParseError> {
        self.skip_blanks()?;
        let span = self.span();
        let start = self.at;
        let kind = match self.byte(0) {
            None => Kind::End,
            Some(b'"') => self.string(span)?,
            Some(b'0'..=b'9') => self.number(span)?,
            Some(b'.') if self.byte(1).is_some_and(is_ident_byte) => self.dotted(),
            Some(b'%') if !self.byte(1).is_some_and(is_ident_byte) => self.punct(span)?,
            Some(byte) if is_ident_start(byte) => {
                self.at += 1;
                self.take_ident_bytes();
                Kind::Ident
            }
            Some(_) => self.punct(span)?,
        };
        Ok(Token { kind, text: &self.text[start..self.at], span })
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn span(&self) -> Span {
        let column = u32::try_from(self.at - self.line_start + 1).unwrap_or(u32::MAX);
        Span { line: self.line, column }
    }

    fn newline(&mut self) {
        self.line = self.line.saturating_add(1);
        self.line_start = self.at;
    }

    fn take_ident_bytes(&mut self) {
        while self.byte(0).is_some_and(is_ident_byte) {
            self.at += 1;
        }
    }

    fn skip_blanks(&mut self) -> Result<(), ParseError> {
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b'\n'), _) => {
                    self.at += 1;
                    self.newline();
                }
                (Some(b' ' | b'\t' | b'\r' | 0x0b | 0x0c), _) => self.at += 1,
                (Some(b'/'), Some(b'/')) => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find('\n').unwrap_or(rest.len());
                }
                (Some(b'/'), Some(b'*')) => self.block_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), ParseError> {
        let opened = self.span();
        self.at += 2;
        loop {
            match (self.byte(0), self.byte(1)) {
                (None, _) => return Err(ParseErrorKind::UnterminatedComment.at(opened)),
                (Some(b'*'), Some(b'/')) => {
                    self.at += 2;
                    return Ok(());
                }
                (Some(byte), _) => {
                    self.at += 1;
                    if byte == b'\n' {
                        self.newline();
                    }
                }
            }
        }
    }

    fn string(&mut self, span: Span) -> Result<Kind, ParseError> {
        self.at += 1;
        loop {
            match self.byte(0) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Kind::Text);
                }
                // A backslash at the end of the line continues nothing in PTX.
                Some(b'\\') if !matches!(self.byte(1), None | Some(b'\n')) => self.at += 2,
                None | Some(b'\n') => return Err(ParseErrorKind::UnterminatedString.at(span)),
                Some(_) => self.at += 1,
            }
        }
    }

    /// `::` joins words into one: `.mbarrier::complete_tx::bytes`.
    fn dotted(&mut self) -> Kind {
        self.at += 1;
        self.take_ident_bytes();
        while self.byte(0) == Some(b':')
            && self.byte(1) == Some(b':')
            && self.byte(2).is_some_and(is_ident_byte)
        {
            self.at += 2;
            self.take_ident_bytes();
        }
        Kind::Dotted
    }

    fn punct(&mut self, span: Span) -> Result<Kind, ParseError> {
        const PAIRS: [&[u8]; 8] = [b"<<", b">>", b"<=", b">=", b"==", b"!=", b"&&", b"||"];
        const SINGLES: &[u8] = b"{}[](),;:@+-*/%!~&|^<>=?";
        let rest = &self.text.as_bytes()[self.at..];
        if PAIRS.iter().any(|pair| rest.starts_with(pair)) {
            self.at += 2;
        } else if rest.first().is_some_and(|byte| SINGLES.contains(byte)) {
            self.at += 1;
        } else {
            let character = self.text[self.at..].chars().next().unwrap_or_default();
            return Err(ParseErrorKind::Character(character).at(span));
        }
        Ok(Kind::Punct)
    }

    fn number(&mut self, span: Span) -> Result<Kind, ParseError> {
        let start = self.at;
        self.take_ident_bytes();
        let hexadecimal = matches!(self.text.as_bytes()[start..self.at], [b'0', b'x' | b'X', ..]);
        if !hexadecimal {
            if self.byte(0) == Some(b'.') && self.byte(1).is_some_and(|byte| byte.is_ascii_digit()) {
                self.at += 1;
                self.take_ident_bytes();
            }
            let exponent = matches!(self.text.as_bytes()[self.at - 1], b'e' | b'E');
            if exponent && matches!(self.byte(0), Some(b'+' | b'-')) {
                self.at += 1;
                self.take_ident_bytes();
            }
        }
        let text = &self.text[start..self.at];
        number(text).ok_or_else(|| ParseErrorKind::Number(shorten(text)).at(span))
    }
}

/// ISA "Constants": integers in four bases with an optional `U`, exact bits after `0f` and `0d`, decimals.
fn number(text: &str) -> Option<Kind> {
    let bits = |digits: &str, count: usize| {
        // from_str_radix would take a sign as well.
        let exact = digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        exact.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    match text.as_bytes() {
        [b'0', b'f' | b'F', ..] => {
            return bits(&text[2..], 8).and_then(|bits| u32::try_from(bits).ok()).map(Kind::F32);
        }
        [b'0', b'd' | b'D', ..] => return bits(&text[2..], 16).map(Kind::F64),
        _ => {}
    }
    let (digits, suffixed) = match text.strip_suffix(['U', 'u']) {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', _, ..] if digits.bytes().all(|byte| byte.is_ascii_digit()) => (&digits[1..], 8),
        _ => (digits, 10),
    };
    if !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix)) {
        let value = u64::from_str_radix(digits, radix).ok()?;
        return Some(Kind::Int { value, unsigned: suffixed || i64::try_from(value).is_err() });
    }
    let decimal = radix == 10 && !suffixed && text.bytes().all(|byte| b"0123456789.eE+-".contains(&byte));
    if decimal { text.parse::<f64>().ok().map(|value| Kind::F64(value.to_bits())) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            let token = lexer.next().expect("lexes");
            if token.kind == Kind::End {
                return tokens;
            }
            tokens.push((token.kind, token.text));
        }
    }

    #[test]
    fn numbers_in_every_notation() {
        let int = |value| Some(Kind::Int { value, unsigned: false });
        assert_eq!(number("42"), int(42));
        assert_eq!(number("0"), int(0));
        assert_eq!(number("017"), int(15));
        assert_eq!(number("0x1F"), int(31));
        assert_eq!(number("0b101"), int(5));
        assert_eq!(number("7U"), Some(Kind::Int { value: 7, unsigned: true }));
        assert_eq!(number("0xFFFFFFFFFFFFFFFF"), Some(Kind::Int { value: u64::MAX, unsigned: true }));
        assert_eq!(number("0f3F800000"), Some(Kind::F32(0x3F80_0000)));
        assert_eq!(number("0dBFF0000000000000"), Some(Kind::F64(0xBFF0_0000_0000_0000)));
        assert_eq!(number("1.5e-3"), Some(Kind::F64(1.5e-3_f64.to_bits())));
        assert_eq!(number("0.5"), Some(Kind::F64(0.5_f64.to_bits())));
        for bad in
            ["089", "0x", "12abc", "0f3F8", "0d+FF0000000000000", "18446744073709551616", "0b2", "1.5U"]
        {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_keep_their_colons_and_names_their_dollars() {
        let tokens = kinds("ld.global.L2::128B $L__BB0_1:.16x256b %tid.x");
        let texts: Vec<_> = tokens.iter().map(|token| token.1).collect();
        assert_eq!(texts, ["ld", ".global", ".L2::128B", "$L__BB0_1", ":", ".16x256b", "%tid", ".x"]);
    }

    #[test]
    fn positions_survive_comments_and_crlf() {
        let mut lexer = Lexer::new("/* a\r\n b */ x // y\r\n  z\0 tail");
        let x = lexer.next().expect("x");
        assert_eq!((x.text, x.span), ("x", Span { line: 2, column: 7 }));
        let z = lexer.next().expect("z");
        assert_eq!((z.text, z.span), ("z", Span { line: 3, column: 3 }));
        assert_eq!(lexer.next().expect("end").kind, Kind::End);
    }

    #[test]
    fn errors_stand_where_the_trouble_begins() {
        let error = Lexer::new(" /* never").next().expect_err("open comment");
        assert_eq!(error.kind, ParseErrorKind::UnterminatedComment);
        assert_eq!(error.span, Span { line: 1, column: 2 });
        let error = Lexer::new("\"a\\\"\n").next().expect_err("open string");
        assert_eq!(error.kind, ParseErrorKind::UnterminatedString);
        assert_eq!(Lexer::new("é").next().expect_err("character").kind, ParseErrorKind::Character('é'));
    }
}
