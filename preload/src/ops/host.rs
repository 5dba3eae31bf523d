//! Logic of the host functions.
