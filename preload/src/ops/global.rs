//! Logic of the global functions.
