//! Logic of the module functions.
