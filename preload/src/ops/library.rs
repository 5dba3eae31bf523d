//! Logic of the library functions.
