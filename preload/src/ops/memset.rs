//! Logic of the memset functions.
