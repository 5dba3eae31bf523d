//! Logic of the pointer functions.
