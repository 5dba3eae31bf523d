//! Logic of the copy functions.
