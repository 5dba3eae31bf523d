//! Logic of the function functions.
