//! Logic of the pool functions.
